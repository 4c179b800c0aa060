"""Write the table of the comparison with nn-Meter's procedure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnmeter_nas.training.accuracy import accuracy

from ..networks.unusual import UNUSUAL
from ..pages import markdown_table, replace_sections
from ..speed.machine import machine_line
from .comparison import load_results

#: Section of the page.
SECTION = "procedure"
_HEADER = ("backend", "procedure", "minutes", "measured", "standard: ±5 %", "±10 %", "Spearman",
           "unusual: ±5 %", "±10 %", "Spearman")


def write_procedure(results: Path, page: Path) -> None:
    """Write the results into the section ``procedure`` of a page.

    Raises:
        DatasetError: there are no results, or the page lacks the marks of its section.
    """
    replace_sections(page, {SECTION: procedure_lines(load_results(results))})


def procedure_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table and of what it rests on."""
    rows = [row for name, entry in results.items() for row in _rows(name, entry)]
    lines = markdown_table(_HEADER, range(2, len(_HEADER)), rows)
    for name, entry in results.items():
        lines += ["", _note(name, entry)]
    return lines


def _rows(name: str, entry: Mapping[str, Any]) -> list[list[str]]:
    ours, theirs, networks = entry["ours"], entry["nn-Meter"], entry["networks"]
    kernels = sum(theirs["kernels"].values())
    repeats = [{**one, "less": min(one["halves_ms"]), "more": max(one["halves_ms"])} for one in networks]
    told = ["", "", *_accuracies(networks, "nn-Meter_told_ms", "measured_ms")]
    return [
        [
            name, "`nnmeter-nas build`", f"{ours['minutes']:.1f}",
            f"{ours['networks']:,} networks ({ours['kernels']:,} kernels in them)",
            *_accuracies(networks, "ours_ms", "measured_ms"),
        ],
        [
            name, "nn-Meter's", f"{theirs['minutes']:.1f}",
            f"{kernels:,} kernels, {theirs['tests']} pairs of operators",
            *_accuracies(networks, "nn-Meter_ms", "measured_ms"),
        ],
        *([[name, "nn-Meter's, with rules that the runtime tells", *told]] if theirs["told"] else []),
        [name, "the machine repeats itself", "", "", *_accuracies(repeats, "more", "less")],
    ]  # fmt: skip


def _accuracies(networks: Sequence[Mapping[str, Any]], predicted: str, measured: str) -> list[str]:
    """Accuracy on standard networks, then on unusual ones."""
    cells = []
    for unusual in (False, True):
        group = [one for one in networks if (one["name"] in UNUSUAL) == unusual]
        if not group:
            cells += ["–"] * 3
            continue
        found = accuracy([one[predicted] for one in group], [one[measured] for one in group])
        spearman = "–" if len(group) < 2 else f"{found['spearman']:.3f}"
        cells += [f"{found['within_5']:.0f}", f"{found['within_10']:.0f}", spearman]
    return cells


def _note(name: str, entry: Mapping[str, Any]) -> str:
    """What the figures of a backend rest on."""
    networks, theirs = entry["networks"], entry["nn-Meter"]
    standard = [one["name"] for one in networks if one["name"] not in UNUSUAL]
    unusual = [one["name"] for one in networks if one["name"] in UNUSUAL]
    whole = sum(not one["without_forest"] for one in networks)
    return (
        f"{name} ({entry['runtime']}): {len(standard)} standard networks ({', '.join(standard)}) and "
        f"{len(unusual)} unusual ones ({', '.join(unusual)}), which neither was trained on. nn-Meter's test "
        f"found that {len(theirs['rules'])} of {theirs['tests']} pairs fuse, and {len(theirs['used'])} of "
        f"these make kernels that it has forests for; the runtime tells {len(theirs['told'])} such pairs. "
        f"With those it has forests for all kernels of {whole} of the {len(networks)} networks, and adds "
        f"nothing for others. {theirs['left_out']} of its models took over 10 s or failed. "
        f"{machine_line(entry['machine'])}"
    )
