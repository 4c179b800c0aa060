"""Plot the share of the true hypervolume over trials, a panel for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png

from .contestants import CONTESTANTS
from .judging import Outcome

#: What the point of the one-shot searches is called.
ONE_SHOT = "ProxylessNAS, one-shot, three limits"
_COLUMNS = 4
#: Colours and lines of the strategies: ours are solid. Most colour-blind readers can tell them apart.
_STYLES: Mapping[str, tuple[str, str]] = {
    "learned": ("#d55e00", "-"),
    "pareto": ("#0072b2", "-"),
    "random": ("#555555", ":"),
    "evolution": ("#e69f00", "--"),
    "nni-tpe": ("#f0e442", "--"),
    "optuna-nsga2": ("#56b4e9", "-."),
    "optuna-tpe": ("#009e73", "-."),
    "optuna-gp": ("#cc79a7", "-."),
}
#: The lower end of a panel: the lowest median after so many trials.
_SHOWN_FROM = 12


def comparison_plot(outcomes: Sequence[Outcome]) -> bytes:
    """Draw the median and the quartiles over the seeds, of each strategy in each task.

    Returns:
        A PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    columns = min(_COLUMNS, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure = new_chart(4.6 * columns, 3.6 * rows + 0.8, dpi=90)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, outcome in zip(panels, outcomes, strict=False):
        _draw(axes, outcome)
    for axes in panels[len(outcomes) :]:
        axes.set_axis_off()
    legend: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=columns, frameon=False)
    return to_png(figure)


def _draw(axes: Any, outcome: Outcome) -> None:
    lowest = 100.0
    for name, runs in outcome.runs.items():
        colour, line = _STYLES[name]
        shares = 100 * np.array([run.share for run in runs])
        low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75], axis=0)
        trials = np.arange(1, len(middle) + 1)
        axes.fill_between(trials, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(trials, middle, color=colour, linestyle=line, linewidth=1.6, label=CONTESTANTS[name].title)
        lowest = min(lowest, float(middle[min(_SHOWN_FROM, len(middle)) - 1]))
    if outcome.landed:
        low, middle, high = 100 * np.quantile([one.share for one in outcome.landed], [0.25, 0.5, 0.75])
        axes.errorbar(
            np.median([one.trials for one in outcome.landed]), middle, [[middle - low], [high - middle]],
            marker="*", markersize=12, color="black", linestyle="none", label=ONE_SHOT,
        )  # fmt: skip
        lowest = min(lowest, float(low))
    axes.set_title(outcome.task.title, fontsize=10, fontweight="bold")
    axes.set_ylim(lowest - 1, 100.5)
    axes.set_xlabel("trials")
    axes.set_ylabel("share of the true hypervolume, %")
    axes.grid(alpha=0.3)
