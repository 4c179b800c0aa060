"""Files of an nn-Meter predictor, read by name from a folder, or from a zip that is never extracted."""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from ...errors import PackError
from ...files import sha256
from ..pack import RULE_FILE

META, PICKLE_SUFFIX = "meta.yaml", ".pkl"
#: Size limit of a rule file or description; real ones take kilobytes.
_MAX_TEXT_BYTES = 4 << 20
#: Limits of a zip: unpacked bytes in total, unpacked per packed byte (deflate packs zeros 1:1000), entries.
MAX_ZIP_BYTES, _MAX_ZIP_RATIO, MAX_ZIP_ENTRIES = 64 << 30, 200, 10_000
#: This many unpacked bytes of an entry are exempt from the ratio.
_SMALL = 1 << 20
_ENCRYPTED = 0x1


class Members(Protocol):
    """Files of one predictor.

    Attributes:
        label: name of the source in messages.
        device: name of the folder that holds the files; None if there is none.
        sizes: size in bytes of each relevant file, by name.
    """

    label: str
    device: str | None
    sizes: dict[str, int]

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open the file ``name`` for reading; raises PackError if it cannot be opened or read."""

    def sha256(self) -> str:
        """Hash of the content."""


def kernels_of(members: Members) -> list[str]:
    """Names of the kernels that have a forest."""
    suffix = PICKLE_SUFFIX
    return sorted(name[: -len(suffix)] for name in members.sizes if name.endswith(suffix))


def read_text(members: Members, name: str) -> bytes:
    """Content of a small file.

    Raises:
        PackError: the file is missing or far too large.
    """
    size = members.sizes.get(name)
    if size is None:
        raise PackError(f"{members.label} lacks {name}")
    if size > _MAX_TEXT_BYTES:
        raise PackError(f"{name} of {members.label} is refused: it takes {size} bytes")
    with members.open(name) as file:
        return file.read(size)


class PickleFolder:
    """Members in a folder of the file system."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self.device: str | None = path.resolve().name
        self._path = path
        files = (file for file in path.iterdir() if _matters(file.name) and file.is_file())
        self.sizes = {file.name: file.stat().st_size for file in files}

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        try:
            with (self._path / name).open("rb") as file:
                yield file
        except OSError as error:
            raise PackError(f"{self._path / name} cannot be read: {error.strerror}") from error

    def sha256(self) -> str:
        """Hash of the names and hashes of the files."""
        lines = [f"{sha256(self._path / name)}  {name}\n" for name in sorted(self.sizes)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class Archive:
    """Members in one folder of a zip.

    Raises:
        PackError: the zip is damaged, has entries outside its folder, links, encrypted or duplicate entries,
            unpacks to far more than its size, or holds several predictors.
    """

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        with self._opened() as archive:
            entries = archive.infolist()
        check_entries(entries, path)
        ours = {
            PurePosixPath(entry.filename): entry
            for entry in entries
            if not entry.is_dir() and _matters(PurePosixPath(entry.filename).name)
        }
        folders = {name.parent for name in ours if name.parts[0] != "__MACOSX"}
        if len(folders) > 1:
            raise PackError(f"{path} holds several predictors: {', '.join(sorted(map(str, folders)))}")
        self.device = next((folder.name or None for folder in folders), None)
        self._entries = {name.name: entry for name, entry in ours.items() if name.parent in folders}
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self._opened() as archive, archive.open(self._entries[name]) as file:
            yield file  # type: ignore[misc]  # typed as IO[bytes]

    def sha256(self) -> str:
        """Hash of the zip."""
        return sha256(self._path)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, UnicodeDecodeError) as error:
            raise PackError(f"{self._path} is no zip that can be read: {error}") from error


def _matters(name: str) -> bool:
    return not name.startswith(".") and (name.endswith(PICKLE_SUFFIX) or name in (RULE_FILE, META))


def check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    """Raise a PackError for a zip that no ordinary tool wrote."""
    if len(entries) > MAX_ZIP_ENTRIES or sum(entry.file_size for entry in entries) > MAX_ZIP_BYTES:
        raise PackError(f"{path} is refused: it unpacks to more than a predictor can take")
    if sum(entry.compress_size for entry in entries) > path.stat().st_size:
        raise PackError(f"{path} is refused: its entries overlap")
    names: set[str] = set()
    for entry in entries:
        name = entry.filename
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
            raise PackError(f"{path} is refused: its entry {name!r} lies outside the folder")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackError(f"{path} is refused: its entry {name!r} is a link or device, not a file")
        if entry.flag_bits & _ENCRYPTED:
            raise PackError(f"{path} is refused: its entry {name!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PackError(f"{path} is refused: its entry {name!r} is neither stored nor deflated")
        if str(PurePosixPath(name)).casefold() in names:
            raise PackError(f"{path} is refused: it has the entry {name!r} twice")
        names.add(str(PurePosixPath(name)).casefold())
        if entry.file_size > _SMALL + _MAX_ZIP_RATIO * entry.compress_size:
            raise PackError(f"{path} is refused: its entry {name!r} unpacks to {entry.file_size} bytes")
