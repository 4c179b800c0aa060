"""A measured figure beside its rival's and its target, and the table and files that show it."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from nnmeter_nas.packs.files import write_bytes


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

    @property
    def target(self) -> str:
        """The targets in words."""
        sign = "≥" if self.more_is_better else "≤"
        parts = [f"≥ {self.at_least:g} ×"] if self.at_least is not None else []
        parts += [f"{sign} {_number(self.limit)} {self.unit}"] if self.limit is not None else []
        return ", ".join(parts) or "–"


def measured(function: Callable[[], Any], repeats: int, scale: float = 1.0, warm: bool = True) -> Sample:
    """Wall seconds that ``function`` takes, times ``scale``, each time on its own.

    Args:
        function: what to time.
        repeats: how often.
        scale: 1000 for ms; divided by the number of things that one call works on.
        warm: call it once before, untimed.
    """
    if warm:
        function()
    values = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        function()
        values.append((time.perf_counter() - start) * scale)
    return Sample(tuple(values))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: version(name) for name in ("nnmeter_nas", "numpy", "networkx", "scikit-learn")},
    }


def table(figures: Iterable[Figure]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| figure | ours | rival | ratio | target | met |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for figure in figures:
        rival = f"{_shown(figure.rival, figure.unit)} ({figure.rival_name})" if figure.rival else "–"
        ratio = "–" if figure.ratio is None else f"{_number(figure.ratio)} ×"
        name = f"{figure.name}; {figure.note}" if figure.note else figure.name
        met = "yes" if figure.met else "**no**"
        cells = [name, _shown(figure.ours, figure.unit), rival, ratio, figure.target, met]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def save(figures: Sequence[Figure], folder: Path, topic: str, described: dict[str, Any]) -> Path:
    """Write the figures of a topic to ``<folder>/<topic>.json``, every measurement included."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(figure), "ratio": figure.ratio, "met": figure.met} for figure in figures]
    document = {"machine": described, "figures": rows}
    path = folder / f"{topic}.json"
    write_bytes(path, f"{json.dumps(document, indent=1)}\n".encode())
    return path


def load(path: Path) -> tuple[list[Figure], dict[str, Any]]:
    """The figures that :func:`save` wrote, and what they were measured on."""
    found, document = [], json.loads(path.read_text(encoding="utf-8"))
    for row in document["figures"]:
        samples = {key: Sample(tuple(row[key]["values"])) if row[key] else None for key in ("ours", "rival")}
        found.append(Figure(**{k: v for k, v in row.items() if k not in ("ratio", "met")} | samples))
    return found, document["machine"]


def _shown(sample: Sample, unit: str) -> str:
    spread = f" ± {_number(sample.spread)}" if len(sample.values) > 1 else ""
    return f"{_number(sample.median)}{spread} {unit}"


def _number(value: float) -> str:
    """Three digits that count.

    >>> _number(0.012345), _number(123456.0), _number(41.23)
    ('0.0123', '123,000', '41.2')
    """
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"
