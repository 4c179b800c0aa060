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
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist or is not a file; pass a .jsonl file of the bench dataset")
    with path.open("rb") as lines:
        if start:
            lines.seek(start - 1)
            lines.readline()  # skip the rest of the line that starts before ``start``
        position = lines.tell()
        for line in lines:
            if end is not None and position >= end:
                return
            if line.strip():
                yield _model(path, line, position)
            position += len(line)


def _model(path: Path, line: bytes, position: int) -> BenchModel:
    """Parse ``line``, which starts at byte ``position`` of ``path``."""
    try:
        record = json.loads(line)
        latency = {k: _milliseconds(v) for k, v in record.items() if k not in _NOT_DEVICES and v is not None}
        return BenchModel(str(record["id"]), family_of(path), latency, dict(record["graph"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        where = f"{path}:{_line_number(path, position)}"
        raise DatasetError(
            f"{where}: not a model of the official schema ({type(error).__name__}: {error})"
        ) from error


def _line_number(path: Path, position: int) -> int:
    """Return the number, counted from 1, of the line that starts at byte ``position``."""
    number = 1
    with path.open("rb") as lines:
        for line in lines:
            position -= len(line)
            if position < 0:
                break
            number += 1
    return number


def _milliseconds(value: Any) -> float:
    latency = float(value)
    if not 0 < latency < math.inf:
        raise ValueError(f"latency {value} is not a positive number of milliseconds")
    return latency
