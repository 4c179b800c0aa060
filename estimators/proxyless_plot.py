"""Plot a search: expected latency against the reference, losses, entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png

_LATENCY, _REFERENCE, _LOSS, _TASK, _ENTROPY, _ACCURACY = (
    "#0072b2", "#c0392b", "#333333", "#e69f00", "#009e73", "#6b4c9a",
)  # fmt: skip
_TEXT = "#333333"
#: Window of the running mean, as a share of all steps.
_WINDOW = 1 / 40


def search_plot(
    log: Mapping[str, np.ndarray],
    device: str,
    reference: float | None,
    reach: tuple[float, float],
    found: float,
    title: str,
) -> bytes:
    """Plot the course of a search as a PNG.

    Args:
        log: columns of the log by name, with one value per step.
        device, title: applied hardware, and title of the chart.
        reference: reference latency in ms; None if the loss ignored latency.
        reach: latencies in ms of the space's fastest and slowest architectures.
        found: latency in ms of the architecture found.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = new_chart(9, 9.4, dpi=130)
    figure.suptitle(title, fontsize=12.5, fontweight="bold", color=_TEXT)
    latency, loss, entropy = figure.subplots(3, 1, sharex=True, height_ratios=(1.25, 1, 1))
    steps = log["step"]
    _draw_latency(latency, log, device, reference, reach)
    latency.scatter(
        steps[-1:],
        [found],
        s=170,
        marker="*",
        color="#f2b134",
        edgecolor=_LATENCY,
        zorder=5,
        label=f"found: {found:.4g} ms",
        clip_on=False,
    )
    if np.nanmax(np.abs(log["latency_penalty"]), initial=0.0) > 0:
        _draw_smoothed(loss, steps, log["loss"], _LOSS, "loss: cross-entropy and latency penalty")
    _draw_smoothed(loss, steps, log["cross_entropy"], _TASK, "cross-entropy")
    loss.set_ylabel("loss")
    entropy.plot(steps, log["entropy"], color=_ENTROPY, linewidth=1.8, label="entropy of the architecture")
    entropy.set_ylabel("entropy (nats)")
    entropy.set_ylim(0, 1.06 * max(1.0, float(np.max(log["entropy"]))))
    entropy.set_xlabel("step")
    accuracy = entropy.twinx()
    judged = ~np.isnan(log["held_out_accuracy"])
    accuracy.plot(
        steps[judged],
        100 * log["held_out_accuracy"][judged],
        color=_ACCURACY,
        linewidth=1.4,
        marker="o",
        markersize=3.5,
        label="held-out accuracy, likeliest architecture",
    )
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_ylim(0, 102)
    for axes in (latency, loss, entropy, accuracy):
        axes.spines["top"].set_visible(False)
    for axes in (latency, loss, entropy):
        axes.grid(alpha=0.25)
        _mark_warm_up(axes, log)
    for axes in (latency, loss):
        axes.spines["right"].set_visible(False)
        _add_legend(axes, *axes.get_legend_handles_labels())
    both = zip(entropy.get_legend_handles_labels(), accuracy.get_legend_handles_labels(), strict=True)
    _add_legend(entropy, *(first + second for first, second in both))
    return to_png(figure)


def _add_legend(axes: Any, handles: list[Any], labels: list[str]) -> None:
    """Put the legend above the chart, where it hides nothing."""
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=4,
        fontsize=9,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _draw_latency(
    axes: Any, log: Mapping[str, np.ndarray], device: str, reference: float | None, reach: tuple[float, float]
) -> None:
    fastest, slowest = reach
    axes.plot(
        log["step"], log["expected_latency_ms"], color=_LATENCY, linewidth=2.0, label="expected latency"
    )
    axes.axhspan(fastest, slowest, color=_LATENCY, alpha=0.05, label="what the space can reach")
    if reference is not None:
        axes.axhline(
            reference,
            color=_REFERENCE,
            linestyle="--",
            linewidth=1.3,
            label=f"reference latency, {reference:.4g} ms",
        )
    axes.set_ylim(0, 1.06 * max(slowest, min(reference or 0.0, 1.5 * slowest)))
    axes.set_ylabel(f"ms on {device}")


def _draw_smoothed(axes: Any, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    """Draw each batch's value in a pale colour, and the running mean."""
    width = max(1, int(len(values) * _WINDOW))
    counts = np.convolve(np.ones(len(values)), np.ones(width), "same")
    axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.25)
    axes.plot(
        steps, np.convolve(values, np.ones(width), "same") / counts, color=colour, linewidth=1.8, label=label
    )


def _mark_warm_up(axes: Any, log: Mapping[str, np.ndarray]) -> None:
    """Shade the warm-up steps, in which the odds did not change."""
    moved = np.flatnonzero(log["entropy"] != log["entropy"][0])
    if len(moved) and moved[0] > 1:
        axes.axvspan(log["step"][0], log["step"][moved[0]], color="#999999", alpha=0.10, linewidth=0)
        if axes.get_ylabel().startswith("ms"):
            axes.annotate(
                "warm-up",
                (log["step"][moved[0]] / 2, 0.03),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=8.5,
                color="#666666",
            )
