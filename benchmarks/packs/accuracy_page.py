"""The page on accuracy: its tables come from the cards of the packs, its charts also from the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.drawing import new_chart, to_png
from nnmeter_nas.errors import PackError
from nnmeter_nas.files import write_bytes
from nnmeter_nas.parallel.bulk import TravellingPredictor, spread
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, family_of, iter_models

from ..pages import markdown_table, replace_sections
from .pack_training import held_out

#: Family, measured ms and predicted ms of a model.
_Point = tuple[str, float, float]
#: Figures by the name of a network, a family or other models.
_Figures = Mapping[str, Mapping[str, float]]


def write_accuracy_page(bench: Path, devices: Sequence[str], page: Path) -> None:
    """Replace the tables of ``page``, and write its charts beside it.

    ``<page>.png`` shows predicted and measured latency of the held-out models in ``bench``,
    ``<page>_intervals.png`` how often intervals held, by family left out.

    Raises:
        DatasetError: a file of ``bench`` is malformed, or ``page`` lacks the marks that frame a section.
        PackError: the newest pack of a device knows no intervals.
    """
    predictors = [load_latency_predictor(name) for name in devices]
    for predictor in predictors:
        if "coverage" not in predictor.pack.card.get("intervals", {}):
            raise PackError(f"version {predictor.version} of {predictor.device} has no coverage on its card")
    replace_sections(
        page,
        {
            "networks": _networks(predictors),
            "families": _families(predictors),
            "intervals": _intervals(predictors),
            "calibration": _calibration(predictors),
        },
    )
    write_bytes(page.with_suffix(".png"), _scatter(bench, predictors))
    write_bytes(page.with_name(f"{page.stem}_intervals.png"), _coverage_chart(predictors))


def _accuracy(predictor: LatencyPredictor) -> dict[str, Any]:
    found: dict[str, Any] = predictor.pack.card["accuracy"]
    return found


def _coverage(predictor: LatencyPredictor) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = predictor.pack.card["intervals"]["coverage"]
    return found


def _table(predictors: Sequence[LatencyPredictor], first: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with a column for each device."""
    header = [first, *(f"`{predictor.device}`" for predictor in predictors)]
    return markdown_table(header, range(1, len(header)), rows)


def _rows(
    cards: Sequence[_Figures], cell: Callable[[Mapping[str, float]], str], headings: Mapping[str, str]
) -> list[list[str]]:
    """A row for each name in ``cards``, under its heading if it has one; a cell for each card."""
    names = dict.fromkeys(name for card in cards for name in card)
    return [
        [headings.get(name, name), *(cell(card[name]) if name in card else "–" for card in cards)]
        for name in names
    ]


def _networks(predictors: Sequence[LatencyPredictor]) -> list[str]:
    """Share of held-out models within 10 and within 5 %, by network."""

    def cell(figures: Mapping[str, float]) -> str:
        return f"{figures['within_10']:.1f} / {figures['within_5']:.1f}"

    cards = [_accuracy(predictor)["held_out_networks"] for predictor in predictors]
    return _table(predictors, "network", _rows(cards, cell, {"mean": "**mean of networks**"}))


def _families(predictors: Sequence[LatencyPredictor]) -> list[str]:
    """Share within 10 % and mean error of each family, by packs that never saw it."""

    def cell(figures: Mapping[str, float]) -> str:
        return f"{figures['within_10']:.1f} ({figures['mape']:.1f} %)"

    cards = [_accuracy(predictor)["leave_one_family_out"] for predictor in predictors]
    mean = ["**mean of families**", *(f"{card['mean_within_10']:.1f}" for card in cards)]
    rows = sorted(_rows([card["families"] for card in cards], cell, {}))
    return _table(predictors, "family left out", [mean, *rows])


def _intervals(predictors: Sequence[LatencyPredictor]) -> list[str]:
    """Coverage and median half-width of 90 % intervals."""

    def cell(figures: Mapping[str, float]) -> str:
        return f"{figures['coverage']:.1f} % (± {figures['half_width']:.1f} %)"

    rows = _rows(list(map(_coverage, predictors)), cell, {"held_out_ids": "**held-out models**"})
    return _table(predictors, "models", rows)


def _calibration(predictors: Sequence[LatencyPredictor]) -> list[str]:
    """Share within 10 % of NAS-Bench-201 by packs that never saw it, before and after calibration."""
    rows = []
    for predictor in predictors:
        found = _accuracy(predictor)["leave_one_family_out"]["families"]["nasbench201"]
        keys = ("within_10", "calibrated_with_10_within_10", "calibrated_with_20_within_10")
        rows.append([f"`{predictor.device}`", *(f"{found[key]:.1f}" for key in keys)])
    header = ["device", "as it is", "calibrated with 10 models", "with 20"]
    return markdown_table(header, range(1, 4), rows)


def _scatter(bench: Path, predictors: Sequence[LatencyPredictor]) -> bytes:
    """A panel a device: predicted over measured ms of held-out models, coloured by family."""
    travelling = tuple(map(TravellingPredictor.of, predictors))
    orders = [_Order(path, travelling) for path in dataset_files(bench)]
    points: dict[str, list[_Point]] = {predictor.device: [] for predictor in predictors}
    for found in spread(_held_out_points, orders, "predicting held-out models"):
        for device, of_device in found.items():
            points[device] += of_device
    families = sorted({family for found in points.values() for family, *_ in found})
    chart = new_chart(10, 9, 110)
    axes = chart.subplots(2, -(-len(predictors) // 2), squeeze=False).ravel()
    for axis, predictor in zip(axes, predictors, strict=False):
        for number, family in enumerate(families):
            mine = np.array([pair for name, *pair in points[predictor.device] if name == family])
            if len(mine):
                axis.scatter(*mine.T, s=7, color=_colour(number), label=family)
        ends = np.array(axis.get_xlim())
        ends[0] = max(ends[0], min(measured for _, measured, _ in points[predictor.device]))
        axis.plot(ends, ends, color="0.3", linewidth=0.8)
        for factor in (0.9, 1.1):
            axis.plot(ends, factor * ends, color="0.3", linewidth=0.6, linestyle=":")
        axis.set(xscale="log", yscale="log", title=predictor.device, xlabel="measured ms",
                 ylabel="predicted ms")  # fmt: skip
    axes[0].legend(fontsize="x-small", markerscale=2)
    return to_png(chart)


class _Order:
    """A file of the dataset to predict the held-out models of."""

    def __init__(self, path: Path, predictors: tuple[TravellingPredictor, ...]) -> None:
        self.path, self.predictors = path, predictors

    def __str__(self) -> str:
        return self.path.name


def _held_out_points(order: _Order) -> dict[str, list[_Point]]:
    predictors = [predictor.load() for predictor in order.predictors]
    points: dict[str, list[_Point]] = {predictor.device: [] for predictor in predictors}
    for model in _held_out_models(order.path):
        graph = read_model(model.graph, "nnmeter-ir")
        for predictor in predictors:
            measured = model.latency_ms.get(predictor.device)
            if measured is not None:
                points[predictor.device].append((family_of(order.path), measured, predictor.predict(graph)))
    return points


def _held_out_models(path: Path) -> Iterator[Any]:
    for model in iter_models(path):
        if held_out([model.id])[0]:
            yield model


def _colour(number: int) -> str:
    """A colour of matplotlib's cycle of twenty."""
    import matplotlib

    return str(matplotlib.colors.to_hex(matplotlib.colormaps["tab20"](number % 20)))


def _coverage_chart(predictors: Sequence[LatencyPredictor]) -> bytes:
    """Coverage of 90 % intervals by family left out, and how wide they are."""
    names = list(dict.fromkeys(name for p in predictors for name in _coverage(p)))
    chart = new_chart(10, 7, 110)
    above, below = chart.subplots(2, 1, sharex=True)
    for number, predictor in enumerate(predictors):
        found = _coverage(predictor)
        places = [place + 0.2 * number - 0.3 for place, name in enumerate(names) if name in found]
        mine = [found[name] for name in names if name in found]
        colour = _colour(2 * number)
        above.bar(places, [f["coverage"] for f in mine], 0.18, label=predictor.device, color=colour)
        below.bar(places, [f["half_width"] for f in mine], 0.18, color=colour)
    above.axhline(90, color="0.3", linewidth=0.8)
    above.axhline(80, color="0.3", linewidth=0.6, linestyle=":")
    above.set(ylabel="measured latency inside (%)", ylim=(0, 105))
    above.legend(fontsize="small", loc="lower right")
    below.set(ylabel="median half-width (%)", yscale="log")
    below.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=35, ha="right")
    return to_png(chart)
