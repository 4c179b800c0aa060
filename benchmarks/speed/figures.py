"""Measured figures with their rivals' figures and their targets, and the files that store them."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnmeter_nas.errors import DatasetError, NnMeterNasError
from nnmeter_nas.files import write_bytes


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one thing, in the unit of its figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half of the interquartile range."""
        if len(self.values) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2


@dataclass(frozen=True)
class Figure:
    """A figure, ours and a rival's.

    Attributes:
        unit: of the values; lower is better unless ``more_is_better``.
        ours, rival: measurements; ``rival`` is None if there is no rival to run.
        at_least: target: how many times better than the rival.
        limit: target for the value itself.
        note: a footnote for the table.
        points: (size, seconds) pairs that the value was fitted to, if it was fitted.
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
        """How many times better than the rival; None without a rival."""
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
    """A figure that a run could not measure, and what measuring it needs."""

    name: str
    reason: str


Result = Figure | Unmeasured


def measured(function: Callable[[], Any], repeats: int, scale: float = 1.0, warm: bool = True) -> Sample:
    """Time ``function`` repeatedly by the wall clock, in seconds times ``scale``.

    Garbage is collected once at the start, then whenever Python chooses, as for users. A collection before
    each repeat would visit everything in the process and leave the processor's caches empty.

    Args:
        function, repeats: what to time, and how often.
        scale: 1000 for ms. Divide it by the number of items that one call processes.
        warm: call the function once first, untimed.
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
    """Write the results of a topic, with every measurement, to ``<folder>/<topic>.json``.

    ``described`` is the machine, as :func:`nnmeter_nas.benchmarks.speed.machine.machine` describes it.
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
    """Read the results that :func:`save` wrote, unmeasured ones last, and the machine they ran on.

    Raises:
        DatasetError: :func:`save` of this version did not write the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        figures = [_figure(row) for row in document["figures"]]
        return [*figures, *(Unmeasured(**row) for row in document["unmeasured"])], document["machine"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} holds no figures of this version ({type(error).__name__}: {error}); measure them again"
        ) from error


class MeasurementError(NnMeterNasError):
    """A process that measures figures failed."""


def measured_under(python: Path, module: str, arguments: Sequence[str | Path], topic: str) -> list[Result]:
    """Run ``python -m module *arguments FOLDER`` under another interpreter; return what it saved in FOLDER.

    Raises:
        MeasurementError: the process failed; the message ends with the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as output:
        command = [python, "-W", "ignore", "-m", module, *arguments, output]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.splitlines() or ["?"])[-1]
            raise MeasurementError(f"{python} measured no {topic}: {last}")
        return load(Path(output) / f"{topic}.json")[0]


def _figure(row: dict[str, Any]) -> Figure:
    given = {key: value for key, value in row.items() if key not in ("ratio", "met")}
    given["ours"] = _sample(row["ours"])
    given["rival"] = None if row["rival"] is None else _sample(row["rival"])
    given["points"] = tuple((size, _sample(taken)) for size, taken in row["points"])
    return Figure(**given)


def _sample(stored: dict[str, list[float]]) -> Sample:
    return Sample(tuple(stored["values"]))
