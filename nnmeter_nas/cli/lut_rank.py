"""``nnmeter-nas lut rank``: list a space's fastest or slowest architectures, or those near a latency."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..costs import FactorTable
from ..costs.files import is_table_file
from ..costs.table import IntArray
from ..errors import SearchError
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
from .workers import add_worker_arguments, spreads, using_workers

_FIXED = ("table", "space", "predictor", "version", "input_shape", "rank", "latency_ms", "low_ms", "high_ms")
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
            _print(named, chosen, summary or latency_range(named.table), options)
        return 0
    labels = dict.fromkeys(label for named, *_ in found for label in named.table.labels)
    with written(options, (*_FIXED, *labels, "error")) as write:
        for named, chosen, _ in found:
            intervals = _intervals(named, chosen, options)
            for (rank, ms, architecture), limits in zip(_rows(named.table, chosen), intervals, strict=True):
                low, high = limits or (None, None)
                record = {**named.identity, "rank": rank, "latency_ms": ms, "low_ms": low, "high_ms": high}
                record["error"] = None
                choices = architecture if options.format == "csv" else {"architecture": architecture}
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


def _rows(table: FactorTable, chosen: IntArray) -> list[tuple[int, float, dict[str, str]]]:
    """Return rank (from 1), latency in ms, and the architecture in NNI's export format."""
    ranked = enumerate(zip(table.latencies(chosen), chosen.tolist(), strict=True), 1)
    return [(rank, float(ms), architecture_at(row, table.candidates)) for rank, (ms, row) in ranked]


def _intervals(
    named: NamedTable, chosen: IntArray, options: argparse.Namespace
) -> list[tuple[float, float] | None]:
    """Return the limits in ms of each architecture's interval; None without ``--intervals``.

    Raises:
        PackError: the pack knows no intervals.
    """
    if not options.intervals:
        return [None] * len(chosen)
    header = named.table.header
    predictor = load_latency_predictor(header.device, header.pack_version)
    space = load_space(named.name, list(header.input_shape))
    architectures = [architecture for *_, architecture in _rows(named.table, chosen)]
    found = [predictor.predict_interval(space.model_graph(one)) for one in architectures]
    return [(interval.low, interval.high) for interval in found]


def _print(named: NamedTable, chosen: IntArray, summary: str, options: argparse.Namespace) -> None:
    out = console()
    out.print(Text(named.title, style="bold"))
    out.print(summary)
    first, last = named.table.labels[0], named.table.labels[-1]
    columns = ["rank", "ms", *(["9 of 10"] if options.intervals else [])]
    shown = Table(*columns, first if first == last else f"{first} ... {last}")
    shown.columns[0].justify = shown.columns[1].justify = "right"
    intervals = _intervals(named, chosen, options)
    for (rank, ms, architecture), limits in zip(_rows(named.table, chosen), intervals, strict=True):
        told = [f"{limits[0]:.4g} to {limits[1]:.4g}"] if limits else []
        shown.add_row(str(rank), f"{ms:.4f}", *told, " ".join(architecture.values()))
    out.print(shown)
