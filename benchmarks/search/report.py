"""Report a comparison of searches as a table, a plot and raw figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png
from nnmeter_nas.files import write_bytes
from nnmeter_nas.kernels.configuration import FloatArray

from ..pages import markdown_table, replace_sections
from .comparison import EVOLUTION, OURS, RANDOM, SAMPLED, Outcome, Run
from .statistics import front

_NAME = "search_comparison"
#: Most colour-blind readers can tell these apart; rivals are dashed.
_COLOURS = ("#0072b2", "#e69f00", "#d55e00", "#009e73", "#555555", "#cc79a7")
_CLOUD = "#dddddd"


def write_reports(outcomes: Sequence[Outcome], device: str, output: Path, page: Path | None = None) -> None:
    """Write ``search_comparison.md``, ``.json`` and ``.png`` into ``output``.

    The table also replaces the section ``search comparison`` of ``page``; the plot goes beside it.
    """
    lines, plot = markdown(outcomes, device), _comparison_plot(outcomes)
    write_bytes(output / f"{_NAME}.md", "\n".join([*lines, ""]).encode())
    write_bytes(output / f"{_NAME}.json", json.dumps(_raw_figures(outcomes, device)).encode())
    write_bytes(output / f"{_NAME}.png", plot)
    if page is not None:
        replace_sections(page, {"search comparison": lines})
        write_bytes(page.parent / f"{_NAME}.png", plot)


def markdown(outcomes: Sequence[Outcome], device: str) -> list[str]:
    """Lines of Markdown: the plot, a table per task, and a sentence per comparison."""
    lines = [
        f"On `{device}`. Hypervolume in % of the box from the reference point to the fastest latency and the "
        "highest accuracy: median over the seeds, quartiles in brackets. p: Wilcoxon's signed-rank "
        "test, two-sided, with Holm's correction within a task.",
        "",
        f"![Hypervolume over trials, and fronts]({_NAME}.png)",
    ]
    for outcome in outcomes:
        lines += ["", f"### {outcome.task.title}", "", *_facts(outcome), "", *_table(outcome), ""]
        lines += [f"- {comparison.sentence}" for comparison in outcome.comparisons]
    return lines


def _raw_figures(outcomes: Sequence[Outcome], device: str) -> dict[str, Any]:
    """Every trial of every search and every comparison, ready for JSON."""
    return {"device": device, "tasks": [_raw_task(outcome) for outcome in outcomes]}


def _comparison_plot(outcomes: Sequence[Outcome]) -> bytes:
    """Plot hypervolume over trials with quartiles, and below it the first seed's fronts; one column per task.

    Returns:
        A PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_chart(5.6 * len(outcomes), 9.2, dpi=110)
    panels = figure.subplots(2, len(outcomes), squeeze=False)
    for outcome, (over_trials, fronts) in zip(outcomes, panels.T, strict=True):
        over_trials.set_title(outcome.task.title, fontweight="bold")
        _draw_over_trials(over_trials, outcome)
        _draw_fronts(fronts, outcome)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, 2 * len(outcomes)), frameon=False)
    return to_png(figure)


def _shown(outcome: Outcome) -> dict[str, Sequence[Run]]:
    """Runs of our strategies, then of the rivals, by their name in reports."""
    return {
        **{name: outcome.runs[name] for name in OURS},
        RANDOM: outcome.runs[RANDOM],
        EVOLUTION: outcome.runs[outcome.evolution],
    }


def _facts(outcome: Outcome) -> list[str]:
    task, floors = outcome.task, list(outcome.floors.values())
    inside = f"limit {task.limit:.4g} ms, fastest {task.fastest:.4g} ms"
    floor = f"{min(floors):.1%}" if min(floors) == max(floors) else f"{min(floors):.1%} to {max(floors):.1%}"
    return [
        f"{task.trials} trials, {len(floors)} seeds; {inside}; accuracy of the reference point {floor}. "
        f"{_everything(outcome)} have {_spread(np.array(list(outcome.reachable.values())))} %. "
        f"The best of NNI's evolutions by mean hypervolume is `{outcome.evolution}` "
        f"({_evolutions(outcome)})."
    ]


def _everything(outcome: Outcome) -> str:
    size = math.prod(len(known) for known in outcome.task.space.candidates.values())
    return f"All {size:,} architectures together" if size <= SAMPLED else f"{SAMPLED:,} random architectures"


def _evolutions(outcome: Outcome) -> str:
    """Mean hypervolume of each RegularizedEvolution setting."""
    means = {
        name.removeprefix("RegularizedEvolution "): float(np.mean([run.hypervolume[-1] for run in runs]))
        for name, runs in outcome.runs.items()
        if name.startswith("RegularizedEvolution ")
    }
    return ", ".join(f"{name}: {mean:.1%}" for name, mean in means.items())


def _table(outcome: Outcome) -> list[str]:
    trials = outcome.task.trials
    header = [
        "strategy", f"after {trials // 4}", f"after {trials // 2}", f"after {trials}", "best accuracy",
        "trials made", "p against Random", "p against RegularizedEvolution",
    ]  # fmt: skip
    rows = []
    p = {(c.strategy, c.rival): c for c in outcome.comparisons}
    for name, runs in _shown(outcome).items():
        found = np.array([run.hypervolume for run in runs])
        cells = [
            name,
            *(_spread(found[:, n - 1]) for n in (trials // 4, trials // 2, trials)),
            f"{np.median([run.accuracy.max() for run in runs]):.2%}",
            f"{np.median([len(run.rows) for run in runs]):.0f}",
        ]
        for rival in (RANDOM, EVOLUTION):
            comparison = p.get((name, rival))
            sign = "" if comparison is None else (" (ahead)" if comparison.ahead else "")
            cells.append("–" if comparison is None else f"{comparison.p_holm:.2g}{sign}")
        rows.append(cells)
    return markdown_table(header, range(1, len(header)), rows)


def _spread(values: FloatArray) -> str:
    low, middle, high = 100 * np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def _raw_task(outcome: Outcome) -> dict[str, Any]:
    task = outcome.task
    return {
        "name": task.name,
        "title": task.title,
        "candidates": {label: list(known) for label, known in task.space.candidates.items()},
        "trials": task.trials,
        "limit_ms": task.limit,
        "fastest_ms": task.fastest,
        "ceiling": task.ceiling,
        "floors": {str(seed): floor for seed, floor in outcome.floors.items()},
        "reachable": {str(seed): share for seed, share in outcome.reachable.items()},
        "evolution": outcome.evolution,
        "runs": [
            {
                "strategy": run.strategy,
                "seed": run.seed,
                # One character per index; letters follow 9.
                "architectures": ["".join(np.base_repr(i, 36) for i in row) for row in run.rows.tolist()],
                "latency_ms": _rounded(run.latency),
                "accuracy": _rounded(run.accuracy),
                "hypervolume": _rounded(run.hypervolume),
            }
            for runs in outcome.runs.values()
            for run in runs
        ],
        "comparisons": [
            {
                "strategy": c.strategy,
                "rival": c.rival,
                "median_difference": c.difference,
                "wins": c.wins,
                "seeds": c.seeds,
                "p": c.p,
                "p_holm": c.p_holm,
                "ahead": c.ahead,
            }
            for c in outcome.comparisons
        ],
    }


def _rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _draw_over_trials(axes: Any, outcome: Outcome) -> None:
    for (name, runs), colour in zip(_shown(outcome).items(), _COLOURS, strict=True):
        found = 100 * np.array([run.hypervolume for run in runs])
        low, middle, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
        trials = np.arange(1, len(middle) + 1)
        axes.fill_between(trials, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(trials, middle, color=colour, label=name, **_style(name))
    axes.set_xlabel("trials")
    axes.set_ylabel("hypervolume, % (median, quartiles)")
    axes.grid(alpha=0.3)


def _draw_fronts(axes: Any, outcome: Outcome) -> None:
    shown = _shown(outcome)
    every = [runs[0] for runs in shown.values()]
    latency, accuracy = (
        np.concatenate([getattr(run, name) for run in every]) for name in ("latency", "accuracy")
    )
    axes.scatter(latency, 100 * accuracy, s=6, color=_CLOUD, linewidths=0)
    for (name, runs), colour in zip(shown.items(), _COLOURS, strict=True):
        best = front(runs[0].latency, runs[0].accuracy)
        ms, score = runs[0].latency[best], 100 * runs[0].accuracy[best]
        axes.plot(ms, score, color=colour, drawstyle="steps-post", marker="o", markersize=3, **_style(name))
    floor = 100 * outcome.floors[shown[RANDOM][0].seed]
    axes.axvline(outcome.task.limit, color="#999999", linewidth=0.8)
    axes.axhline(floor, color="#999999", linewidth=0.8)
    top = 100 * float(accuracy.max())
    axes.set_ylim(floor - 0.1 * (top - floor), top + 0.08 * (top - floor))
    axes.set_xlabel("latency, ms (lines: reference point)")
    axes.set_ylabel("accuracy, % (fronts of the first seed; grey: all trials)")
    axes.grid(alpha=0.3)


def _style(name: str) -> dict[str, Any]:
    return {"linestyle": "-" if name in OURS else "--", "linewidth": 1.8}
