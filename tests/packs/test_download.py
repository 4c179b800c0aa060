"""Downloads from a real local HTTPS server are resumed, verified and atomic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from download_server import CONTENT, Server, authority, server  # noqa: F401  # the latter two are fixtures
from forests import DEVICE, write_predictor, zipped
from layout import REPOSITORY
from nnmeter_nas.errors import MissingPackageError, PackError
from nnmeter_nas.files import sha256
from nnmeter_nas.packs import import_predictor, verify_pack
from nnmeter_nas.packs.nnmeter1 import download as download_module
from nnmeter_nas.packs.nnmeter1 import importing
from nnmeter_nas.packs.nnmeter1.download import discard, download


def cached(tmp_path: Path) -> list[str]:
    """Suffixes of the files in the download folder, without locks."""
    files = (tmp_path / "home" / "cache").glob("*")
    return sorted(path.suffix for path in files if path.suffix != ".lock")


def test_complete_file_arrives_and_progress_is_in_bytes(server: Server) -> None:
    told: list[tuple[str, int, int]] = []
    path = download(server.url, sha256=None, progress=lambda *figures: told.append(figures))
    assert path.read_bytes() == CONTENT
    assert path.name.endswith(f"-{DEVICE}.zip")
    assert told[0][1:] == (0, len(CONTENT))
    assert told[-1][1:] == (len(CONTENT), len(CONTENT))
    assert "zip" in told[-1][0]


def test_broken_connections_resume_at_the_last_byte(server: Server) -> None:
    server.breaks = [1000, 300_000, 0, 0, 500]
    assert download(server.url).read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == [
        None, "bytes=1000-", "bytes=301000-", "bytes=301000-", "bytes=301000-", "bytes=301500-",
    ]  # fmt: skip
    assert {request.get("if-range") for request in server.requests[1:]} == {server.etag}


def test_later_call_resumes_an_earlier_download(server: Server, tmp_path: Path) -> None:
    server.breaks = [5000] + [0] * download_module.ATTEMPTS
    with pytest.raises(PackError, match="cannot be downloaded"):
        download(server.url)
    assert cached(tmp_path) == [".etag", ".part"]
    assert download(server.url).read_bytes() == CONTENT
    assert server.requests[-1]["range"] == "bytes=5000-"


@pytest.mark.parametrize("etag", ['"second"', 'W/"weak"', None])
def test_changed_file_is_downloaded_from_the_start(server: Server, etag: str | None) -> None:
    server.breaks = [5000] + [0] * download_module.ATTEMPTS
    with pytest.raises(PackError):
        download(server.url)
    server.content, server.etag = CONTENT[::-1], etag
    server.breaks = [7000]
    assert download(server.url).read_bytes() == CONTENT[::-1]


def test_server_without_ranges_sends_the_whole_file_again(server: Server) -> None:
    server.breaks, server.ranges = [5000, 9000], False
    assert download(server.url).read_bytes() == CONTENT


def test_existing_file_is_downloaded_again_only_if_it_changed(server: Server) -> None:
    path = download(server.url)
    before = path.stat().st_ino
    assert download(server.url) == path
    assert path.stat().st_ino == before
    assert server.requests[-1]["if-none-match"] == server.etag
    server.content, server.etag = b"changed", '"second"'
    assert download(server.url).read_bytes() == b"changed"
    discard(path)
    assert not path.exists()


@pytest.mark.parametrize("lie", [1, 100_000])
def test_download_shorter_than_announced_is_rejected(server: Server, tmp_path: Path, lie: int) -> None:
    server.lie = lie
    with pytest.raises(PackError, match="cannot be downloaded"):
        download(server.url)
    assert ".zip" not in cached(tmp_path)


def test_download_longer_than_announced_fails_the_hash_check(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "right.zip").write_bytes(CONTENT)
    server.lie = -5000
    with pytest.raises(PackError, match="SHA-256"):
        download(server.url, sha256=sha256(tmp_path / "right.zip"))
    assert cached(tmp_path) == []
    server.lie = 0
    download(server.url, sha256=sha256(tmp_path / "right.zip").upper())


def test_file_that_is_too_large_is_rejected(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "MAX_BYTES", 1000)
    with pytest.raises(PackError, match=f"{len(CONTENT)} bytes, more than 1000"):
        download(server.url)
    assert ".zip" not in cached(tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.zip", "ftp://127.0.0.1/x.zip", "127.0.0.1/x.zip"])
def test_only_https_is_allowed(server: Server, url: str) -> None:
    with pytest.raises(PackError, match="only https://"):
        download(url)
    server.redirect = url if "://" in url else "http://127.0.0.1/x.zip"
    with pytest.raises(PackError, match="only https://"):
        download(server.url)


def test_redirects_within_https_are_followed_up_to_a_limit(server: Server) -> None:
    server.redirect = f"{server.address}/elsewhere"
    assert download(server.url).read_bytes() == CONTENT
    server.redirect = f"{server.address}/again.zip"
    with pytest.raises(PackError, match="redirected more than"):
        download(server.url)


def test_temporary_errors_are_retried_and_others_are_not(server: Server) -> None:
    server.statuses = [503, 429, 500]
    assert download(server.url).read_bytes() == CONTENT
    server.statuses, before = [404], len(server.requests)
    with pytest.raises(PackError, match="404 Not Found"):
        download(f"{server.address}/other.zip")
    assert len(server.requests) == before + 1


def test_partial_file_is_discarded_if_the_server_cannot_resume_it(server: Server) -> None:
    server.breaks = [5000] + [0] * download_module.ATTEMPTS
    with pytest.raises(PackError):
        download(server.url)
    server.statuses = [416]
    assert download(server.url).read_bytes() == CONTENT


def test_server_with_an_unknown_certificate_authority_is_rejected(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(PackError, match="certificate"):
        download(server.url)
    assert not server.requests


def test_error_when_offline_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    url = "https://127.0.0.1:9/x.zip"
    with pytest.raises(PackError, match=r"1:9/x\.zip cannot be downloaded.*predictors import FILE"):
        download(url)
    assert cached(tmp_path) == []


def test_error_without_httpx_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingPackageError, match=r"nnmeter_nas\[download\]"):
        download("https://127.0.0.1:9/x.zip")


DOWNLOAD = """
import sys
from nnmeter_nas.packs.nnmeter1.download import download
print(download(sys.argv[1]).stat().st_size)
"""


def test_two_concurrent_processes_download_the_file_once(server: Server) -> None:
    command = [sys.executable, "-c", DOWNLOAD, server.url]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(len(CONTENT))] * 2
    assert [request.get("if-none-match") for request in server.requests] == [None, server.etag]


@pytest.mark.parametrize("by_name", [True, False])
def test_release_is_imported_from_a_url(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    monkeypatch.setattr(importing, "RELEASE_URL", f"{server.address}/{{device}}.zip")
    kernels = dict.fromkeys(importing.RELEASED[DEVICE], 3)
    archive = zipped(write_predictor(tmp_path / "release", kernels), tmp_path / "any.zip")
    server.content, server.breaks = archive.read_bytes(), [20_000]
    folder = import_predictor(DEVICE.upper() if by_name else server.url, sha256=sha256(archive))
    assert folder == tmp_path / "home" / "packs" / DEVICE / "1.0"
    verify_pack(folder)
    assert cached(tmp_path) == [], "the zip is kept though the pack is made"
    asked = len(server.requests)
    assert import_predictor(DEVICE) == folder
    assert len(server.requests) == asked, "what is imported is downloaded again"


def test_release_without_a_kernel_is_rejected(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "RELEASE_URL", f"{server.address}/{{device}}.zip")
    server.content = zipped(write_predictor(tmp_path / "release"), tmp_path / "any.zip").read_bytes()
    with pytest.raises(PackError, match=r"lacks .*hswish\.pkl"):
        import_predictor(DEVICE)
    server.content = server.content[:-100]
    with pytest.raises(PackError, match="no zip"):
        import_predictor(DEVICE)
    assert cached(tmp_path) == []
    assert not (tmp_path / "home" / "packs").exists()
