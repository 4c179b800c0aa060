"""Write the results of a search to files: all trials, the Pareto front, the best architectures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ...files import write_bytes
from ...pages import figure
from .outcome import SearchReport, limits_text, ranked, seconds_words
from .page import report_html
from .plot import pareto_plot
from .trials import Trial

#: Files that :func:`write_report` writes to its folder; subfolder for the best architectures.
FILES = ("trials.csv", "pareto.png", "report.html")
_BEST = "best"

_REBUILD = """\
from nnmeter_nas.search.rebuild import load_architecture, rebuild
network = rebuild(load_architecture({name!r}))  # a torch module; its weights are untrained
"""


def trials_table(report: SearchReport) -> Table:
    """Make a table of the trials, best metric first and failed ones last; a star marks the Pareto front."""
    table = Table(
        title=f"{report.space}, {limits_text(report)}",
        caption="★ Pareto front: nothing tried is better in one and no worse in all others",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("", "trial", *report.measures, report.metric, "time (s)"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("blocks", overflow="fold")
    front = {trial.number for trial in report.front}
    for trial in ranked(report):
        best = trial.number in front
        table.add_row(
            "★" if best else "",
            str(trial.number),
            *(figure(trial.values[name]) if name in trial.values else "" for name in report.measures),
            f"{trial.metric:.4f}" if trial.state == "trained" else trial.state,
            "" if trial.seconds is None else seconds_words(trial.seconds),
            Text(trial.failure or " ".join(trial.choices.values())),  # Text, so that nothing in it is markup
            style="red" if trial.state == "failed" else "bold green" if best else None,
        )
    return table


def _architecture(report: SearchReport, trial: Trial, place: int = 1) -> dict[str, Any]:
    """Return a trial of the front as JSON values: choices by label, its figures, and how to rebuild it.

    ``place`` is its place on the front, from 1.
    """
    return {
        "space": report.space,
        "input_shape": list(report.input_shape),
        "choices": dict(trial.choices),
        "values": dict(trial.values),
        "intervals": {
            name: list(of_trials[trial.number])
            for name, of_trials in report.intervals.items()
            if trial.number in of_trials
        },
        "not_measured": {
            name: dict(of_trials[trial.number])
            for name, of_trials in report.not_measured.items()
            if trial.number in of_trials
        },
        "metric": trial.metric,
        "metric_name": report.metric,
        "expected": trial.expected and trial.expected._asdict(),
        "devices": {name: asdict(hardware) for name, hardware in report.hardware.items()},
        "limits": {"maxima": dict(report.maxima), "minima": dict(report.minima)},
        "objectives": list(report.objectives),
        "trial": trial.number,
        "strategy": report.strategy,
        "nni": report.nni,
        "settings": dict(report.settings),
        "rebuild": _REBUILD.format(name=f"{_BEST}/{place}.json"),
        "export": f"nnmeter-nas export {_BEST}/{place}.json -o network.onnx",
    }


def empty_folder(folder: Path) -> None:
    """Prepare ``folder`` for a report: create it, and remove the report of an earlier search."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    _remove_best(folder, after=0)


def write_report(report: SearchReport, folder: Path) -> list[Path]:
    """Write ``trials.csv`` and ``report.html``; if a trial succeeded, ``best/1.json`` ... and ``pareto.png``.

    Each file appears whole or not at all, and replaces the one of an earlier call. You may call this after
    every trial.

    Returns:
        The files written.
    """
    table, plot, page = (folder / name for name in FILES)
    files = {table: _csv(report)}
    for place, trial in enumerate(report.front, 1):
        values = _architecture(report, trial, place)
        files[folder / _BEST / f"{place}.json"] = f"{json.dumps(values, indent=2)}\n"
    files[page] = report_html(report)
    for path, text in files.items():
        write_bytes(path, text.encode(errors="backslashreplace"))
    _remove_best(folder, after=len(report.front))
    if not (report.front and report.axes):
        plot.unlink(missing_ok=True)
        return list(files)
    write_bytes(plot, pareto_plot(report))
    return [*files, plot]


def _remove_best(folder: Path, after: int) -> None:
    """Remove the architectures at places beyond ``after``, left by an earlier, longer front."""
    for path in (folder / _BEST).glob("*.json"):
        if path.stem.isdecimal() and int(path.stem) > after:
            path.unlink()


def _csv(report: SearchReport) -> str:
    """Write all trials in order as CSV, with a column per measure and per choice.

    If the strategy expected metrics, what it expected and its limits stand beside the metric.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures, labels = report.measures, report.labels
    expects = any(trial.expected for trial in report.trials)
    sure = [name for name, of_trials in report.intervals.items() if of_trials]
    unsure = [
        (name, basis)
        for name, of_trials in report.not_measured.items()
        for basis in dict.fromkeys(basis for shares in of_trials.values() for basis in shares)
    ]
    writer.writerow(
        [
            "trial",
            "state",
            report.metric,
            *(f"{report.metric}_{part}" for part in ("expected", "low", "high") if expects),
            *measures,
            *(f"{name}_{end}" for name in sure for end in ("low", "high")),
            *(f"{name}_{basis}" for name, basis in unsure),
            "seconds",
            "pareto_front",
            *labels,
            "failure",
        ]
    )
    front = {trial.number for trial in report.front}
    for trial in report.trials:
        writer.writerow(
            [
                trial.number,
                trial.state,
                trial.metric,
                *((trial.expected or ("", "", "")) if expects else ()),
                *(trial.values.get(name, "") for name in measures),
                *(limit for name in sure for limit in report.intervals[name].get(trial.number, ("", ""))),
                *(
                    report.not_measured[name].get(trial.number, {}).get(basis, 0.0)
                    for name, basis in unsure
                ),
                trial.seconds,
                int(trial.number in front),
                *(trial.choices.get(label, "") for label in labels),
                trial.failure,
            ]
        )
    return text.getvalue()
