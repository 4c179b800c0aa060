"""Measure bulk predictions: speed by number of workers, then all files with a kill half-way."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from nnmeter_nas.errors import DatasetError
from nnmeter_nas.extras import load_extra
from nnmeter_nas.files import write_bytes

from ..speed.machine import machine
from .files import BROKEN_EVERY, many_files
from .watching import Watched, watch

#: Seconds between two looks at a short and at a long run.
_OFTEN_S, _SELDOM_S = 0.5, 5.0


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        device: to predict on.
        files: of the long run.
        workers: of the long run.
        sample: files of each run that tells the speed of a number of workers.
        jobs: those numbers.
    """

    device: str
    files: int
    workers: int
    sample: int
    jobs: Sequence[int]


def run_bulk(plan: Plan, work: Path, results: Path, console: Console) -> None:
    """Measure, and write the figures as JSON to ``results``.

    Raises:
        DatasetError: a file is lost or there twice, or another is broken than should be.
        MissingPackageError: ONNX or pyarrow is not installed.
    """
    described = {**machine({}), "cores": len(os.sched_getaffinity(0))}
    sample = many_files(work / f"files-{plan.sample}", plan.sample)
    speeds = []
    for jobs in plan.jobs:
        with console.status(f"{plan.sample} files, {jobs} workers"):
            seen, _ = watch(*_command(plan.device, sample, jobs, work), _OFTEN_S)
        _check(work, plan.sample)
        speeds.append({
            "workers": jobs, "files_per_second": seen.files_per_second(),
            "cpu_ms_per_file": seen.cpu_ms_per_file(),
        })  # fmt: skip
        console.print(f"{jobs} workers: {seen.files_per_second():.1f} files/s", markup=False)
    long = _long_run(plan, many_files(work / f"files-{plan.files}", plan.files), work, console)
    outcome = {
        "machine": described, "device": plan.device, "sample": plan.sample, "speeds": speeds, "long": long,
    }  # fmt: skip
    write_bytes(results, f"{json.dumps(outcome, indent=1)}\n".encode())


def _long_run(plan: Plan, folder: Path, work: Path, console: Console) -> dict[str, Any]:
    """Predict all files; kill the command at half of them, and repeat it."""
    arguments, journal = _command(plan.device, folder, plan.workers, work)
    with console.status(f"{plan.files} files, {plan.workers} workers, to be killed half-way"):
        killed, _ = watch(arguments, journal, _SELDOM_S, kill_at=plan.files // 2)
    with console.status(f"{plan.files} files, {plan.workers} workers, the rest"):
        resumed, code = watch(arguments, journal, _SELDOM_S)
    _check(work, plan.files)
    return {
        "files": plan.files,
        "broken": plan.files // BROKEN_EVERY,
        "workers": plan.workers,
        "exit_code": code,
        "rows": plan.files,
        "mib": {name: (work / name).stat().st_size / 2**20 for name in ("latencies.parquet", "bulk.journal")},
        "killed": killed.to_json(),
        "resumed": resumed.to_json(),
    }


def _command(device: str, folder: Path, jobs: int, work: Path) -> tuple[list[str], Path]:
    """Return the arguments of a fresh run, and its journal."""
    journal, output = work / "bulk.journal", work / "latencies.parquet"
    for path in (journal, output):
        path.unlink(missing_ok=True)
    return [
        "predict", str(folder), "--predictor", device, "--jobs", str(jobs), "--journal", str(journal),
        "-o", str(output),
    ], journal  # fmt: skip


def _check(work: Path, files: int) -> None:
    """Check that each file has its row, and that the broken ones, and no others, have none but an error."""
    table = load_extra("pyarrow.parquet", "parquet", "reading Parquet files").read_table(
        work / "latencies.parquet", columns=["model", "latency_ms", "error"]
    )
    names = Counter(table.column("model").to_pylist())
    broken = sum(error is not None for error in table.column("error").to_pylist())
    priced = sum(ms is not None for ms in table.column("latency_ms").to_pylist())
    expected = files // BROKEN_EVERY
    if len(names) != files or max(names.values()) > 1 or broken != expected or priced != files - expected:
        raise DatasetError(
            f"of {files} files, {expected} of them broken, {len(names)} have a row, up to "
            f"{max(names.values())} each; {broken} have an error and {priced} a latency"
        )


def load_bulk(results: Path) -> tuple[dict[str, Any], Watched, Watched]:
    """Return the figures, and what was seen of the long run before and after it was killed.

    Raises:
        DatasetError: there are no figures.
    """
    if not results.is_file():
        raise DatasetError(f"{results} does not exist; run the benchmark first")
    found = json.loads(results.read_text(encoding="utf-8"))
    return found, Watched(**found["long"]["killed"]), Watched(**found["long"]["resumed"])
