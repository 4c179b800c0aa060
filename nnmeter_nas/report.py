"""What a latency-limited search found: table, Pareto plot, list of trials, best architecture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .errors import SearchError
from .packs.files import write_bytes

#: What :func:`write_report` leaves in its folder.
FILES = ("trials.csv", "best.json", "pareto.png")

FRONT_COLOUR, TRIAL_COLOUR, LIMIT_COLOUR = "#0b6e4f", "#8a9099", "#c0392b"


@dataclass(frozen=True)
class Trial:
    """One candidate that a search accepted.

    Attributes:
        number: its place in the order of trials, from 1.
        choices: the chosen block by label.
        latency_ms: predicted on the device of the search.
        accuracy: on held-out data, 0 to 1; None if training failed.
        seconds: how long its process ran; None if it never started.
        failure: why training failed; empty if it did not.
    """

    number: int
    choices: Mapping[str, str]
    latency_ms: float
    accuracy: float | None = None
    seconds: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class SearchReport:
    """The outcome of a search.

    Attributes:
        device: applied hardware.
        pack_version: of the predictor pack.
        threshold_ms: the latency limit.
        trials: all accepted candidates, failed ones included.
        rebuild: Python source that builds the best network from ``choices``.
        settings: whatever else is needed to repeat the search; JSON values.
    """

    device: str
    pack_version: float
    threshold_ms: float
    trials: Sequence[Trial]
    rebuild: str
    settings: Mapping[str, Any]

    @property
    def front(self) -> list[Trial]:
        """The Pareto front: trials that no other beats in accuracy without being slower."""
        return pareto_front(self.trials)

    @property
    def best(self) -> Trial:
        """The most accurate trial; of equals the fastest.

        Raises:
            SearchError: every trial failed.
        """
        if not self.front:
            raise SearchError(
                f"none of the {len(self.trials)} trials was trained to its end; "
                f"the first failed with: {self.trials[0].failure if self.trials else 'no trial ran'}"
            )
        return self.front[-1]


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that are more accurate than every other at most as slow, fastest first.

    Of trials equal in both only the first is kept; failed ones never belong.

    >>> fast, slow = Trial(1, {}, 2.0, accuracy=0.9), Trial(2, {}, 3.0, accuracy=0.8)
    >>> pareto_front([slow, fast]) == [fast]
    True
    """
    front: list[Trial] = []
    reached = -1.0
    for trial in sorted(trials, key=lambda t: (t.latency_ms, -(t.accuracy or 0.0), t.number)):
        if trial.accuracy is not None and trial.accuracy > reached:
            front.append(trial)
            reached = trial.accuracy
    return front


def trials_table(report: SearchReport) -> Table:
    """The trials, most accurate first and failed ones last; a star marks the Pareto front."""
    table = Table(
        title=f"{report.device}, limit {report.threshold_ms:.4g} ms",
        caption="★ Pareto front: nothing tried is both faster and more accurate",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("", "trial", "latency (ms)", "accuracy (%)", "time (s)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("blocks", overflow="fold")
    front = report.front
    for trial in sorted(report.trials, key=lambda t: (-(t.accuracy or -1.0), t.latency_ms)):
        failed = trial.accuracy is None
        table.add_row(
            "★" if trial in front else "",
            str(trial.number),
            f"{trial.latency_ms:.3f}",
            "failed" if trial.accuracy is None else f"{100 * trial.accuracy:.2f}",
            "" if trial.seconds is None else f"{trial.seconds:.0f}",
            Text(trial.failure if failed else " ".join(trial.choices.values())),  # text: no markup
            style="red" if failed else "bold green" if trial in front else None,
        )
    return table


def best_architecture(report: SearchReport) -> dict[str, Any]:
    """The best trial as JSON values: choices by label, its figures, and how to build it again.

    Raises:
        SearchError: every trial failed.
    """
    best = report.best
    return {
        "choices": dict(best.choices),
        "latency_ms": best.latency_ms,
        "accuracy": best.accuracy,
        "device": report.device,
        "pack_version": report.pack_version,
        "threshold_ms": report.threshold_ms,
        "trial": best.number,
        "settings": dict(report.settings),
        "rebuild": report.rebuild,
    }


def empty_folder(folder: Path) -> None:
    """Make ``folder`` ready for a report: it exists, and holds none of an earlier search."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def write_report(report: SearchReport, folder: Path) -> list[Path]:
    """Write ``trials.csv``, and if any trial succeeded ``best.json`` and ``pareto.png``, into ``folder``.

    Each file appears whole or not at all.

    Returns:
        The files written.
    """
    table, best, plot = (folder / name for name in FILES)
    write_bytes(table, _csv(report).encode())
    if not report.front:
        return [table]
    write_bytes(best, f"{json.dumps(best_architecture(report), indent=2)}\n".encode())
    write_bytes(plot, pareto_plot(report))
    return [table, best, plot]


def _csv(report: SearchReport) -> str:
    """All trials in their order, one column a choice."""
    labels = list(dict.fromkeys(label for trial in report.trials for label in trial.choices))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "latency_ms", "accuracy", "seconds", "pareto_front", *labels, "failure"])
    front = report.front
    for trial in report.trials:
        writer.writerow([
            trial.number, trial.latency_ms, trial.accuracy, trial.seconds, int(trial in front),
            *(trial.choices.get(label, "") for label in labels), trial.failure,
        ])
    return text.getvalue()


def pareto_plot(report: SearchReport) -> bytes:
    """Accuracy over predicted latency, with the limit and the Pareto front, as a PNG."""
    # Without pyplot: no display is looked for and no global state is left behind.
    from matplotlib.figure import Figure

    trained = [t for t in report.trials if t.accuracy is not None]
    front, best = report.front, report.best
    figure = Figure(figsize=(8, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(*_points(trained), s=45, color=TRIAL_COLOUR, label="trained candidate", zorder=2)
    axes.plot(*_points(front), color=FRONT_COLOUR, drawstyle="steps-post", linewidth=1.5, zorder=3)
    axes.scatter(*_points(front), s=70, color=FRONT_COLOUR, label="Pareto front", zorder=4)
    axes.scatter(*_points([best]), s=260, marker="*", color="#f2b134", edgecolor=FRONT_COLOUR,
                 label=f"best: {100 * (best.accuracy or 0):.2f} % at {best.latency_ms:.3f} ms", zorder=5)
    left, right = min(_points(trained)[0]), max(_points(trained)[0])
    spread = max(right - left, 0.05 * right)
    # A limit far from all candidates stays outside, in the legend alone.
    right = min(report.threshold_ms, right + spread) + 0.1 * spread
    axes.axvline(report.threshold_ms, color=LIMIT_COLOUR, linestyle="--", linewidth=1.3,
                 label=f"latency limit: {report.threshold_ms:.4g} ms")
    for trial, x, y in zip(trained, *_points(trained), strict=True):
        axes.annotate(str(trial.number), (x, y), xytext=(-8, 6), textcoords="offset points", fontsize=8,
                      ha="right", color="#444444", zorder=6)
    axes.margins(y=0.14)
    axes.axvspan(report.threshold_ms, max(right, report.threshold_ms), color=LIMIT_COLOUR, alpha=0.06)
    axes.set_xlim(left - 0.1 * spread, right)
    axes.set_xlabel(f"predicted latency on {report.device} (ms, batch 1)")
    axes.set_ylabel("held-out accuracy (%)")
    axes.set_title("Accuracy and latency of the candidates within the limit")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _points(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    """Latencies (ms) and accuracies (%) of trained trials."""
    return [t.latency_ms for t in trials], [100 * (t.accuracy or 0.0) for t in trials]
