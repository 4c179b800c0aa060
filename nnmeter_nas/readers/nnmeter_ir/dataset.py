"""Stream the nn-Meter benchmark dataset in its official schema: JSON lines, one model per line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DatasetError

_NOT_DEVICES = ("id", "graph")
#: What parsing a malformed line raises.
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class BenchModel:
    """One measured model: ``latency_ms`` by device (measured ones only) and ``graph`` in nn-Meter IR."""

    id: str
    family: str
    latency_ms: dict[str, float]
    graph: Mapping[str, Any]


def dataset_files(folder: str | Path) -> list[Path]:
    """Return the ``<family>s.jsonl`` files of ``folder``, sorted.

    Raises:
        DatasetError: the folder has no such file.
    """
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise DatasetError(
            f"no <family>s.jsonl files in {str(folder)!r}; unpack the official datasets.zip there"
        )
    return files


def family_of(path: Path) -> str:
    """Return the model family of a dataset file.

    >>> family_of(Path("proxylessnass.jsonl"))
    'proxylessnas'
    """
    return path.stem.removesuffix("s")


def iter_models(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[BenchModel]:
    """Yield the models of one file, with one line in memory at a time.

    Args:
        path: the file.
        start, end: yield only models whose line starts at a byte in ``[start, end)``. The default is the
            whole file.

    Raises:
        DatasetError: the file does not exist, or a line does not follow the schema. The message names the
            file and line.
    """
    for model in read_lines(path, start, end):
        if isinstance(model, DatasetError):
            raise model
        yield model


def read_lines(
    path: str | Path, start: int = 0, end: int | None = None
) -> Iterator[BenchModel | DatasetError]:
    """Yield the models of one file as :func:`iter_models` does, or the error of a malformed line.

    Raises:
        DatasetError: the file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist or is not a file; pass a .jsonl file of the bench dataset")
    with path.open("rb") as lines:
        if start:
            lines.seek(start - 1)
            lines.readline()  # skip the rest of the line that starts before ``start``
        first = position = lines.tell()
        skipped: int | None = None
        for number, line in enumerate(lines, 1):
            if end is not None and position >= end:
                return
            position += len(line)
            if not line.strip():
                continue
            try:
                yield _model(path, line)
            except _MALFORMED as error:
                skipped = _lines_before(path, first) if skipped is None else skipped
                told = DatasetError(
                    f"{path}:{skipped + number}: not a model of the official schema "
                    f"({type(error).__name__}: {error})"
                )
                told.__cause__ = error
                yield told


def _model(path: Path, line: bytes) -> BenchModel:
    """Parse a line of ``path``; raises one of :data:`_MALFORMED`."""
    record = json.loads(line)
    latency = {k: _milliseconds(v) for k, v in record.items() if k not in _NOT_DEVICES and v is not None}
    return BenchModel(str(record["id"]), family_of(path), latency, dict(record["graph"]))


def _lines_before(path: Path, position: int) -> int:
    """Return the number of lines before the one that starts at byte ``position``."""
    count = 0
    with path.open("rb") as lines:
        while position > 0:
            position -= len(lines.readline())
            count += 1
    return count


def _milliseconds(value: Any) -> float:
    latency = float(value)
    if not 0 < latency < math.inf:
        raise ValueError(f"latency {value} is not a positive number of milliseconds")
    return latency
