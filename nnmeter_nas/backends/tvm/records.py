"""Tuning records: a database of TVM's MetaSchedule, JSON lines in a folder. Models can share it.

A record is a schedule of a kernel, as its steps, and its time. One without steps is the kernel as it comes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .imports import load_tvm

#: What TVM takes for the seconds of a schedule that cannot be compiled or run.
FAILED = 1e10
#: TVM's files in the folder.
_RECORDS, _WORKLOADS = "database_tuning_record.json", "database_workload.json"


def open_records(folder: Path) -> Any:
    """Open the tuning records in ``folder``; there may be none yet.

    A line that a crash left incomplete is cut off: TVM would read no record of the file. So no other process
    may add records meanwhile, nor while any are added here.
    """
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("database_*.json"):
        _cut_off_incomplete(path)
    return schedule.database.JSONDatabase(work_dir=str(folder))


def read_records(folder: Path) -> Any:
    """Return the tuning records in ``folder`` as they are now, while another process may add some.

    What is added to the records that are returned is not kept.
    """
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    with tempfile.TemporaryDirectory(prefix="nnmeter-nas-") as copy:
        for name in (_RECORDS, _WORKLOADS):  # a record is added after the workload that it is of
            with contextlib.suppress(FileNotFoundError):
                content = (folder / name).read_bytes()
                (Path(copy) / name).write_bytes(content[: content.rfind(b"\n") + 1])
        return schedule.database.JSONDatabase(work_dir=copy)


def _cut_off_incomplete(path: Path) -> None:
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)


def add_record(records: Any, module: Any, candidate: Any, seconds: float, target: Any) -> None:
    """Add what a candidate of TVM's search takes, and wait until it is on the disk.

    Args:
        records: the database.
        module: TVM's module of the kernel.
        candidate: a schedule of the kernel.
        seconds: what it takes.
        target: TVM's target.
    """
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    workload = records.commit_workload(module)
    record = schedule.database.TuningRecord(
        candidate.sch.trace, workload, [seconds], target, candidate.args_info
    )
    records.commit_tuning_record(record)
    for path in (records.path_workload, records.path_tuning_record):
        with open(path, "ab") as file:
            os.fsync(file.fileno())


def records_of(records: Any, module: Any) -> list[Any]:
    """The records of a kernel, quickest first; those that failed are last."""
    if not records.has_workload(module):
        return []
    workload = records.commit_workload(module)
    return [one for one in records.get_all_tuning_records() if one.workload.same_as(workload)]


def trials_of(records: Sequence[Any]) -> list[Any]:
    """Those records that are of schedules, not of a kernel as it comes."""
    return [one for one in records if len(one.trace.insts)]


def gains(records: Any) -> Any:
    """The best record of each kernel that has a schedule which is quicker than the kernel as it comes."""
    best: dict[Any, Any] = {}
    for one in records.get_all_tuning_records():
        other = best.setdefault(one.workload, one)
        if seconds_of(one.run_secs) < seconds_of(other.run_secs):
            best[one.workload] = one
    found = load_tvm("tvm.s_tir.meta_schedule").database.MemoryDatabase()
    for one in trials_of(list(best.values())):
        found.commit_workload(one.workload.mod)
        found.commit_tuning_record(one)
    return found


def quickened(records: Any, module: Any) -> set[str]:
    """The functions of a model's module for which :func:`gains` has a schedule."""
    tvm, gaining = load_tvm(), gains(records)
    as_searched = tvm.get_global_func("tvm.s_tir.meta_schedule.normalize_mod")
    kernels = {
        name.name_hint: function
        for name, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    return {name for name, function in kernels.items() if gaining.has_workload(as_searched(function))}


def seconds_of(run_secs: Sequence[Any]) -> float:
    """The seconds of a run, of a record or a result."""
    return float(np.mean([float(one) for one in run_secs]))
