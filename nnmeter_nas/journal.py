"""A journal: a file that grows line by line. A crash at any moment loses nothing that was already written.

A journal is a file with one JSON object per line. A line counts once it is complete. If a crash left the last
line incomplete, it is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from .errors import SearchError


class Journal:
    """A journal open for writing; a record is on the disk when :meth:`append` returns.

    Attributes:
        path: the file.
        records: its records, oldest first; empty if they are not kept.
    """

    def __init__(self, path: Path, keep: bool = True) -> None:
        """Open ``path``, and create the file if it does not exist.

        Args:
            path: the file.
            keep: hold all records in memory. If not, :func:`iter_journal` reads them one at a time.

        Raises:
            SearchError: a complete line is not a JSON object.
        """
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._keep = keep
        length = 0
        for record, end in _lines(path):
            length = end
            if keep:
                self.records.append(record)
        created = not path.exists()
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(length)
        if created:
            _sync_folder(path.parent)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write ``records``, made of JSON values, and wait until they are on the disk.

        A crash meanwhile may leave the first few of them.

        Raises:
            ValueError: one holds NaN or infinity, which JSON lacks. None is written.
        """
        lines = [json.dumps(dict(one), allow_nan=False, separators=(", ", ": ")) for one in records]
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._keep:
            self.records += map(dict, records)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal, oldest first, without changing it; none if there is no such file.

    Raises:
        SearchError: a complete line is not a JSON object.
    """
    return list(iter_journal(path))


def iter_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal as :func:`read_journal` returns them, one in memory at a time."""
    return (record for record, _ in _lines(path))


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each record and where its line ends, in bytes; an incomplete last line is left out."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        end = 0
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                end += len(line)
                yield _record(path, number, line.removesuffix(b"\n")), end


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        record = None
    if not isinstance(record, dict):
        raise SearchError(
            f"{path}, line {number}: {line[:40]!r} is no JSON object, so the file is damaged; restore it, or "
            f"start anew with another file or folder"
        )
    return record


def _sync_folder(folder: Path) -> None:
    """Make a new file's name in ``folder`` survive a crash of the machine, if the system supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
