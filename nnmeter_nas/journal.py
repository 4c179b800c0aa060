"""A journal: a file that grows line by line. A crash at any moment loses nothing that was already written.

A journal is a file with one JSON object per line. A line counts once it is complete. If a crash left the last
line incomplete, it is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from .errors import SearchError


class Journal:
    """A journal open for writing; a record is on the disk when :meth:`append` returns.

    Attributes:
        path: the file.
        records: its records, oldest first.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, and create the file if it does not exist.

        Raises:
            SearchError: a complete line is not a JSON object.
        """
        self.path = path
        self.records, length = _read(path)
        created = not path.exists()
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(length)
        if created:
            _sync_folder(path.parent)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write ``record``, made of JSON values, and wait until it is on the disk.

        Raises:
            ValueError: it holds NaN or infinity, which JSON lacks.
        """
        line = json.dumps(dict(record), allow_nan=False, separators=(", ", ": "))
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(dict(record))

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
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the records and their size in bytes; an incomplete last line may follow them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    length = content.rfind(b"\n") + 1
    lines = content[:length].split(b"\n")[:-1]
    return [_record(path, number, line) for number, line in enumerate(lines, 1)], length


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        record = None
    if not isinstance(record, dict):
        raise SearchError(
            f"{path}, line {number}: {line[:40]!r} is no JSON object, so the file is damaged; restore it, or "
            f"start anew in another folder"
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
