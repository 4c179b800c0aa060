"""Make the table of the page from the results that are kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..pages import markdown_table, replace_sections
from ..speed.machine import load_text, machine_line
from ..speed.markdown import number
from .cells import Cell, unmeasured
from .kept import day, kept_cells
from .published import PUBLISHED

#: Section of the page.
SECTION = "tools"
#: Tool -> heading of its column.
TOOLS: Mapping[str, str] = {
    "nnmeter_nas": "nnmeter_nas",
    "nn-meter": "nn-Meter 2.0",
    "nni": "NNI 3.0's NnMeterProfiler",
    "litepred": "LitePred",
    "fvcore": "fvcore",
    "torchinfo": "torchinfo",
}
_COUNTERS = ("fvcore", "torchinfo")
#: Row -> question.
_ROWS: Mapping[str, str] = {
    "reads torch": "**reads** torch modules",
    "reads onnx": "ONNX files",
    "reads nnmeter-ir": "nn-Meter IR",
    "reads tflite": "TensorFlow Lite files",
    "reads nni-ir": "NNI 2.10.1's graphs",
    "reads pb": "TensorFlow's frozen graphs",
    "reads torchvision": "torchvision's names",
    "beyond": "kernels it cannot predict",
    "predicts": "**predicts**",
    "device": "a device of your own",
    "new": "**right**: whole models",
    "families": "families left out",
    "flops": "FLOPs as fvcore's, to 2 %",
    "ms torch": "**fast**: a torch module",
    "ms onnx": "an ONNX file",
    "needs": "**needs**, installed",
    "torch": "torch",
    "python": "Python",
    "download": "predictors",
}
#: Part of the results -> its rows.
_ROWS_OF_PART: Mapping[str, str] = {
    "tried": "what a tool reads (but NNI's graphs), cannot predict and predicts (but on a device of your "
    "own), FLOPs, and how fast it is",
    "right": "how right it is",
    "needs": "what it needs",
}
_NO_PB = "nothing here writes frozen graphs without TensorFlow"
_NO_TORCHVISION = "no torchvision in the environments, as none runs beside this torch"
_FORESTS = "needs nn-Meter's own forests, a download of 6.9 GB"
_OF_FILES = ("reads onnx", "reads nnmeter-ir", "reads tflite", "beyond", "ms onnx")
#: Tool -> rows that trying it fills, besides those of torch modules.
_TRIED: Mapping[str, tuple[str, ...]] = {
    "nnmeter_nas": (*_OF_FILES, "flops"),
    "nn-meter": _OF_FILES,
    "nni": (),
    "fvcore": ("flops",),
    "torchinfo": ("flops",),
}
#: Cells that no run fills, with the reason.
_UNMEASURED: Mapping[tuple[str, str], str] = {
    **{("reads pb", tool): _NO_PB for tool in ("nnmeter_nas", "nn-meter")},
    **{("reads torchvision", tool): _NO_TORCHVISION for tool in ("nnmeter_nas", "nn-meter")},
    ("new", "nni"): _FORESTS,
    **{("families", tool): _FORESTS for tool in ("nn-meter", "nni")},
    **{(f"ms {source}", "litepred"): "its predictors are a download" for source in ("torch", "onnx")},
    ("families", "litepred"): "its predictors are a download",
}
#: Agreement of two counts of FLOPs.
_SAME = 0.02


def write_page(results: Mapping[str, Any], folder: Path, page: Path) -> None:
    """Replace the section ``tools`` of ``page`` by the table.

    Args:
        results: as :func:`.comparison.load_results` returns them.
        folder: of the results of other commands.
        page: a Markdown file.

    Raises:
        DatasetError: ``page`` lacks the marks of its section.
    """
    replace_sections(page, {SECTION: table({**kept_cells(folder), **cells(results)}, results)})


def table(found: Mapping[tuple[str, str], Cell], results: Mapping[str, Any]) -> list[str]:
    """Return the lines of the table, and the machines that measured."""
    rows = [
        [question, *(found[row, tool].shown if (row, tool) in found else "–" for tool in TOOLS)]
        for row, question in _ROWS.items()
    ]
    machines = (line for one in _machines(results) for line in ("", one))
    return [*markdown_table(["", *TOOLS.values()], (), rows), *machines]


def _machines(results: Mapping[str, Any]) -> list[str]:
    """A line for each machine and day: which rows, of which tools if not of all, under which load."""
    measured: dict[str, dict[tuple[str, str], list[str]]] = {}
    for part, entries in results.items():
        for tool, entry in entries.items():
            line = machine_line(entry["machine"], with_load=False)
            measured.setdefault(line, {}).setdefault((part, load_text(entry["machine"])), []).append(tool)
    lines = []
    for line, runs in measured.items():
        told = []
        for (part, load), tools in runs.items():
            of = f", of {' and '.join(tools)}" if len(tools) < len(results[part]) else ""
            told.append(f"{_ROWS_OF_PART[part]}{of} ({load})")
        lines.append(f"{line} On it: {'; '.join(told)}.")
    return lines


def cells(results: Mapping[str, Any]) -> dict[tuple[str, str], Cell]:
    """Return all cells of the results and of what was published, by row and tool."""
    found = {place: unmeasured(reason) for place, reason in _UNMEASURED.items()}
    found |= {place: Cell(one.text, one.source) for place, one in PUBLISHED.items()}
    tried = results["tried"]
    for tool, rows in _TRIED.items():
        found |= {
            (row, tool): unmeasured("not run yet") for row in ("reads torch", "ms torch", "predicts", *rows)
        }
    for tool, entry in tried.items():
        found |= _reading(tool, entry)
        if tool in _COUNTERS or tool == "nnmeter_nas":
            found["flops", tool] = _same_flops(entry, tried.get("fvcore"))
    for source in ("torch", "onnx"):
        found |= _times(source, tried)
    for tool, entry in results["right"].items():
        for name in _COUNTERS if tool == "flops" else (tool,):
            found |= {(row, name): _accuracy(row, entry, tool == "flops") for row in ("new", "families")}
    for tool, entry in results["needs"].items():
        found |= _needs(tool, entry)
    return found


def _reading(tool: str, entry: Mapping[str, Any]) -> dict[tuple[str, str], Cell]:
    """What a tool reads, what it leaves out of that, and what it predicts."""
    when, sources, found = day(entry["machine"]), entry["sources"], {}
    for name, models in sources.items():
        source, _, released = name.partition(", ")
        if not released:
            text = _share(models)
            if bare := sources.get(f"{source}, as released"):
                text += f" with patches, as torch changed; {_share(bare)} as released"
            found[f"reads {source}", tool] = Cell(text, when)
    if tool in ("nnmeter_nas", "nn-meter"):
        answers = [one for one in sources["onnx"].values() if "beyond" in one]
        kinds = sorted({kind for one in answers for kind in one["beyond"]})
        number_of = sum(bool(one["beyond"]) for one in answers)
        what = "estimated, and said" if tool == "nnmeter_nas" else "left out of the sum, and not said"
        shown = f": {', '.join(kinds)}" if kinds else ""
        found["beyond", tool] = Cell(f"in {number_of} of {len(answers)} ONNX files; {what}{shown}", when)
    found["predicts", tool] = Cell(", ".join(entry["predicts"]), when)
    return found


def _share(models: Mapping[str, Mapping[str, Any]]) -> str:
    """How many models had an answer, and which had none if they are few."""
    failed = [name for name, one in models.items() if "error" in one]
    names = f" (not {', '.join(failed)})" if 0 < len(failed) <= len(models) / 2 else ""
    return f"{len(models) - len(failed)} of {len(models)}{names}"


def _same_flops(entry: Mapping[str, Any], reference: Mapping[str, Any] | None) -> Cell:
    """In how many torch modules a tool counts as many FLOPs as fvcore does."""
    if reference is None:
        return unmeasured("needs fvcore's counts")
    pairs = {
        name: (one["flops"], reference["sources"]["torch"][name]["flops"])
        for name, one in entry["sources"]["torch"].items()
        if "flops" in one and "flops" in reference["sources"]["torch"].get(name, {})
    }
    off = [name for name, (ours, theirs) in pairs.items() if abs(ours / theirs - 1) > _SAME]
    names = f" (not {', '.join(off)})" if 0 < len(off) <= len(pairs) / 2 else ""
    return Cell(f"{len(pairs) - len(off)} of {len(pairs)}{names}", day(entry["machine"]))


def _times(source: str, tried: Mapping[str, Any]) -> dict[tuple[str, str], Cell]:
    """Median time of each tool over the models that all of them read."""
    timed = {
        tool: {name: one["ms"] for name, one in entry["sources"][source].items() if "ms" in one}
        for tool, entry in tried.items()
        if source in entry["sources"]
    }
    timed = {tool: models for tool, models in timed.items() if models}
    common = set.intersection(*(set(models) for models in timed.values())) if timed else set()
    if not common:
        return {(f"ms {source}", tool): unmeasured("no model was read by all tools") for tool in timed}
    return {
        (f"ms {source}", tool): Cell(
            f"{number(statistics.median(models[name] for name in common))} ms, median of {len(common)}",
            day(tried[tool]["machine"]),
        )
        for tool, models in timed.items()
    }


def _accuracy(row: str, entry: Mapping[str, Any], proportional: bool) -> Cell:
    """Shares within ±10 % by device."""
    parts = []
    for device, judged in entry["devices"].items():
        name = device.partition("_")[0].removesuffix("cpu").removesuffix("gpu").removesuffix("vpu")
        if row == "new":
            new = judged["new"]
            parts.append(f"{name} {new['within_10']:.1f} % (Spearman {new['spearman']:.3f})")
        elif judged["families"] is not None:
            parts.append(f"{name} {judged['families']:.1f} %")
    judged_by = [judged["new"]["models"] for judged in entry["devices"].values()]
    models = " to ".join(f"{number:,}" for number in sorted({min(judged_by), max(judged_by)}))
    first = f", of the first {entry['of_each']} of each family" if entry["of_each"] else ""
    of = f", of {models} models held out{first}" if row == "new" else ", mean of families"
    how = "; a latency proportional to FLOPs, fitted to the other models" if proportional else ""
    return Cell(f"{', '.join(parts)} within ±10 %{of}{how}", day(entry["machine"]))


def _needs(tool: str, entry: Mapping[str, Any]) -> dict[tuple[str, str], Cell]:
    """Packages and their size."""
    when, packages = day(entry["machine"]), entry["packages"]
    undeclared = f"; does not declare {', '.join(entry['also'])}" if entry["also"] else ""
    found = {
        ("needs", tool): Cell(
            f"{len(packages)} packages, {sum(packages.values()):,.0f} MB{undeclared}", when
        ),
        ("torch", tool): Cell("always" if "torch" in packages else "for torch modules alone", when),
        ("python", tool): Cell(entry["requires_python"] or "not declared", when),
    }
    if tool == "nnmeter_nas":
        found["download", tool] = Cell(f"{entry['predictors_mb']:.1f} MB, in the package", when)
    return found
