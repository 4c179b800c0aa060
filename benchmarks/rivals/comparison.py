"""Measure what the table of the page says, and keep it: each entry has its own date."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from nnmeter_nas.errors import DatasetError, MissingPackageError
from nnmeter_nas.files import write_bytes
from nnmeter_nas.packs.registry import bundled_packs

from ..parity.predictors import write_predictor
from ..speed.figures import MeasurementError
from ..speed.machine import is_busy, machine
from ..speed.nnmeter import TREES
from .needs import needs

#: What a run can measure: what each tool reads and how fast, how right it is, what it needs.
PARTS = ("tried", "right", "needs")


class Environments(NamedTuple):
    """Virtual environments: this package's on NNI 2.10.1 and on NNI 3.0, nn-Meter's, the counters'."""

    ours: Path
    nni3: Path
    nn_meter: Path
    counters: Path


def run_comparison(
    environments: Environments,
    parts: Sequence[str],
    tools: Sequence[str],
    networks: Sequence[str],
    device: str,
    devices: Sequence[str],
    bench: Path | None,
    models: int | None,
    results: Path,
    console: Console,
) -> None:
    """Measure ``parts`` of the table for ``tools``, and replace these entries of ``results`` alone.

    What cannot be measured is named on the console, and an entry of an earlier run stays as it is.

    Args:
        environments: where the tools are.
        parts: of :data:`PARTS`.
        tools: of the columns :data:`.page.TOOLS`, those that can be run here.
        networks: reference networks to try the tools on.
        device: applied hardware of the predictors that are tried.
        devices, bench, models: what accuracy is judged on: applied hardware, a dataset in the official
            schema, and how many models of each of its files (None: all).
        results: JSON file that is read and written.
        console: shows progress.

    Raises:
        DatasetError: ``results`` or the dataset cannot be read.
        ReaderError: no reference network has one of the names.
    """
    described = machine(
        {
            "nn-Meter": (environments.nn_meter, "nn-meter"),
            "nni (profiler)": (environments.nni3, "nni"),
            "fvcore": (environments.counters, "fvcore"),
            "torchinfo": (environments.counters, "torchinfo"),
        }
    )
    if is_busy(described):
        told = f"warning: the load is {described['load_before']}; times are of a busy machine"
        console.print(told, style="yellow", markup=False)
    load_results(results)  # an error in it shows before anything is measured

    def keep(part: str, tool: str, found: Mapping[str, Any]) -> None:
        kept = load_results(results)  # as it is now: another run may have written
        kept[part][tool] = {"machine": described, **found}
        write_bytes(results, f"{json.dumps(kept, indent=1)}\n".encode())
        console.print(f"measured {part}: {tool}", markup=False)

    if "needs" in parts:
        for tool in tools:
            try:
                keep("needs", tool, needs_of(tool, environments))
            except MissingPackageError as error:
                console.print(f"not measured: needs of {tool}: {error}", markup=False)
    if "right" in parts:
        if bench is None:
            console.print("not measured: right needs the bench dataset: --bench DIR", markup=False)
        else:
            from .proportional import judge  # late: it loads SciPy and torch

            for tool, judged in judge(bench, devices, models).items():
                keep("right", tool, {"devices": judged, "of_each": models})
    if "tried" in parts:
        from .models import write_models  # late: they load torch
        from .trying import try_tool

        with tempfile.TemporaryDirectory() as folder:
            files, forests = Path(folder) / "models", Path(folder) / "forests"
            write_models(files, networks)
            if {"nn-meter", "nni"} & set(tools):
                write_predictor(forests, device, trees=TREES)
            for tool in tools:
                python, environment = _where(tool, environments)
                try:
                    keep("tried", tool, try_tool(tool, python, environment, files, forests, networks, device))
                except MeasurementError as error:
                    console.print(f"not measured: {error}", markup=False)


def needs_of(tool: str, environments: Environments) -> dict[str, Any]:
    """What a tool needs to predict an ONNX file, or a torch module if it reads no ONNX.

    Raises:
        MissingPackageError: the tool is not installed.
    """
    ours, nni3, theirs, counters = environments
    if tool == "nnmeter_nas":
        files = [path for path in bundled_packs().rglob("*") if path.is_file()]
        found = needs([ours], ["nnmeter_nas", "onnx"])
        return {**found, "predictors_mb": sum(path.stat().st_size for path in files) / 1e6}
    if tool == "nn-meter":
        return needs([theirs], ["nn-meter"], ["onnx", "setuptools"])
    if tool == "nni":
        also = ["nn-meter", "onnx", "onnxsim", "pytorch-lightning", "setuptools", "torch"]
        return needs([nni3, theirs], ["nni"], also)
    return needs([counters, ours], [tool], ["torch"])


def load_results(path: Path) -> dict[str, Any]:
    """Return what earlier runs kept: part -> tool -> entry; empty if there is no file.

    Raises:
        DatasetError: the file holds something else.
    """
    if not path.exists():
        return {part: {} for part in PARTS}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {part: dict(found[part]) for part in PARTS}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} holds no results of this version; remove it and measure again") from error


def _where(tool: str, environments: Environments) -> tuple[Path, Path]:
    """The interpreter that a tool runs under, and the environment that its packages come from."""
    python = (environments.nni3 if tool == "nni" else environments.ours) / "bin" / "python"
    if tool in ("nn-meter", "nni"):
        return python, environments.nn_meter
    return python, environments.ours if tool == "nnmeter_nas" else environments.counters
