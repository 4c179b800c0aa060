"""Does the reference latency decide what a ProxylessNAS search finds? Run searches that differ only in it.

Each seed searches the small space on the digits three times with ``nnmeter-nas proxylessnas``: aiming at half
and at double the space's median latency, and with latency left out of the loss.
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
from nnmeter_nas.solve.ranking import random_architectures
from nnmeter_nas.supernet.named import load_space

from ..pages import markdown_table, replace_sections

#: Number of random architectures that give the median latency of the space.
_SAMPLED = 10_000
#: Reference latencies, in medians of the space; None leaves latency out.
_AIMS: tuple[float | None, ...] = (0.5, 2.0, None)
_HEADER = (
    "seed", "reference (ms)", "found, full graph (ms)", "by the table (ms)", "expected (ms)",
    "entropy (nats)", "held-out accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One search.

    Attributes:
        aim: reference latency in medians of the space; None if latency was left out.
        record: content of ``search.json``, which the search wrote.
    """

    seed: int
    aim: float | None
    record: dict[str, Any]

    @property
    def latency_ms(self) -> float:
        """Latency of the architecture found, predicted from its full graph."""
        return float(self.record["latency_ms"])

    @property
    def cells(self) -> list[str]:
        """Its row of the table."""
        record = self.record
        reference = record["reference_latency_ms"]
        return [
            str(self.seed),
            "latency left out" if reference is None else f"{reference:.3f}",
            f"{self.latency_ms:.3f}",
            f"{record['table_latency_ms']:.3f}",
            f"{record['expected_latency_ms']:.3f}",
            f"{record['entropy']:.2f}",
            f"{record['held_out_accuracy']:.1%}",
        ]


def run_reference_latency(
    device: str,
    seeds: Sequence[int],
    work: Path,
    output: Path | None,
    console: Console,
    epochs: int | None = None,
    workers: int = 2,
) -> list[Outcome]:
    """Run the searches, print a table, and write it into the section ``reference latency`` of ``output``.

    Finished searches in the folder ``work`` do not run again. ``workers`` run at a time, each on one core.

    Raises:
        SearchError: a search fails; or for some seed, aiming at half the median found nothing faster than
            aiming at double.
    """
    table = cached_table(load_space("proxylessnas-small"), load_latency_predictor(device))
    median = float(np.median(table.latencies(random_architectures(table, _SAMPLED))))
    searches = [(seed, aim) for seed in seeds for aim in _AIMS]
    console.print(f"{len(searches)} searches on {table.device}, median of the space {median:.3f} ms")
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        records = pool.map(
            _search,
            [work / f"{table.device}-{seed}-{aim}" for seed, aim in searches],
            [table.device] * len(searches),
            [aim and aim * median for _, aim in searches],
            [seed for seed, _ in searches],
            [epochs] * len(searches),
        )
        outcomes = [Outcome(*search, record) for search, record in zip(searches, records, strict=True)]
    shown = Table(*_HEADER, title=f"{table.device}, median of the space {median:.3f} ms")
    for outcome in outcomes:
        shown.add_row(*outcome.cells)
    Console().print(shown)
    if output:
        replace_sections(output, {"reference latency": _markdown(outcomes, table, median)})
    _check_sides(outcomes)
    return outcomes


def _search(
    folder: Path, device: str, reference: float | None, seed: int, epochs: int | None
) -> dict[str, Any]:
    """Run the command and return its record."""
    arguments = ["proxylessnas", "--applied_hardware", device, "--seed", str(seed), "--output", str(folder)]
    arguments += ["--device", "cpu", "--threads", "1"]
    if reference is not None:
        arguments += ["--reference_latency", repr(reference)]
    if epochs is not None:
        arguments += ["--epochs", str(epochs)]
    if command(arguments):
        raise SearchError(f"the search in {folder} failed; see above")
    record: dict[str, Any] = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    return record


def _check_sides(outcomes: Sequence[Outcome]) -> None:
    found = {(outcome.seed, outcome.aim): outcome.latency_ms for outcome in outcomes}
    wrong = [seed for seed in dict.fromkeys(o.seed for o in outcomes) if found[seed, 0.5] >= found[seed, 2.0]]
    if wrong:
        raise SearchError(
            f"seeds {wrong}: aiming at half the median found nothing faster than aiming at double"
        )


def _markdown(outcomes: Sequence[Outcome], table: FactorTable, median: float) -> list[str]:
    fastest, slowest = (outcomes[0].record[name] for name in ("fastest_ms", "slowest_ms"))
    return [
        f"`{table.device}`: latencies of the small space range from {fastest:.3f} to {slowest:.3f} ms, with "
        f"median {median:.3f} ms.",
        "",
        *markdown_table(_HEADER, range(len(_HEADER)), [outcome.cells for outcome in outcomes]),
    ]
