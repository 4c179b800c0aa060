"""A measured figure beside its rival's and its target, and the files that keep it."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnmeter_nas.errors import DatasetError
from nnmeter_nas.files import write_bytes


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one thing.

    Attributes:
        values: in the unit of its figure.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half of the range that the middle half of the values lies in."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2


@dataclass(frozen=True)
class Figure:
    """What is measured, here and at a rival.

    Attributes:
        name: what the reader of the table is told.
        unit: of the values; less is better unless ``more_is_better``.
        ours, rival: measurements; no rival where there is none to run.
        rival_name: who that is.
        at_least: how many times better than the rival it shall be.
        limit: what the value itself shall keep to.
        note: what one has to know beside.
        points: what the value was fitted to, if it was: a size, and the seconds that it took.
    """

    name: str
    unit: str
    ours: Sample
    rival: Sample | None = None
    rival_name: str = ""
    at_least: float | None = None
    limit: float | None = None
    more_is_better: bool = False
    note: str = ""
    points: tuple[tuple[int, Sample], ...] = ()

    @property
    def ratio(self) -> float | None:
        """How many times better than the rival."""
        if self.rival is None:
            return None
        ours, theirs = self.ours.median, self.rival.median
        return ours / theirs if self.more_is_better else theirs / ours

    @property
    def met(self) -> bool:
        """Whether the targets are met."""
        enough = self.at_least is None or (self.ratio is not None and self.ratio >= self.at_least)
        value = self.ours.median
        within = self.limit is None or (value >= self.limit if self.more_is_better else value <= self.limit)
        return enough and within


@dataclass(frozen=True)
class Unmeasured:
    """A figure that a run has to leave out.

    Attributes:
        name: what the reader of the table is told.
        reason: what it would take to measure it.
    """

    name: str
    reason: str


Result = Figure | Unmeasured


def measured(function: Callable[[], Any], repeats: int, scale: float = 1.0, warm: bool = True) -> Sample:
    """Wall seconds that ``function`` takes, times ``scale``, each time on its own.

    Garbage is collected beforehand, and then when Python sees fit, as for users. A collection before each
    repeat would visit all that the process holds, so that each would find the processor's caches empty.

    Args:
        function: what to time.
        repeats: how often.
        scale: 1000 for ms; divided by the number of things that one call works on.
        warm: call it once before, untimed.
    """
    if warm:
        function()
    values = []
    gc.collect()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        values.append((time.perf_counter() - start) * scale)
    return Sample(tuple(values))


def save(results: Iterable[Result], folder: Path, topic: str, described: dict[str, Any]) -> Path:
    """Write the results of a topic to ``<folder>/<topic>.json``, every measurement included.

    Args:
        results: figures, measured and not.
        folder: where the file goes.
        topic: what they are about.
        described: what they were measured on.
    """
    figures, unmeasured = [], []
    for result in results:
        if isinstance(result, Figure):
            figures.append({**asdict(result), "ratio": result.ratio, "met": result.met})
        else:
            unmeasured.append(asdict(result))
    document = {"machine": described, "figures": figures, "unmeasured": unmeasured}
    path = folder / f"{topic}.json"
    write_bytes(path, f"{json.dumps(document, indent=1)}\n".encode())
    return path


def load(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """The results that :func:`save` wrote, those unmeasured last, and what they were measured on.

    Raises:
        DatasetError: it wrote no such file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        figures = [_figure(row) for row in document["figures"]]
        return [*figures, *(Unmeasured(**row) for row in document["unmeasured"])], document["machine"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} holds no figures of this version ({type(error).__name__}: {error}); measure them anew"
        ) from error


def _figure(row: dict[str, Any]) -> Figure:
    given = {key: value for key, value in row.items() if key not in ("ratio", "met")}
    given["ours"] = _sample(row["ours"])
    given["rival"] = None if row["rival"] is None else _sample(row["rival"])
    given["points"] = tuple((size, _sample(taken)) for size, taken in row["points"])
    return Figure(**given)


def _sample(stored: dict[str, list[float]]) -> Sample:
    return Sample(tuple(stored["values"]))
