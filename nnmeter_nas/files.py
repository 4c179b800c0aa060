"""Write files atomically, hash them, lock and locate folders."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from .errors import SearchError

#: Environment variable that overrides the platform's user folders.
HOME = "NNMETER_NAS_HOME"
_BLOCK = 1 << 20


def user_folder() -> Path:
    """Folder of imported packs and other user data: ``NNMETER_NAS_HOME``, by default the platform's."""
    home = os.environ.get(HOME)
    return Path(home).absolute() if home else platformdirs.user_data_path("nnmeter_nas")


def user_cache_folder() -> Path:
    """Folder of unfinished downloads."""
    return user_folder() / "cache" if os.environ.get(HOME) else platformdirs.user_cache_path("nnmeter_nas")


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Whether ``error`` says that a disk, a quota or a file is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: str | Path, *parts: bytes | memoryview) -> None:
    """Write ``parts`` one after another to ``path``, atomically. Create missing parent folders."""
    with _taking_the_place_of(Path(path)) as file:
        file.writelines(parts)


def write_stream(path: str | Path, stream: BinaryIO) -> None:
    """Copy all of ``stream`` to ``path``, atomically. Create missing parent folders."""
    stream.seek(0)
    with _taking_the_place_of(Path(path)) as file:
        shutil.copyfileobj(stream, file, _BLOCK)


@contextmanager
def unnamed_file_beside(path: Path) -> Iterator[BinaryIO]:
    """Yield a file without a name on the disk of ``path``. It is gone when the process is, even if killed."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    with tempfile.TemporaryFile(dir=folder) as file:
        yield file


def write_npz(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` as a compressed ``.npz`` atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def lock_folder(path: Path, name: str, work: str) -> FileLock:
    """Lock the folder ``path`` for this process by the file ``name`` in it; ``work`` says what for.

    Raises:
        SearchError: another process has locked it, or it is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise SearchError(f"{path} is a file; name a folder") from error
    lock = FileLock(path / name, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise SearchError(
            f"another process works on the {work} in {path}; wait for it, end it, or take another folder"
        ) from error
    return lock


def sha256(path: str | Path) -> str:
    """SHA-256 of a file of any size, as a hex string."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value (numbers, strings, lists and mappings), as a hex string."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _taking_the_place_of(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write, which takes the place of ``path`` if the context ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # gone if we are interrupted after the rename
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
