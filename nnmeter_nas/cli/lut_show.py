"""``nnmeter-nas lut show``: show the latency of every candidate at every position."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ..costs import FactorTable
from ..files import write_bytes
from ..solve.ranking import latency_reach, random_architectures
from ..supernet.space import STATIONARY
from .arguments import add_format_arguments, check_format, png
from .commands import add_command, set_command
from .lut_tables import NamedTable, add_table_arguments, tables
from .messages import console, note
from .plots import heat_map
from .results import written

COLUMNS = {
    "table": str, "space": str, "predictor": str, "version": float, "input_shape": str, "label": str,
    "candidate": str, "ms": float, "error": str,
}  # fmt: skip
_EPILOG = """\
An architecture takes the stationary part, its blocks, and what choices that interact add or save.

examples:
  nnmeter-nas lut show spos --predictor cortexA76cpu_tflite21
  nnmeter-nas lut show proxylessnas --predictor all --plot heat.png
  nnmeter-nas lut show tables/spos_1x3x224x224/myriadvpu_openvino2019r2_2.0.npz --csv -o blocks.csv
"""
#: Number of random architectures for a median; number of interactions to list.
_SAMPLE, _LISTED = 10_000, 10
#: Largest number of candidate names that a table shows as columns.
_WIDE = 12


def add_parser(actions: Any) -> None:
    """Add the action."""
    parser = add_command(actions, "show", "print lookup tables, or draw them")
    set_command(parser, run, _EPILOG)
    add_table_arguments(parser)
    add_format_arguments(parser)
    parser.add_argument("--plot", type=png, metavar="FILE.png",
                        help="a heat map of candidates and positions, a panel a device")


def run(options: argparse.Namespace) -> int:
    """Show all tables."""
    check_format(options)
    found = tables(options)
    if options.plot and len({named.table.header.space_fingerprint for named in found}) > 1:
        options.parser.error("argument --plot: draws one search space, and several are given")
    if options.format:
        with written(options, COLUMNS, parts="blocks") as write:
            for named in found:
                write({**named.identity, **_record(named.table)})
    else:
        for named in found:
            _print(named)
    if options.plot:
        write_bytes(options.plot, heat_map([named.table for named in found]))
        note(f"saved {options.plot}")
    return 0


def latency_range(table: FactorTable) -> str:
    """Describe the number of architectures and the range of their latencies."""
    low, high = latency_reach(table)
    median = float(np.median(table.values(random_architectures(table, _SAMPLE))))
    count = math.prod(table.sizes)
    return f"{count:.3g} architectures: {low:.3f} to {high:.3f} ms, half of them up to {median:.3f} ms"


def _print(named: NamedTable) -> None:
    table, out = named.table, console()
    out.print(Text(named.title, style="bold"))
    names = list(dict.fromkeys(name for known in table.candidates.values() for name in known))
    columns = names if len(names) <= _WIDE else ["candidates"]
    shown = Table("choice", *columns)
    for column in shown.columns[1:]:
        column.justify = "right" if columns is names else "left"
    for label, known in table.candidates.items():
        ms = dict(zip(known, (f"{value:.4f}" for value in table.block(label)), strict=True))
        listed = ", ".join(f"{name} {value}" for name, value in ms.items())
        shown.add_row(label, *([ms.get(name, "") for name in names] if columns is names else [listed]))
    out.print(shown)
    out.print(f"stationary part: {table.constant:.4f} ms")
    out.print(latency_range(table))
    if (warmth := table.header.warmth).exponent:
        out.print(f"a network whose parts sum up to less than {warmth.below_ms:.3g} ms takes less: "
                  f"{float(warmth.ms(warmth.least_ms)):.3g} ms at {warmth.least_ms:.3g} ms")
    interactions = table.interactions()
    for labels, extra in list(interactions.items())[:_LISTED]:
        listed = f"{', '.join(labels[:-1])} and {labels[-1]}"
        out.print(f"{listed} interact: {extra.min():+.4f} to {extra.max():+.4f} ms")
    if (more := len(interactions) - _LISTED) > 0:
        out.print(f"{more} more interactions")
    if left_out := table.header.left_out:
        out.print(f"not measured: {', '.join(sorted(set(left_out.values())))}")


def _record(table: FactorTable) -> dict[str, Any]:
    """Return the contents of the table; ``blocks`` holds its parts, which are rows of CSV."""
    blocks = [
        {"label": label, "candidate": candidate, "ms": float(ms)}
        for label, known in table.candidates.items()
        for candidate, ms in zip(known, table.block(label), strict=True)
    ]
    interactions = [
        {"labels": list(labels), "ms": extra.tolist()} for labels, extra in table.interactions().items()
    ]
    return {
        "stationary_ms": table.constant,
        "blocks": [{"label": STATIONARY, "candidate": "root", "ms": table.constant}, *blocks],
        "interactions": interactions,
        "unpredicted": dict(table.header.left_out),
        "error": None,
    }
