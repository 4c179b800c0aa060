"""Charts of predictions, as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..drawing import new_chart, to_png
from ..predictor import MARKS, Explanation

if TYPE_CHECKING:
    from ..costs import FactorTable
    from ..kernels.configuration import FloatArray

#: Number of kernels in a panel by default.
_SHOWN = 15
#: One colour per kernel type. Most colour-blind readers can tell them apart.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a90a", "#6b4c9a", "#8c564b")
_TEXT_COLOUR = "#333333"
_NAME_LENGTH = 34
#: Number of letters in a line below a panel of kernels.
_NOTE_LENGTH = 96
#: Width in inches of a letter: in names beside an axis, in titles of panels, in the heading.
_NAME_INCHES, _TITLE_INCHES, _HEADING_INCHES = 0.075, 0.083, 0.13
_PANELS_A_ROW = 2
#: Colours of a heat map; largest number of cells that show figures.
_HEAT, _ANNOTATED = "YlGnBu", 400


def kernels_plot(explanations: Sequence[Explanation], model: str, top: int | None = None) -> bytes:
    """Draw a model's costliest kernels as bars, longest first, coloured by kernel type; one panel per device.

    A line below a panel sums up the kernels beyond the ``top``. Returns a PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    kinds = dict.fromkeys(kind for found in explanations for kind in _by_kind(found))
    colours = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}
    columns = min(len(explanations), _PANELS_A_ROW)
    rows = -(-len(explanations) // columns)
    shown = [_costliest(found, top or _SHOWN) for found in explanations]
    notes = [_notes(*pair) for pair in zip(explanations, shown, strict=True)]
    below = max(text.count("\n") + 1 for text in notes)
    height = 0.9 + 0.3 * max(len(kernels) for kernels in shown) + 0.17 * below
    heading = _wrapped(model, 8.5 * columns / _HEADING_INCHES)
    figure = new_chart(8.5 * columns, height * rows + 0.1 + 0.2 * (heading.count("\n") + 1), dpi=130)
    figure.suptitle(heading, fontsize=13, fontweight="bold", color=_TEXT_COLOUR)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, found, kernels, text in zip(panels, explanations, shown, notes, strict=False):
        _draw_panel(axes, found, kernels, colours)
        axes.set_xlabel(text, fontsize=9)
    for axes in panels[len(explanations) :]:
        axes.set_axis_off()
    return to_png(figure)


def heat_map(tables: Sequence[FactorTable]) -> bytes:
    """Draw the latency of each candidate at each position, light for low; one panel per device.

    A star marks positions whose values are relative to their cheapest candidate. All tables are of one space
    and input shape. Returns a PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for label in tables[0].labels for name in tables[0].candidates[label]))
    beside = 1.2 + _NAME_INCHES * max(len(_shortened(name)) for name in names)
    width = max(6.0, beside + 0.46 * len(tables[0].labels))
    titles = [_wrapped(heat_title(table), (width - beside) / _TITLE_INCHES) for table in tables]
    height = 1.15 + 0.34 * len(names) + 0.2 * max(title.count("\n") + 1 for title in titles)
    space = _wrapped(tables[0].header.space, width / _HEADING_INCHES)
    figure = new_chart(width, height * len(tables) + 0.2 + 0.2 * (space.count("\n") + 1), dpi=130)
    figure.suptitle(space, fontsize=13, fontweight="bold", color=_TEXT_COLOUR)
    panels = figure.subplots(len(tables), 1, squeeze=False).flat
    for axes, table, title in zip(panels, tables, titles, strict=True):
        _draw_heat(figure, axes, table, names)
        axes.set_title(title, fontsize=11, color=_TEXT_COLOUR)
    return to_png(figure)


def heat_title(table: FactorTable) -> str:
    """Tell what the cells of a heat map leave out, and which are relative."""
    title = f"{table.header.device}, stationary part {table.constant:.3g}\N{NO-BREAK SPACE}ms"
    if count := len(table.interactions()):
        title += f", {count}\N{NO-BREAK SPACE}interaction{'s' if count > 1 else ''} of positions"
    relative = [label for label in table.labels if heat_column(table, label)[1]]
    if relative:
        title += "\n* above the cheapest candidate"
    if not all(table.block(label).any() for label in relative):
        title += "; on average where positions interact"
    return title


def heat_column(table: FactorTable, label: str) -> tuple[FloatArray, bool]:
    """Return the ms of the candidates of a choice, and whether they are relative to the cheapest of them.

    What a choice only decides together with others is averaged over the others.
    """
    own = table.block(label)
    if own.any():
        return own, bool(own.min() == 0.0)
    together = np.zeros_like(own)
    for labels, extra in table.interactions().items():
        if label in labels:
            together += extra.mean(axis=tuple(i for i, other in enumerate(labels) if other != label))
    added = together - together.min()
    return added, bool(added.any())


def _draw_heat(figure: Any, axes: Any, table: FactorTable, names: list[str]) -> None:
    """Draw one device: a row per candidate, a column per position, and figures in the cells if they fit."""
    cells = np.full((len(names), len(table.labels)), np.nan)
    shown = []
    for column, label in enumerate(table.labels):
        values, relative = heat_column(table, label)
        shown.append(_shortened(label) + (" *" if relative else ""))
        for name, ms in zip(table.candidates[label], values, strict=True):
            cells[names.index(name), column] = ms
    low, high = min(0.0, np.nanmin(cells)), np.nanmax(cells)
    image = axes.imshow(cells, aspect="auto", cmap=_HEAT, vmin=low, vmax=high if high > low else low + 1.0)
    if cells.size <= _ANNOTATED:
        decimals = 2 if np.nanmax(cells) >= 1 else 3
        for row, column in zip(*np.nonzero(np.isfinite(cells)), strict=True):
            dark = image.norm(cells[row, column]) > 0.5
            axes.text(column, row, f"{cells[row, column]:.{decimals}f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else _TEXT_COLOUR)
    axes.set_yticks(range(len(names)), [_shortened(name) for name in names], fontsize=8.5)
    axes.set_xticks(range(len(table.labels)), shown, fontsize=8)
    if len(table.labels) > _PANELS_A_ROW:
        axes.tick_params(axis="x", labelrotation=45)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, pad=0.01, label="ms")


def _costliest(found: Explanation, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the ``count`` slowest kernels, each with its attributes in the kernel graph."""
    kernels = found.kernel_graph.nodes(data=True)
    predicted = [(name, data) for name, data in kernels if data["latency_ms"] is not None]
    return sorted(predicted, key=lambda kernel: -kernel[1]["latency_ms"])[:count]


def _by_kind(found: Explanation) -> dict[str, float]:
    """Return the total latency in ms of each kernel type, costliest first."""
    total: dict[str, float] = {}
    for _, data in found.kernel_graph.nodes(data=True):
        if data["latency_ms"] is not None:
            kind = data["kernel"].op
            total[kind] = total.get(kind, 0.0) + data["latency_ms"]
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _draw_panel(
    axes: Any, found: Explanation, kernels: list[tuple[str, dict[str, Any]]], colours: dict[str, str]
) -> None:
    """Draw one device: a bar per kernel, and the total of each type."""
    latencies = [data["latency_ms"] for _, data in kernels]
    colour = [colours[data["kernel"].op] for _, data in kernels]
    axes.barh(range(len(kernels)), latencies, height=0.72, color=colour)
    for position, (ms, (_, data)) in enumerate(zip(latencies, kernels, strict=True)):
        mark = MARKS[data["basis"]]
        axes.annotate(f"{ms:.3g} ms, {ms / found.latency_ms:.1%}{mark}", (ms, position), xytext=(5, 0),
                      textcoords="offset points", va="center", fontsize=8.5, color=_TEXT_COLOUR)
    axes.set_yticks(range(len(kernels)), [_shortened(name) for name, _ in kernels], fontsize=8.5)
    axes.set_ylim(len(kernels) - 0.4, -0.6)  # the costliest on top
    axes.set_xlim(0, 1.4 * max(latencies, default=1.0))  # room for the figures
    axes.set_title(found.title, fontsize=11, color=_TEXT_COLOUR)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    for kind, ms in _by_kind(found).items():
        axes.bar(0, 0, color=colours[kind], label=f"{kind}  {ms / found.latency_ms:.1%}")
    if kernels:
        axes.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0), fontsize=8.5, frameon=False,
                    title="all kernels of a type", title_fontsize=8.5)


def _shortened(name: str) -> str:
    """Shorten a long name to its end, which tells more than its start."""
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH:]}"


def _wrapped(text: str, letters: float) -> str:
    """Break lines that are longer than so many letters."""
    width = max(20, int(letters))
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def _notes(found: Explanation, shown: list[tuple[str, dict[str, Any]]]) -> str:
    """Tell below a panel what its axis is, and what a reader needs to understand its figures."""
    lines = ["predicted latency (ms, batch 1)"]
    more = len(found.kernel_graph) - len(found.unpredicted) - len(shown)
    if more:
        ms = found.latency_ms - sum(data["latency_ms"] for _, data in shown)
        lines.append(f"{more} more kernels: {ms:.3g} ms, {ms / found.latency_ms:.1%}")
    return _wrapped("\n".join([*lines, *found.remarks()]), _NOTE_LENGTH)
