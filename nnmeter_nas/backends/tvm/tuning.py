"""Tune the kernels of a model: measure schedules of each, chosen by a cost model that learns from them.

The search is TVM's MetaSchedule; its records are a database of JSON lines, which models can share, as kernels
repeat. Trials are timed like visits: by the CPU time of one thread.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from ...extras import load_extra
from .compiling import Fused

_PURPOSE = "tuning with TVM"
#: Trials of a kernel before the next one is looked at: at least, at most, and such a part of all for each.
_LEAST, _MOST, _ROUNDS = 4, 64, 3
#: Schedules that are bred for each one that is tried, and at most: TVM's number, for 64 trials.
_BRED, _MOST_BRED = 8, 512
#: A trial is so many bursts of at least so many seconds.
_BURSTS, _BURST_S = 3, 0.01


class Progress(NamedTuple):
    """How far a tuning is.

    Attributes:
        trials: trials made now.
        best_ms: what the kernels of the model take by the best trial of each, in ms.
        kernel: the kernel that was looked at.
    """

    trials: int
    best_ms: float
    kernel: str


def open_records(folder: Path) -> Any:
    """Open the tuning records in ``folder``; there may be none yet."""
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    folder.mkdir(parents=True, exist_ok=True)
    return schedule.database.JSONDatabase(work_dir=str(folder))


def kernels_to_tune(fused: Fused, target: Any) -> list[Any]:
    """The different kernels of a model, as tasks of TVM's search."""
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    return list(schedule.relax_integration.extract_tasks(fused.module, target))


def tune(
    tasks: Sequence[Any],
    target: Any,
    records: Any,
    trials: int,
    untuned_ms: Mapping[str, float],
    tell: Callable[[Progress], None],
    seed: int = 0,
) -> None:
    """Make ``trials`` trials of some kernels: a few of each, costliest first, then where most time is won.

    Args:
        tasks: the kernels, see :func:`kernels_to_tune`.
        target: TVM's target.
        records: the database that trials are added to; what it knows already counts.
        trials: schedules to measure.
        untuned_ms: what one call of each kernel takes untuned, by its function; unknown ones count nothing.
        tell: is called after each few trials.
        seed: decides the schedules that are tried.
    """
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    load_extra("xgboost", "tvm", _PURPOSE)
    _load_intrinsics()
    if not tasks or trials < 1:
        return
    tasks = sorted(tasks, key=lambda task: -untuned_ms.get(str(task.task_name), 0.0) * int(task.weight))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seeds = np.random.default_rng(seed).integers(1, 2**30, len(tasks)).tolist()
    at_once = min(_MOST, max(_LEAST, trials // (_ROUNDS * len(tasks))))
    population = min(_MOST_BRED, _BRED * at_once)
    contexts = [
        schedule.TuneContext(
            mod=task.dispatched[0],
            target=target,
            space_generator="post-order-apply",
            search_strategy=schedule.search_strategy.EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=task.task_name,
            rand_state=state,
            num_threads=cores,
        )
        for task, state in zip(tasks, seeds, strict=True)
    ]
    builder, runner = _builder_and_runner()
    schedule.tune_tasks(
        tasks=contexts,
        task_weights=[float(task.weight) for task in tasks],
        work_dir="",
        max_trials_global=trials,
        num_trials_per_iter=at_once,
        builder=builder,
        runner=runner,
        database=records,
        cost_model="xgb",
        measure_callbacks=[
            schedule.measure_callback.AddToDatabase(),
            schedule.measure_callback.UpdateCostModel(),
            _telling(tasks, records, untuned_ms, tell),
        ],
        task_scheduler=schedule.task_scheduler.GradientBased(seed=seed),
    )


def _load_intrinsics() -> None:
    """Import TVM's intrinsics, as its tuner does itself, but in a few seconds instead of half a minute.

    Each of the hundreds asks for the stack of its callers, for which Python would look for their sources.
    """
    whole_stack = inspect.stack
    inspect.stack = _callers
    try:
        load_extra("tvm.s_tir.tensor_intrin", "tvm", _PURPOSE)
    finally:
        inspect.stack = whole_stack


def _callers(context: int = 0) -> list[inspect.FrameInfo]:
    """The stack of callers, without their sources."""
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return found


def _builder_and_runner() -> tuple[Any, Any]:
    """Make what compiles schedules, and what runs them: both in this process.

    Processes of their own, as TVM has them, import TVM for ten seconds and more before each few trials.
    """
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    tvm = load_extra("tvm", "tvm", _PURPOSE)
    derived_object = load_extra("tvm.ir.utils", "tvm", _PURPOSE).derived_object
    compile_schedule = load_extra(
        "tvm.s_tir.meta_schedule.builder.local_builder", "tvm", _PURPOSE
    ).default_build
    compiled: dict[str, Any] = {}

    @derived_object
    class Builder(schedule.builder.PyBuilder):  # type: ignore[name-defined]
        """Compiles schedules, and keeps them by a name."""

        def build(self, schedules: Sequence[Any]) -> list[Any]:
            compiled.clear()
            found = []
            for number, one in enumerate(schedules):
                try:
                    compiled[str(number)] = compile_schedule(one.mod, one.target, None)
                    found.append(schedule.builder.BuilderResult(str(number), None))
                except Exception as error:  # whatever a schedule makes TVM raise: it is no good one
                    found.append(schedule.builder.BuilderResult(None, str(error)))
            return found

    @derived_object
    class Done(schedule.runner.PyRunnerFuture):  # type: ignore[name-defined]
        """The result of a run, which is there at once."""

        def __init__(self, seconds: list[float] | None, error: str | None) -> None:
            super().__init__()
            self._result = schedule.runner.RunnerResult(seconds, error)

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return self._result

    @derived_object
    class Runner(schedule.runner.PyRunner):  # type: ignore[name-defined]
        """Times what the builder kept, on random values."""

        def run(self, inputs: Sequence[Any]) -> list[Any]:
            found = []
            for one in inputs:
                try:
                    values = [_random_tensor(tvm, argument) for argument in one.args_info]
                    found.append(Done([_cpu_seconds(compiled[str(one.artifact_path)], values)], None))
                except Exception as error:  # as above
                    found.append(Done(None, str(error)))
            return found

    return Builder(), Runner()


def _random_tensor(tvm: Any, argument: Any) -> Any:
    shape = [int(size) for size in argument.shape]
    values = np.random.default_rng(0).random(shape)
    return tvm.runtime.tensor(values.astype(str(argument.dtype)))


def _cpu_seconds(module: Any, arguments: Sequence[Any]) -> float:
    """Time a compiled schedule; return the seconds of CPU time that a run takes."""
    run = module["main"]
    run(*arguments)
    runs = max(1, round(_BURST_S / max(_seconds(run, arguments, 1), 1e-6)))
    return min(_seconds(run, arguments, runs) for _ in range(_BURSTS))


def _seconds(run: Callable[..., Any], arguments: Sequence[Any], runs: int) -> float:
    start = time.thread_time_ns()
    for _ in range(runs):
        run(*arguments)
    return (time.thread_time_ns() - start) / 1e9 / runs


def best_ms(records: Any, task: Any) -> float | None:
    """The best time of a kernel that the records know, in ms."""
    if not records.has_workload(task.dispatched[0]):
        return None
    known = records.get_top_k(records.commit_workload(task.dispatched[0]), 1)
    return _ms(known[0].run_secs) if known else None


def _ms(seconds: Sequence[Any]) -> float:
    return 1e3 * float(np.mean([float(one) for one in seconds]))


def _telling(
    tasks: Sequence[Any], records: Any, untuned_ms: Mapping[str, float], tell: Callable[[Progress], None]
) -> Any:
    """Make what TVM calls after each few trials."""
    schedule = load_extra("tvm.s_tir.meta_schedule", "tvm", _PURPOSE)
    derived_object = load_extra("tvm.ir.utils", "tvm", _PURPOSE).derived_object
    known = [best_ms(records, task) for task in tasks]
    best = [
        untuned_ms.get(str(task.task_name), 0.0) if ms is None else ms
        for task, ms in zip(tasks, known, strict=True)
    ]
    done = 0

    @derived_object
    class Telling(schedule.measure_callback.PyMeasureCallback):  # type: ignore[name-defined]
        """Keeps the best time of each kernel."""

        def apply(self, _: Any, task_id: int, __: Any, ___: Any, results: Sequence[Any]) -> None:
            nonlocal done
            done += len(results)
            for result in results:
                if result.run_secs is not None:
                    ms = _ms(result.run_secs)
                    best[task_id] = min(best[task_id], ms) if known[task_id] is not None else ms
                    known[task_id] = best[task_id]
            total = sum(ms * task.weight for ms, task in zip(best, tasks, strict=True))
            tell(Progress(done, float(total), str(tasks[task_id].task_name)))

    return Telling()
