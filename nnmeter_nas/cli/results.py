"""Write results as JSON, CSV or Parquet, each record as soon as it is ready."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, TextIO

from ..extras import load_extra
from ..files import unnamed_file_beside, write_stream
from .messages import note

Record = Mapping[str, Any]
#: Columns of a table: name -> type of the values, any of which may be missing.
Columns = Mapping[str, type]

#: Rows that a Parquet file keeps together, and most rows that wait in memory to be written.
_ROWS = 8192


class _Form(Protocol):
    """A format of results."""

    def write(self, record: Record) -> None:
        """Write one record."""

    def close(self) -> None:
        """Write what ends the table."""


class _Json:
    """Writes an array with one record per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = "[\n"

    def write(self, record: Record) -> None:
        self._stream.write(self._before + json.dumps(record))
        self._before = ",\n"
        self._stream.flush()

    def close(self) -> None:
        self._stream.write("[]\n" if self._before == "[\n" else "\n]\n")
        self._stream.flush()


class _Csv:
    """Writes a header, then a row per record, or per part of a record."""

    def __init__(self, stream: TextIO, columns: Columns, parts: str | None) -> None:
        self._stream = stream
        self._writer = csv.DictWriter(stream, list(columns), extrasaction="ignore", lineterminator="\n")
        self._parts = parts
        self._writer.writeheader()

    def write(self, record: Record) -> None:
        self._writer.writerows(_rows(record, self._parts))
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


class _Parquet:
    """Writes a row per record, or per part of a record, in groups."""

    def __init__(self, stream: BinaryIO, columns: Columns, parts: str | None) -> None:
        purpose = "writing Parquet files"
        self._arrow = load_extra("pyarrow", "parquet", purpose)
        types = {str: self._arrow.string(), float: self._arrow.float64(), int: self._arrow.int64(),
                 bool: self._arrow.bool_()}  # fmt: skip
        self._schema = self._arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = load_extra("pyarrow.parquet", "parquet", purpose).ParquetWriter(stream, self._schema)
        self._parts = parts
        self._waiting: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        for row in _rows(record, self._parts):
            self._waiting.append({name: _as_text(row.get(name)) for name in self._schema.names})
        if len(self._waiting) >= _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        self._writer.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


@contextmanager
def written(
    options: argparse.Namespace, columns: Columns, parts: str | None = None
) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record to standard output, or to the file of ``--output``.

    The file appears once all records are written, and only if at least one of them has no ``error``. Few
    records are in memory at a time.

    Args:
        options: options with ``format`` ("json", "csv", or with ``output`` "parquet") and ``output``.
        columns: columns of a table: keys of a record and of its parts.
        parts: key of a record's parts; each part becomes a row of a table. None makes the record the row.

    Raises:
        MissingPackageError: the format needs a package that is not installed.
    """
    if options.output is None:
        text = _Json(sys.stdout) if options.format == "json" else _Csv(sys.stdout, columns, parts)
        yield text.write
        text.close()
        return
    with unnamed_file_beside(options.output) as file:
        form = _form(options.format, file, columns, parts)
        useful = False

        def write(record: Record) -> None:
            nonlocal useful
            useful = useful or not record["error"]
            form.write(record)

        yield write
        form.close()
        if useful:
            write_stream(options.output, file)
            note(f"saved {options.output}")


def _form(name: str, file: BinaryIO, columns: Columns, parts: str | None) -> _Form:
    """Return what writes records to ``file``."""
    if name == "parquet":
        return _Parquet(file, columns, parts)
    text = io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="", write_through=True)
    return _Json(text) if name == "json" else _Csv(text, columns, parts)


def _rows(record: Record, parts: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table for one record; a record that has parts is repeated in each."""
    for row in (record.get(parts) if parts else None) or [{}]:
        yield {**record, **row}


def _as_text(value: Any) -> Any:
    r"""Make a string valid Unicode; a file's name may hold any bytes.

    >>> _as_text("caf\udce9.onnx")
    'caf\\udce9.onnx'
    """
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
