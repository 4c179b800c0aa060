"""Download one large file: over HTTPS only, resumed after a break, checked, and whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ... import files
from ...errors import PackError
from ...extras import load_extra
from .progress import Progress, shown

#: Largest number of attempts in a row that receive nothing, and of attempts in total.
ATTEMPTS, _MAX_ATTEMPTS = 5, 100
#: Seconds before the second attempt; doubled for each further attempt that receives nothing.
BACKOFF = 1.0
#: Larger files, in bytes, are refused; nn-Meter's largest is less than a tenth of this.
MAX_BYTES = 32 << 30
_TIMEOUT = 30.0
_MAX_REDIRECTS = 10
#: Status codes after which another attempt may succeed: too many requests, and server errors.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class _BrokenError(Exception):
    """An attempt broke off; another may get further."""


class _UnreachableError(Exception):
    """The server cannot be reached."""


def download(
    url: str,
    sha256: str | None = None,
    progress: Progress | None = None,
    otherwise: str = "import the file: nnmeter-nas predictors import FILE",
) -> Path:
    """Download ``url`` into the download folder; return the path of the file.

    Bytes that an earlier call received are not fetched again if the file's ETag shows that it has not
    changed. A second process waits for the first.

    Args:
        url: an ``https://`` address; redirects to other schemes are refused.
        sha256: hex digest that the file must match.
        progress: called with the file's name, bytes received and bytes in total (0 if unknown).
        otherwise: what to do with the file where it cannot be downloaded here, for the message.

    Raises:
        PackError: the server cannot be reached, refuses, or does not send what it announced. Bytes received
            are kept only if the download can be resumed.
        MissingPackageError: httpx is not installed.
    """
    httpx = load_extra("httpx", "download", "downloading")
    path = _path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_beside(path, "lock")), httpx.Client(timeout=_TIMEOUT) as client, shown(progress) as report:
        try:
            _fetch(httpx, client, url, path, report)
        except _UnreachableError as error:
            raise PackError(
                f"{error}. If this computer is offline, download it elsewhere and {otherwise}"
            ) from error
        if sha256 is not None and files.sha256(path) != sha256.lower():
            discard(path)
            raise PackError(f"{url} is refused: the SHA-256 of what it sent is not {sha256}")
    return path


def discard(path: Path) -> None:
    """Remove a downloaded file."""
    for file in (path, _beside(path, "part"), _beside(path, "etag")):
        file.unlink(missing_ok=True)


def _path(url: str) -> Path:
    """Path of the file at ``url``: its own name, after a hash of the whole address."""
    name = re.sub(r"[^\w.-]", "_", url.split("?")[0].rsplit("/", 1)[-1], flags=re.ASCII)[-80:]
    return files.user_cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(httpx: Any, client: Any, url: str, path: Path, report: Progress) -> None:
    """Receive the file at ``url`` in as many attempts as needed."""
    failures, part = 0, _beside(path, "part")
    for attempt in range(_MAX_ATTEMPTS):
        before = _size(part)
        try:
            return _receive(client, url, path, report)
        except httpx.InvalidURL as error:
            raise PackError(f"{url} is no address: {error}") from error
        except httpx.ConnectError as error:
            if attempt == 0:
                raise _unreachable(url, error) from error
            reason: Exception = error
        except (httpx.TransportError, _BrokenError) as error:
            reason = error
        failures = 0 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            break
        time.sleep(BACKOFF * 2**failures)
    raise _unreachable(url, reason) from reason


def _unreachable(url: str, reason: Exception) -> _UnreachableError:
    return _UnreachableError(f"{url} cannot be downloaded: {str(reason) or type(reason).__name__}")


def _receive(client: Any, url: str, path: Path, report: Progress) -> None:
    """Make one attempt: continue the partial file, and rename it when it is whole."""
    part, etag_file = _beside(path, "part"), _beside(path, "etag")
    etag = etag_file.read_text(encoding="ascii", errors="ignore") if etag_file.exists() else ""
    have = _size(part) if etag else 0
    headers = {"Accept-Encoding": "identity"}
    if etag and path.exists():
        headers["If-None-Match"] = etag
    elif have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with _answer(client, url, headers) as response:
        status = response.status_code
        if status == 304 and path.exists():
            return
        if status in _PASSING:
            raise _BrokenError(f"the server answers {status} {response.reason_phrase}")
        if status == 416 or (status == 206 and not _continues(response, have)):
            discard(path)
            raise _BrokenError("the server cannot resume the download")
        if status not in (200, 206):
            raise PackError(f"{url} is not downloaded: the server answers {status} {response.reason_phrase}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PackError(f"{url} is not downloaded: the server sends it compressed, unasked")
        if status == 200:
            discard(path)
            have = 0
            if (tag := response.headers.get("etag", "")).startswith('"') and tag.isascii():
                files.write_bytes(etag_file, tag.encode())
        length = response.headers.get("content-length", "")
        total = have + int(length) if length.isdecimal() else 0
        _append(response, part, have, total, report, f"downloading {url.rsplit('/', 1)[-1]}")
    os.replace(part, path)


def _append(response: Any, part: Path, have: int, total: int, report: Progress, what: str) -> None:
    """Append the body of ``response`` to ``part``, which holds ``have`` of ``total`` bytes."""
    if total > MAX_BYTES:
        raise PackError(f"{response.url} is refused: it has {total} bytes, more than {MAX_BYTES}")
    with part.open("r+b" if have else "wb") as file:
        file.truncate(have)
        file.seek(have)
        report(what, have, total)
        for block in response.iter_raw():
            have += file.write(block)
            if have > MAX_BYTES:
                file.truncate(0)
                raise PackError(f"{response.url} is refused: it sends more than {MAX_BYTES} bytes")
            report(what, have, total)
    if total and have != total:
        raise _BrokenError(f"the server sent {have} of {total} bytes")


def _continues(response: Any, have: int) -> bool:
    """Whether a partial response starts at byte ``have``."""
    return have > 0 and str(response.headers.get("content-range", "")).startswith(f"bytes {have}-")


@contextmanager
def _answer(client: Any, url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The response to a request for the file at ``url``; redirects are followed."""
    for _ in range(_MAX_REDIRECTS):
        if not url.lower().startswith("https://"):
            raise PackError(f"{url} is not downloaded: only https:// addresses are")
        response = client.send(client.build_request("GET", url, headers=headers), stream=True)
        try:
            if response.next_request is None:
                yield response
                return
            url = str(response.next_request.url)
        finally:
            response.close()
    raise PackError(f"{url} is not downloaded: it was redirected more than {_MAX_REDIRECTS} times")
