"""``nnmeter-nas lut rank``: list a space's fastest or slowest architectures, or those near a latency."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from ..costs import FactorTable
from ..costs.files import is_table_file
from ..costs.table import IntArray
from ..errors import SearchError
from ..packs.intervals import Interval
from ..predictor import load_latency_predictor
from ..solve.ranking import closest, fastest, latency_reach, slowest
from ..solve.sampling import UniformSampler
from ..solve.survey import survey
from ..supernet.choices import architecture_at
from ..supernet.named import load_space
from .arguments import (
    add_format_arguments,
    check_format,
    positive_float,
    positive_int,
)
from .commands import add_command, set_command
from .lut_show import latency_range
from .lut_tables import NamedTable, add_table_arguments, tables
from .messages import console, note
from .results import written
from .workers import add_worker_arguments, check_workers, spreads, using_workers

_FIXED = {
    "table": str, "space": str, "predictor": str, "version": float, "input_shape": str, "rank": int,
    "latency_ms": float, "low_ms": float, "high_ms": float,
}  # fmt: skip
_EPILOG = """\
The fastest and the slowest are those of the whole space, which is never listed. So many lie next to a latency
that --closest, and --slowest under a limit, give some of them; --sample ranks random ones.

examples:
  nnmeter-nas lut rank spos --predictor cortexA76cpu_tflite21 --top 20
  nnmeter-nas lut rank proxylessnas --predictor adreno640gpu_tflite21 --slowest --max-latency 20
  nnmeter-nas lut rank tables/spos_1x3x224x224/cortexA76cpu_tflite21_2.0.yaml --closest 35 --json -o near.json
  nnmeter-nas lut rank spos-small --every --jobs 4
"""

#: Evaluating this many architectures takes minutes.
_LONG = 10**10


class _Row(NamedTuple):
    """What is told of an architecture; ``rank`` starts at 1, ``architecture`` is in NNI's export format."""

    rank: int
    ms: float
    architecture: dict[str, str]
    interval: Interval | None


def add_parser(actions: Any) -> None:
    """Add the action."""
    parser = add_command(actions, "rank", "rank the architectures of a search space by latency")
    set_command(parser, run, _EPILOG)
    add_table_arguments(parser)
    ranking = parser.add_argument_group("ranking")
    order = ranking.add_mutually_exclusive_group()
    order.add_argument("--fastest", action="store_true", help="the fastest first (default)")
    order.add_argument("--slowest", action="store_true", help="the slowest first")
    order.add_argument("--closest", type=positive_float, metavar="MS", help="those next to MS first")
    ranking.add_argument("--top", type=positive_int, default=20, metavar="N",
                         help="architectures to name (default: %(default)s)")
    ranking.add_argument("--max-latency", type=positive_float, default=math.inf, metavar="MS",
                         help="leave out what takes longer")
    ranking.add_argument("--sample", type=positive_int, metavar="N",
                         help="rank N random architectures within the limit instead of the whole space")
    ranking.add_argument("--seed", type=int, default=0, metavar="S",
                         help="of random architectures (default: %(default)s)")
    ranking.add_argument("--every", action="store_true",
                         help="evaluate every architecture: for quantiles of all, and where too many choices "
                         "interact to rank them otherwise")
    ranking.add_argument("--intervals", action="store_true",
                         help="read each architecture named, and tell from where to where 9 of 10 such "
                         "networks are when measured; needs the name of a space")
    add_worker_arguments(parser)
    add_format_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Rank the architectures of each table."""
    check_format(options)
    check_workers(options)
    if options.every and (options.slowest or options.closest or options.sample):
        options.parser.error("argument --every: goes with --fastest alone")
    if options.intervals and (files := [name for name in options.table if is_table_file(name)]):
        options.parser.error(f"argument --intervals: needs the name of a space, and {files[0]} is a file")
    if spreads(options) and not options.every:
        options.parser.error("argument --every: is what workers are for; without it, none are needed")
    with using_workers(options):
        found = [(named, *_ranked(named.table, options)) for named in tables(options)]
    if not options.format:
        for named, chosen, summary in found:
            _print(named, _rows(named, chosen, options), summary or latency_range(named.table))
        return 0
    labels = dict.fromkeys((label for named, *_ in found for label in named.table.labels), str)
    with written(options, {**_FIXED, **labels, "error": str}) as write:
        for named, chosen, _ in found:
            for row in _rows(named, chosen, options):
                low, high = (row.interval.low, row.interval.high) if row.interval else (None, None)
                record = {**named.identity, "rank": row.rank, "latency_ms": row.ms}
                record.update(low_ms=low, high_ms=high, error=None)
                choices = {"architecture": row.architecture} if options.format == "json" else row.architecture
                write({**record, **choices})
    return 0


def _ranked(table: FactorTable, options: argparse.Namespace) -> tuple[IntArray, str | None]:
    """Return candidate indices ``[n, positions]`` in ranked order, and a summary of all if it is known.

    Raises:
        SearchError: no architecture is within the limit.
    """
    if options.every and (architectures := math.prod(table.sizes)) > _LONG:
        note(f"{architectures:.2g} architectures, of which a core evaluates some 10^8 a second: "
             f"{architectures / 3.6e11:.2g} hours on one; --jobs and --backend spread them, see docs/bulk.md")
    surveyed = survey(table, options.top) if options.every else None
    limit = options.max_latency
    if limit < math.inf:
        least = latency_reach(table)[0] if surveyed is None else float(table.values(surveyed.least[:1])[0])
        if limit < least:
            raise SearchError(
                f"no architecture takes {limit:g} ms or less on {table.device}; the fastest of all takes "
                f"{least:.4f} ms"
            )
    if surveyed is None:
        return _chosen(table, options), None
    few, half, most = (surveyed.quantile(share) for share in (0.05, 0.5, 0.95))
    summary = (
        f"{surveyed.architectures} architectures, all evaluated: 5 % of them up to {few:.3f} ms, half up to "
        f"{half:.3f} ms, 95 % up to {most:.3f} ms"
    )
    return surveyed.least[table.values(surveyed.least) <= limit], summary


def _chosen(table: FactorTable, options: argparse.Namespace) -> IntArray:
    """Like :func:`_ranked`, but without looking at all architectures."""
    limit, top = options.max_latency, options.top
    if options.sample:
        random = np.random.default_rng(options.seed)
        found = np.unique(UniformSampler(table, at_most=limit).draw(options.sample, random), axis=0)
        ms = table.values(found)
        key = np.abs(ms - options.closest) if options.closest else -ms if options.slowest else ms
        return found[np.argsort(key, kind="stable")[:top]]
    if options.closest:
        return closest(table, options.closest, top, limit, options.seed)
    found = slowest(table, top) if options.slowest else fastest(table, top)
    within = table.values(found) <= limit
    if options.slowest and not within.all():
        return closest(table, limit, top, limit, options.seed)
    return found[within]


def _rows(named: NamedTable, chosen: IntArray, options: argparse.Namespace) -> list[_Row]:
    """Return what is told of each architecture.

    Raises:
        PackError: ``--intervals`` of a pack that knows none.
    """
    table = named.table
    latencies = table.latencies(chosen).tolist()
    architectures = [architecture_at(row, table.candidates) for row in chosen.tolist()]
    intervals = _intervals(named, architectures) if options.intervals else [None] * len(chosen)
    ranks = range(1, len(chosen) + 1)
    return list(map(_Row, ranks, latencies, architectures, intervals))


def _intervals(named: NamedTable, architectures: Sequence[Mapping[str, str]]) -> list[Interval]:
    """Return the interval of each architecture."""
    header = named.table.header
    predictor = load_latency_predictor(header.device, header.pack_version)
    space = load_space(named.name, list(header.input_shape))
    return [predictor.predict_interval(space.model_graph(one)) for one in architectures]


def _print(named: NamedTable, rows: Sequence[_Row], summary: str) -> None:
    out = console()
    out.print(Text(named.title, style="bold"))
    out.print(summary)
    first, last = named.table.labels[0], named.table.labels[-1]
    with_intervals = any(row.interval for row in rows)
    columns = ["rank", "ms", *(["9 of 10"] if with_intervals else [])]
    shown = Table(*columns, first if first == last else f"{first} ... {last}")
    shown.columns[0].justify = shown.columns[1].justify = "right"
    for row in rows:
        told = [f"{row.interval.low:.4g} to {row.interval.high:.4g}"] if row.interval else []
        shown.add_row(str(row.rank), f"{row.ms:.4f}", *told, " ".join(row.architecture.values()))
    out.print(shown)
