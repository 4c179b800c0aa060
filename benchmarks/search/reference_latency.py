"""Does a ProxylessNAS search keep its reference latency? Run searches that differ only in it.

Each seed searches the small space on the digits with ``nnmeter-nas proxylessnas``, once for each reference: a
quarter, half and three quarters of the way from the space's fastest to its slowest architecture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main as command
from nnmeter_nas.costs import FactorTable, cached_table
from nnmeter_nas.errors import SearchError
from nnmeter_nas.solve.ranking import latency_reach
from nnmeter_nas.supernet.named import load_space

from ..pages import markdown_table, replace_sections

#: Reference latencies, as shares of the way from the fastest to the slowest architecture.
_AIMS = (0.25, 0.5, 0.75)
#: How far over its reference a search may end.
_OVER = 0.10
_HEADER = ("reference (ms)", "seed", "found, full graph (ms)", "by the table (ms)", "expected (ms)",
           "held-out accuracy")  # fmt: skip
_MEANS = ("reference (ms)", "slowest found (ms)", "mean found (ms)", "mean accuracy")


@dataclass(frozen=True)
class Outcome:
    """One search.

    Attributes:
        aim: where the reference lies between the fastest (0) and the slowest architecture (1).
        record: content of ``search.json``, which the search wrote.
    """

    seed: int
    aim: float
    record: dict[str, Any]

    @property
    def latency_ms(self) -> float:
        """Latency of the architecture found, predicted from its full graph."""
        return float(self.record["latency_ms"])

    @property
    def reference_ms(self) -> float:
        """Reference latency of the search."""
        return float(self.record["reference_latency_ms"])

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that the network found classifies correctly."""
        return float(self.record["held_out_accuracy"])

    @property
    def cells(self) -> list[str]:
        """Its row of the table."""
        return [
            f"{self.reference_ms:.3f}",
            str(self.seed),
            f"{self.latency_ms:.3f}",
            f"{self.record['table_latency_ms']:.3f}",
            f"{self.record['expected_latency_ms']:.3f}",
            f"{self.accuracy:.1%}",
        ]


def run_reference_latency(
    device: str,
    seeds: Sequence[int],
    work: Path,
    output: Path | None,
    console: Console,
    epochs: int | None = None,
    workers: int = 2,
    aims: Sequence[float] = _AIMS,
) -> list[Outcome]:
    """Run the searches, print a table, and write it into the section ``reference latency`` of ``output``.

    Finished searches in the folder ``work`` do not run again. ``workers`` run at a time, each on one core.
    Each of ``aims`` is a reference, as a share of the way from the fastest to the slowest architecture.

    Raises:
        SearchError: a search fails, or ends more than a tenth over its reference.
    """
    table = cached_table(load_space("proxylessnas-small"), load_latency_predictor(device))
    fastest, slowest = latency_reach(table)
    searches = [(seed, aim) for seed in seeds for aim in aims]
    console.print(f"{len(searches)} searches on {table.device}, from {fastest:.3f} to {slowest:.3f} ms")
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        records = pool.map(
            _search,
            [work / f"{table.device}-{seed}-{aim}" for seed, aim in searches],
            [table.device] * len(searches),
            [round(fastest + aim * (slowest - fastest), 3) for _, aim in searches],
            [seed for seed, _ in searches],
            [epochs] * len(searches),
        )
        outcomes = [Outcome(*search, record) for search, record in zip(searches, records, strict=True)]
    outcomes.sort(key=lambda outcome: (outcome.aim, outcome.seed))
    for header, rows in ((_HEADER, [o.cells for o in outcomes]), (_MEANS, _means(outcomes))):
        shown = Table(*header, title=table.device)
        for row in rows:
            shown.add_row(*row)
        Console().print(shown)
    if output:
        replace_sections(output, {"reference latency": _markdown(outcomes, table)})
    over = [o for o in outcomes if o.latency_ms > (1 + _OVER) * o.reference_ms]
    if over:
        raise SearchError(f"{len(over)} searches ended more than {_OVER:.0%} over their reference; see above")
    return outcomes


def _search(
    folder: Path, device: str, reference: float, seed: int, epochs: int | None
) -> dict[str, Any]:
    """Run the command and return its record."""
    arguments = ["proxylessnas", "--applied_hardware", device, "--seed", str(seed), "--output", str(folder)]
    arguments += ["--device", "cpu", "--threads", "1"]
    arguments += ["--reference_latency", repr(reference)]
    if epochs is not None:
        arguments += ["--epochs", str(epochs)]
    if command(arguments):
        raise SearchError(f"the search in {folder} failed; see above")
    record: dict[str, Any] = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    return record


def _means(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return a row for each reference: the slowest network found, and the means over all seeds."""
    rows = []
    for aim in sorted({outcome.aim for outcome in outcomes}):
        of_aim = [outcome for outcome in outcomes if outcome.aim == aim]
        latencies = [outcome.latency_ms for outcome in of_aim]
        rows.append([
            f"{of_aim[0].reference_ms:.3f}",
            f"{max(latencies):.3f}",
            f"{np.mean(latencies):.3f}",
            f"{np.mean([outcome.accuracy for outcome in of_aim]):.2%}",
        ])  # fmt: skip
    return rows


def _markdown(outcomes: Sequence[Outcome], table: FactorTable) -> list[str]:
    fastest, slowest = (outcomes[0].record[name] for name in ("fastest_ms", "slowest_ms"))
    return [
        f"`{table.device}`, where the small space reaches from {fastest:.3f} to {slowest:.3f} ms. All seeds "
        "of a reference together:",
        "",
        *markdown_table(_MEANS, range(len(_MEANS)), _means(outcomes)),
        "",
        "Each search:",
        "",
        *markdown_table(_HEADER, range(len(_HEADER)), [outcome.cells for outcome in outcomes]),
    ]
