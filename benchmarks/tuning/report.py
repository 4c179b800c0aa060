"""Write a comparison of cost models into a page: sentences, tables and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png
from nnmeter_nas.files import write_bytes
from nnmeter_nas.kernels.configuration import FloatArray

from ..pages import markdown_table, replace_sections
from .comparison import LEVEL, NEAR, Outcome, trials_needed, trials_until_near, verdicts
from .kernels import KERNELS
from .replay import BATCH, CONTESTANTS, KNOWN

_PLOT = "cost_models.png"
#: Trials after which the best times are told.
_CHECKPOINTS = (16, 32, 64, 128)
#: Most colour-blind readers can tell these apart.
_STYLES = {
    "random": ("#555555", ":"),
    "xgboost": ("#e69f00", "--"),
    "xgboost-early": ("#0072b2", "-."),
    "ranking": ("#d55e00", "-"),
}


def write_page(outcome: Outcome, page: Path) -> None:
    """Replace the section ``cost models`` of a page; the plot goes beside the page.

    Raises:
        DatasetError: the page has no such section.
    """
    replace_sections(page, {"cost models": markdown(outcome)})
    write_bytes(page.parent / _PLOT, plot(outcome))


def statements(outcome: Outcome) -> list[str]:
    """Who wins, in a sentence for each setting and rival."""
    settings = outcome.curves.items()
    return [sentence for knows, of_setting in settings for sentence in _statements(knows, of_setting)]


def markdown(outcome: Outcome) -> list[str]:
    """Lines of Markdown: what was compared, who wins, the tables and the plot."""
    some = next(iter(outcome.curves[False].values()))
    seeds, trials = next(iter(some.values())).shape
    sizes = sorted({len(pool.seconds) for pool in outcome.pools.values()})
    lines = [
        f"Each cost model chose {trials} of {' or '.join(map(str, sizes))} schedules of each kernel, {BATCH} "
        f"at a time, with {seeds} seeds. Near is within {NEAR - 1:.0%} of the best of the pool; a search "
        f"that never gets there counts {trials + 1} trials.",
    ]
    for knows, of_setting in outcome.curves.items():
        title = f"With {KNOWN} trials of each other kernel known" if knows else "Each kernel from nothing"
        lines += ["", f"{title}:", "", *(f"- {one}" for one in _statements(knows, of_setting)), ""]
        lines += _table(of_setting, trials)
    return [*lines, "", f"![Best time over trials, by kernel]({_PLOT})"]


def _statements(knows: bool, of_setting: Mapping[str, Mapping[str, FloatArray]]) -> list[str]:
    mean = {name: trials_needed(by_kernel).mean() for name, by_kernel in of_setting.items()}
    start = "Knowing other kernels, " if knows else "From nothing, "
    found = []
    for one in verdicts(of_setting):
        sure = "wins against" if one.p < LEVEL else "is not shown to be better than"
        found.append(
            f"{start}{CONTESTANTS[one.winner].title} {sure} {CONTESTANTS[one.rival].title}: "
            f"{mean[one.winner]:.1f} trials until near against {mean[one.rival]:.1f} on average, sooner in "
            f"{one.sooner} searches and later in {one.later} (p {one.p:.2g})."
        )
    return found


def _table(of_setting: Mapping[str, Mapping[str, FloatArray]], trials: int) -> list[str]:
    """A row for each cost model: trials until near by kernel, and the best times after some trials."""
    kernels = list(next(iter(of_setting.values())))
    after = [n for n in _CHECKPOINTS if n <= trials]
    header = ["cost model", *kernels, "all", *(f"above the best after {n}" for n in after)]
    rows = []
    for name, by_kernel in of_setting.items():
        curves = np.concatenate(list(by_kernel.values()))
        rows.append([
            CONTESTANTS[name].title,
            *(f"{np.median(trials_until_near(by_kernel[kernel])):.0f}" for kernel in kernels),
            f"{np.median(trials_needed(by_kernel)):.0f}",
            *(f"{np.mean(curves[:, n - 1]) - 1:.1%}" for n in after),
        ])  # fmt: skip
    return markdown_table(header, range(1, len(header)), rows)


def plot(outcome: Outcome) -> bytes:
    """Draw the mean best time over trials, a column a kernel and a row a setting; return a PNG."""
    kernels = list(outcome.pools)
    figure = new_chart(3.2 * len(kernels), 6.4, dpi=80)
    panels = figure.subplots(len(outcome.curves), len(kernels), squeeze=False, sharex=True)
    for row, (knows, of_setting) in zip(panels, outcome.curves.items(), strict=True):
        for axes, kernel in zip(row, kernels, strict=True):
            _draw(axes, {name: by_kernel[kernel] for name, by_kernel in of_setting.items()})
            axes.set_title(KERNELS[kernel].title, fontsize=9)
        row[0].set_ylabel("time / best of the pool" + (", others known" if knows else ""))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return to_png(figure)


def _draw(axes: Any, curves: Mapping[str, FloatArray]) -> None:
    for name, runs in curves.items():
        colour, line = _STYLES[name]
        trials, title = range(1, runs.shape[1] + 1), CONTESTANTS[name].title
        axes.plot(trials, runs.mean(axis=0), line, color=colour, label=title)
    axes.set_ylim(0.98, 3)
    axes.set_xlabel("trials")
    axes.grid(alpha=0.3)
