"""Figures that other commands of this folder measured, and keep with their date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnmeter_nas.errors import DatasetError
from nnmeter_nas.training.accuracy import accuracy

from ..procedure.comparison import load_results
from ..speed.figures import Figure, load
from .cells import Cell, unmeasured

#: Our figure of a builder's results and that of nn-Meter's procedure, by tool.
_BUILDERS = {
    "nnmeter_nas": ("ours_ms", "ours", "`nnmeter-nas build`"),
    "nn-meter": ("nn-Meter_ms", "nn-Meter", "its builder's procedure, with our measuring"),
}


def kept_cells(folder: Path) -> dict[tuple[str, str], Cell]:
    """Return the cells, by row and tool, that the results in ``folder`` fill."""
    return {**_graphs(folder / "candidates.json"), **_builders(folder / "procedure.json")}


def _graphs(path: Path) -> dict[tuple[str, str], Cell]:
    """Candidates in NNI's graph IR, from ``speed --topic candidates``."""
    try:
        results, machine = load(path)
        figure = next(one for one in results if isinstance(one, Figure) and one.rival is not None)
    except (DatasetError, StopIteration):
        missing = unmeasured(f"no results in {path.name}, which `make bench` writes")
        return {("reads nni-ir", tool): missing for tool in ("nnmeter_nas", "nn-meter")}
    assert figure.rival is not None
    number = len(figure.ours.values)
    return {
        ("reads nni-ir", "nnmeter_nas"): Cell(
            f"{number} of {number}, {figure.ours.median:.0f} ms each", day(machine)
        ),
        ("reads nni-ir", "nn-meter"): Cell(
            f"{number} of {number}, {figure.rival.median:.0f} ms each; leaves operators out", day(machine)
        ),
    }


def _builders(path: Path) -> dict[tuple[str, str], Cell]:
    """Predictors of a device of one's own, from ``procedure``: whole networks, all kinds."""
    try:
        backend, entry = next(iter(load_results(path).items()))
    except (DatasetError, StopIteration):
        missing = unmeasured(f"no results in {path.name}, which `make procedure` writes")
        return {("device", tool): missing for tool in _BUILDERS}
    found = {}
    for tool, (column, side, what) in _BUILDERS.items():
        judged = accuracy(*([one[key] for one in entry["networks"]] for key in (column, "measured_ms")))
        found["device", tool] = Cell(
            f"{what}, {entry[side]['minutes']:.1f} minutes of {backend}: {judged['within_10']:.0f} % of "
            f"{judged['models']:.0f} networks within ±10 %, Spearman {judged['spearman']:.3f}",
            day(entry["machine"]),
        )
    return found


def day(machine: Mapping[str, Any]) -> str:
    """The date of a run."""
    return str(machine["date"]).partition("T")[0]
