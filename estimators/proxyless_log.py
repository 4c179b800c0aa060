"""A training's figures, a row a step: a CSV file that survives interruptions, and TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.files import write_bytes

#: A figure by its column; None where a step has none.
Row = Mapping[str, float | None]


class TrainingLog:
    """Rows of a CSV file in a folder, and the same in its folder ``tensorboard`` if that is installed.

    Rows behind the steps done are of an earlier run that ended after its last checkpoint; they are dropped.

    Args:
        folder: where to.
        name: of the training, and so of the file and of the run that TensorBoard shows.
        columns: ``step`` first.
        done: steps that are done.
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
        """Write what is pending."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> dict[str, np.ndarray]:
    """The columns of a log, NaN where a step has no figure."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return dict(zip(header, values.reshape(len(rows), len(header)).T, strict=True))


def _whole_rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows of an earlier log of the same columns; what was cut short at its end is left out."""
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines()) if "\n" in text else [[]]
    return [row for row in rows if len(row) == len(columns)] if header == list(columns) else []


def _tensorboard(folder: Path, done: int) -> Any:
    """A writer that hides what an earlier run wrote beyond ``done`` steps, or None without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1)
