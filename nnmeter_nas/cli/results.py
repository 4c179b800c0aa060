"""Write results as JSON or CSV, each record as soon as it is ready."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from ..files import write_bytes
from .messages import note

Record = Mapping[str, Any]


class _Json:
    """Writes an array with one record per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = "[\n"

    def write(self, record: Record) -> None:
        self._stream.write(self._before + json.dumps(record))
        self._before = ",\n"

    def close(self) -> None:
        self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")


class _Csv:
    """Writes a header, then a row per record, or per part of a record."""

    def __init__(self, stream: TextIO, columns: Sequence[str], parts: str | None) -> None:
        self._writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        self._parts = parts
        self._writer.writeheader()

    def write(self, record: Record) -> None:
        rows = record.get(self._parts) if self._parts else None
        self._writer.writerows({**record, **row} for row in rows or [{}])

    def close(self) -> None:
        """Do nothing: a CSV file needs no end."""


@contextmanager
def written(
    options: argparse.Namespace, columns: Sequence[str], parts: str | None = None
) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record to standard output, or to the file of ``--output``.

    The file appears once all records are written, and only if at least one of them has no ``error``.

    Args:
        options: options with ``format`` ("json" or "csv") and ``output``.
        columns: columns of CSV: keys of a record and of its parts.
        parts: key of a record's parts; each part becomes a row of CSV. None makes the record the row.
    """
    stream: TextIO = sys.stdout if options.output is None else io.StringIO()
    form = _Json(stream) if options.format == "json" else _Csv(stream, columns, parts)
    useful = False

    def write(record: Record) -> None:
        nonlocal useful
        useful = useful or not record["error"]
        form.write(record)
        stream.flush()

    yield write
    form.close()
    if isinstance(stream, io.StringIO) and options.output is not None and useful:
        write_bytes(options.output, stream.getvalue().encode(errors="surrogateescape"))
        note(f"saved {options.output}")
