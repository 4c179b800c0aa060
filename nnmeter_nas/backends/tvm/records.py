"""Tuning records: a database of TVM's MetaSchedule, JSON lines in a folder. Models can share it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .imports import load_tvm

#: What TVM takes for the seconds of a schedule that cannot be compiled or run.
FAILED = 1e10


def open_records(folder: Path) -> Any:
    """Open the tuning records in ``folder``; there may be none yet.

    A line that a crash left incomplete is cut off: TVM would read no record of the file.
    """
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("database_*.json"):
        _cut_off_incomplete(path)
    return schedule.database.JSONDatabase(work_dir=str(folder))


def _cut_off_incomplete(path: Path) -> None:
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        os.truncate(path, complete)


def best_ms(records: Any, task: Any) -> float | None:
    """The best time of a kernel that the records know, in ms."""
    if not records.has_workload(task.dispatched[0]):
        return None
    known = records.get_top_k(records.commit_workload(task.dispatched[0]), 1)
    return 1e3 * seconds_of(known[0].run_secs) if known else None


def records_of(records: Any, task: Any) -> list[Any]:
    """The records of a kernel, quickest first; those that failed are last."""
    if not records.has_workload(task.dispatched[0]):
        return []
    workload = records.commit_workload(task.dispatched[0])
    return [one for one in records.get_all_tuning_records() if one.workload.same_as(workload)]


def seconds_of(run_secs: Sequence[Any]) -> float:
    """The seconds of a run, of a record or a result."""
    return float(np.mean([float(one) for one in run_secs]))
