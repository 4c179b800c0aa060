"""Report on installed packs: their accuracy on a dataset, and the README's tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.nnmeter_ir.dataset import BenchModel, dataset_files, iter_models
from nnmeter_nas.training.accuracy import accuracy_by

from ..pages import markdown_table, replace_sections
from .evaluation import compare_dataset

#: Ids of the networks in their published form, without variations.
STANDARD = re.compile(r".*_0")


def evaluate_packs(
    bench: Path, devices: Sequence[str], console: Console, journal: Path | None = None
) -> None:
    """Print the accuracy of each device's newest pack on all models of ``bench``, by family.

    Arguments and errors are those of :func:`~nnmeter_nas.benchmarks.packs.evaluation.compare_dataset`.
    """
    predictors = [load_latency_predictor(name) for name in devices]
    for device, found in compare_dataset(bench, predictors, journal).items():
        table = Table(title=device)
        for column in ("family", "models", "±10 %", "±5 %", "MAPE %", "RMSPE %", "RMSE ms", "Spearman"):
            table.add_column(column, justify="left" if column == "family" else "right")
        for family, a in accuracy_by(found.families, found.predicted, found.measured).items():
            table.add_row(
                family,
                f"{a['models']}",
                f"{a['within_10']:.2f}",
                f"{a['within_5']:.2f}",
                f"{a['mape']:.2f}",
                f"{a['rmspe']:.2f}",
                f"{a['rmse_ms']:.2f}",
                f"{a['spearman']:.4f}",
            )
        console.print(table)


def _compare(model: BenchModel, predictors: Sequence[LatencyPredictor]) -> dict[str, tuple[float, float]]:
    """Return measured and predicted ms by device, for devices with a measurement."""
    graph = read_model(model.graph, "nnmeter-ir")
    return {
        p.device: (model.latency_ms[p.device], p.predict(graph))
        for p in predictors
        if p.device in model.latency_ms
    }


def write_readme(bench: Path, devices: Sequence[str], output: Path) -> None:
    """Replace the marked sections of ``output`` with tables about the installed packs.

    The section ``standard networks`` shows predicted and measured ms of each ``<family>_0`` in ``bench``. The
    section ``accuracy`` shows the evaluations on the packs' cards.

    Raises:
        DatasetError: ``output`` lacks the marks that frame a section.
    """
    predictors = [load_latency_predictor(name) for name in devices]
    sections = {
        "standard networks": _standard_networks(bench, predictors),
        "accuracy": _card_accuracy(predictors),
    }
    replace_sections(output, sections)


def _standard_networks(bench: Path, predictors: Sequence[LatencyPredictor]) -> list[str]:
    rows = []
    for path in dataset_files(bench):
        for model in iter_models(path):
            if STANDARD.fullmatch(model.id):
                found = _compare(model, predictors)
                cells = [_cell(found.get(p.device)) for p in predictors]
                rows.append([model.id.removesuffix("_0"), *cells])
    header = ["network", *(f"`{p.device}`" for p in predictors)]
    return markdown_table(header, range(1, len(header)), rows)


def _cell(pair: tuple[float, float] | None) -> str:
    if pair is None:
        return "–"
    measured, predicted = pair
    return f"{predicted:.1f} / {measured:.1f} ({predicted / measured - 1:+.1%})"


def _card_accuracy(predictors: Sequence[LatencyPredictor]) -> list[str]:
    rows = []
    for predictor in predictors:
        card = predictor.pack.card["accuracy"]
        known, unknown = card["held_out_ids"]["all"], card["leave_one_family_out"]["families"]
        weakest = sorted(unknown, key=lambda family: unknown[family]["within_10"])[:4]
        rows.append([
            f"`{predictor.device}`",
            *(f"{known[figure]:.1f} %" for figure in ("within_10", "within_5", "mape")),
            f"{known['spearman']:.4f}",
            f"{card['leave_one_family_out']['mean_within_10']:.1f} %",
            ", ".join(f"{family} {unknown[family]['within_10']:.0f} %" for family in weakest),
        ])  # fmt: skip
    header = (
        "device", "held-out ids: ±10 %", "±5 %", "MAPE", "Spearman", "left-out families: ±10 %", "weakest",
    )  # fmt: skip
    return markdown_table(header, range(1, 6), rows)
