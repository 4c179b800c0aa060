"""The figures of a training, one row per step: a CSV file that survives interruptions, and TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.files import write_bytes

#: Column -> figure; None where a step has no figure.
Row = Mapping[str, float | None]


class TrainingLog:
    """Write rows to a CSV file in a folder, and to its subfolder ``tensorboard`` if TensorBoard is installed.

    An earlier run may have written rows after its last checkpoint; rows beyond the steps done are dropped.

    Args:
        folder: folder for the files.
        name: name of the training, of the file and of TensorBoard's run.
        columns: column names, ``step`` first.
        done: number of steps done.
    """

    def __init__(self, folder: Path, name: str, columns: Sequence[str], done: int) -> None:
        self.path = folder / f"{name}.csv"
        self.columns = list(columns)
        kept = io.StringIO()
        writer = csv.writer(kept, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(row for row in _whole_rows(self.path, self.columns) if int(row[0]) <= done)
        write_bytes(self.path, kept.getvalue().encode())
        self._file = self.path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.columns, lineterminator="\n")
        self._board = _tensorboard(folder / "tensorboard" / name, done)

    def write(self, row: Row) -> None:
        """Add the row of a step."""
        self._writer.writerow(row)
        self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                if value is not None and name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write pending rows and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> dict[str, np.ndarray]:
    """Read the columns of a log; NaN where a step has no figure."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return dict(zip(header, values.reshape(len(rows), len(header)).T, strict=True))


def _whole_rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Read the rows of an earlier log with the same columns, except a last row that was cut short."""
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines()) if "\n" in text else [[]]
    return [row for row in rows if len(row) == len(columns)] if header == list(columns) else []


def _tensorboard(folder: Path, done: int) -> Any:
    """Return a writer that hides an earlier run's steps beyond ``done``, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1)
