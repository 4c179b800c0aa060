"""The accuracy of every cell of NAS-Bench-201, as its authors measured it, in the order of our rows.

    load_accuracies()["cifar100"].validation        # [15625]: in the order of every_architecture([5] * 6)

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
``data/ATTRIBUTION.md`` says what the numbers are, and :func:`write_accuracies` makes the file from a table.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnmeter_nas.errors import DatasetError
from nnmeter_nas.files import write_npz
from nnmeter_nas.kernels.configuration import FloatArray

FILE = Path(__file__).parent / "data" / "nasbench201_accuracy.npz"
#: Data sets, by their names in tables and in reports.
DATASETS: Mapping[str, str] = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet16-120": "ImageNet16-120",
}
#: Number of classes of each.
CLASSES: Mapping[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet16-120": 120}
#: Accuracies are whole multiples of one part in so many: images of the set, twice as many where two trainings
#: were averaged.
_PARTS: Mapping[str, int] = {
    "cifar10-val": 50_000,
    "cifar10-test": 10_000,
    "cifar100-val": 5_000,
    "cifar100-test": 5_000,
    "imagenet16-120-val": 3_000,
    "imagenet16-120-test": 3_000,
}
#: Operations in the order of the candidates of ``search_spaces/nasbench201.py``, as the authors name them.
_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
#: Edges as pairs of nodes, in the order in which the authors write them, and in that of our rows' positions.
_WRITTEN = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_POSITIONS = tuple(sorted(_WRITTEN))
#: Percentages in a table have three decimals.
_ROUNDED = 5e-4


@dataclass(frozen=True)
class Accuracies:
    """Accuracy of all cells on one data set, as shares of images, ``[15625]`` each."""

    validation: FloatArray
    test: FloatArray


def load_accuracies() -> dict[str, Accuracies]:
    """Accuracies by data set, in the order of :data:`DATASETS`.

    Cells are in the order of all rows of candidate indices of the space ``nasbench201``, the last position
    fastest.
    """
    with np.load(FILE) as arrays:
        shares = {name: arrays[name] / parts for name, parts in _PARTS.items()}
    return {name: Accuracies(shares[f"{name}-val"], shares[f"{name}-test"]) for name in DATASETS}


def write_accuracies(table: Path, file: Path) -> None:
    """Write the accuracies of a table into ``file``; the same table always gives the same bytes.

    Args:
        table: CSV, or CSV packed with gzip: the column ``cell`` has the cell as its authors write it, such as
            ``|none~0|+|none~0|none~1|+|none~0|none~1|none~2|``; six more have its accuracies in percent,
            ``cifar10-val`` to ``imagenet16-120-test``.

    Raises:
        DatasetError: it has another form, or lacks a cell, or a number is no possible accuracy.
    """
    sizes = [len(_OPERATIONS)] * len(_POSITIONS)
    cells = math.prod(sizes)
    found = {name: np.zeros(cells, dtype=np.uint16) for name in _PARTS}
    seen = np.zeros(cells, dtype=bool)
    for line, record in enumerate(_records(table), 2):
        where = f"{table}, line {line}"
        number = np.ravel_multi_index(_row(record["cell"], where), sizes)
        seen[number] = True
        for name, parts in _PARTS.items():
            found[name][number] = _counted(record[name], parts, f"{where}, {name}")
    if not seen.all():
        raise DatasetError(f"{table} has {seen.sum()} of the {cells} cells; take the whole table")
    write_npz(file, found)


def _records(table: Path) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(table, "rt") if table.suffix == ".gz" else table.open() as file:
            reader = csv.DictReader(file)
            missing = {"cell", *_PARTS} - set(reader.fieldnames or ())
            if missing:
                raise DatasetError(f"{table} has no column {min(missing)!r}")
            yield from reader
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{table} cannot be read: {error}") from error


def _row(cell: str, where: str) -> list[int]:
    """Candidate indices of a cell, which is written node by node: ``|operation~source|`` for each edge."""
    edges = re.findall(r"([a-z0-9_]+)~(\d)", cell)
    names, sources = [name for name, _ in edges], [int(source) for _, source in edges]
    if sources != [source for source, _ in _WRITTEN] or not set(names) <= set(_OPERATIONS):
        raise DatasetError(f"{where}: {cell!r} is no cell of NAS-Bench-201")
    chosen = dict(zip(_WRITTEN, map(_OPERATIONS.index, names), strict=True))
    return [chosen[edge] for edge in _POSITIONS]


def _counted(percent: str, parts: int, where: str) -> int:
    try:
        accuracy = float(percent)
    except ValueError:
        accuracy = float("nan")
    count = round(accuracy / 100 * parts) if 0 <= accuracy <= 100 else 0
    if not abs(100 * count / parts - accuracy) <= 1.01 * _ROUNDED:
        raise DatasetError(f"{where}: {percent!r} is no percentage in steps of one part in {parts:,}")
    return count
