"""The search for a quick schedule of a kernel: TVM's evolution proposes, a cost model chooses."""

from __future__ import annotations

import os
from typing import Any

from .imports import load_tvm
from .intrinsics import load_intrinsics
from .records import FAILED, records_of, seconds_of
from .trial import measured_seconds

#: Schedules that are bred for each one that is tried, and at most: TVM's number, for 64 trials.
_BRED, _MOST_BRED = 8, 512
#: A kernel has no more schedules if so many proposals in a row bring none that is new.
_TRIES = 3
#: No limit of TVM's.
_MANY = 2**30


class KernelSearch:
    """The search for a schedule of one kernel. It goes on from what the records know of the kernel.

    Attributes:
        name: of the kernel's function.
        weight: calls of the kernel in the model.
        exhausted: there is no schedule left to try, or none that runs.
        best: the best time after each batch of trials, in ms; first that of earlier ones, if there are any.
    """

    def __init__(
        self, task: Any, target: Any, records: Any, cost_model: Any, batch: int, untuned_ms: float, seed: int
    ) -> None:
        """Prepare the search.

        Args:
            task: the kernel, see :func:`tuning.kernels_to_tune`.
            target: TVM's target.
            records: the database that trials are added to.
            cost_model: TVM's, or one like it; it learns from the records, too.
            batch: trials of a step.
            untuned_ms: what a call of the kernel takes untuned; 0 if that is not known.
            seed: decides the schedules that are tried, from 1 on.
        """
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        load_intrinsics()
        population = min(_MOST_BRED, _BRED * batch)
        self.name, self.weight, self.exhausted = str(task.task_name), int(task.weight), False
        self._untuned_ms, self._target, self._records, self._model = untuned_ms, target, records, cost_model
        self._context = schedule.TuneContext(
            mod=task.dispatched[0],
            target=target,
            space_generator="post-order-apply",
            search_strategy=schedule.search_strategy.EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=self.name,
            rand_state=seed,
            num_threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        )
        known = records_of(records, task)
        candidates = [one.as_measure_candidate() for one in known]
        seconds = [seconds_of(one.run_secs) for one in known]
        self.best = [1e3 * min(seconds)] if any(one < FAILED for one in seconds) else []
        self._tried = {_fingerprint(one) for one in candidates}
        self._learn(candidates, seconds)
        self._context.pre_tuning(_MANY, batch, None, records, cost_model)

    @property
    def ms(self) -> float:
        """What all calls of the kernel take by its best trial, or untuned, in ms."""
        return (self.best[-1] if self.best else self._untuned_ms) * self.weight

    def step(self, most: int) -> int:
        """Try up to ``most`` schedules; return how many. Each one is recorded before the next is tried."""
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        new = self._new_candidates()[:most]
        workload = self._records.commit_workload(self._context.mod)
        seconds = []
        for one in new:
            self._tried.add(_fingerprint(one))
            seconds.append(measured_seconds(one, self._target))
            record = schedule.database.TuningRecord(
                one.sch.trace, workload, seconds[-1:], self._target, one.args_info
            )
            self._records.commit_tuning_record(record)
        self._learn(new, seconds)
        known = [*self.best[-1:], *(1e3 * one for one in seconds if one < FAILED)]
        if known:
            self.best.append(min(known))
        self.exhausted = not new or not known
        return len(new)

    def _new_candidates(self) -> list[Any]:
        """Schedules that were not tried yet. TVM itself would propose again what it only has records of."""
        for _ in range(_TRIES):
            found = self._context.generate_measure_candidates() or []
            if new := [one for one in found if _fingerprint(one) not in self._tried]:
                return new
        return []

    def _learn(self, candidates: list[Any], seconds: list[float]) -> None:
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        results = [schedule.runner.RunnerResult([one], None) for one in seconds]
        if results:
            self._model.update(self._context, candidates, results)


def _fingerprint(candidate: Any) -> str:
    """Tells a schedule from others of the kernel: what it computes and how, not how it came about."""
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    return str(schedule.utils.shash2hex(candidate.sch.mod))
