"""The search for a quick schedule of a kernel: TVM's evolution proposes, a cost model chooses."""

from __future__ import annotations

import os
from typing import Any

from .imports import load_tvm
from .interrupts import end_if_asked
from .intrinsics import load_intrinsics
from .records import FAILED, add_record, records_of, seconds_of, trials_of
from .rules import load_rules
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
        trials: schedules that were tried, also earlier.
        exhausted: there is no schedule left to try, or none that runs.
        best: the best time of a call after each batch of trials, in ms; first that of earlier ones and of the
            kernel as it comes. If that does not run by itself, it is left as it is, and 0 ms are counted.
    """

    def __init__(self, task: Any, target: Any, records: Any, cost_model: Any, batch: int, seed: int) -> None:
        """Prepare the search. The kernel is measured as it comes, unless the records know what that takes.

        Args:
            task: the kernel, see :func:`tuning.kernels_to_tune`.
            target: TVM's target.
            records: the database that trials are added to.
            cost_model: TVM's, or one like it; it learns from the records, too.
            batch: trials of a step.
            seed: decides the schedules that are tried, from 1 on.
        """
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        load_intrinsics()
        load_rules()
        population = min(_MOST_BRED, _BRED * batch)
        self.name, self.weight, self._module = str(task.task_name), int(task.weight), task.dispatched[0]
        self._target, self._records, self._model = target, records, cost_model
        self._context = schedule.TuneContext(
            mod=self._module,
            target=target,
            space_generator="post-order-apply",
            search_strategy=schedule.search_strategy.EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=self.name,
            rand_state=seed,
            num_threads=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        )
        known = trials_of(records_of(records, self._module))
        candidates = [one.as_measure_candidate() for one in known]
        seconds = [seconds_of(one.run_secs) for one in known]
        as_it_comes = self._as_it_comes()
        self.trials, self.exhausted = len(known), as_it_comes >= FAILED
        self.best = [0.0 if self.exhausted else 1e3 * min([as_it_comes, *seconds])]
        self._runs = any(one < FAILED for one in seconds)
        self._tried = {fingerprint(one) for one in candidates}
        self._learn(candidates, seconds)
        self._context.pre_tuning(_MANY, batch, None, records, cost_model)

    @property
    def ms(self) -> float:
        """What all calls of the kernel take by its best trial, or as it comes, in ms."""
        return self.best[-1] * self.weight

    def step(self, most: int) -> int:
        """Try up to ``most`` schedules; return how many. Each one is recorded before the next is tried."""
        new = self._new_candidates()[:most]
        seconds = []
        for one in new:
            self._tried.add(fingerprint(one))
            seconds.append(measured_seconds(one, self._target))
            add_record(self._records, self._module, one, seconds[-1], self._target)
        self._learn(new, seconds)
        self.trials += len(new)
        self.best.append(min([self.best[-1], *(1e3 * one for one in seconds)]))
        self._runs |= any(one < FAILED for one in seconds)
        self.exhausted = not new or not self._runs
        return len(new)

    def _as_it_comes(self) -> float:
        """The seconds that the kernel takes without a schedule."""
        known = records_of(self._records, self._module)
        for one in known:
            if not trials_of([one]):
                return seconds_of(one.run_secs)
        tvm, schedule = load_tvm(), load_tvm("tvm.s_tir.meta_schedule")
        arguments = schedule.arg_info.ArgInfo.from_entry_func(self._module)
        candidate = schedule.MeasureCandidate(tvm.s_tir.Schedule(self._module), arguments)
        seconds = measured_seconds(candidate, self._target)
        add_record(self._records, self._module, candidate, seconds, self._target)
        return seconds

    def _new_candidates(self) -> list[Any]:
        """Schedules that were not tried yet. TVM itself would propose again what it only has records of."""
        for _ in range(_TRIES):
            end_if_asked()
            found = self._context.generate_measure_candidates() or []
            if new := [one for one in found if fingerprint(one) not in self._tried]:
                return new
        return []

    def _learn(self, candidates: list[Any], seconds: list[float]) -> None:
        schedule = load_tvm("tvm.s_tir.meta_schedule")
        results = [schedule.runner.RunnerResult([one], None) for one in seconds]
        if results:
            self._model.update(self._context, candidates, results)


def fingerprint(candidate: Any) -> str:
    """Tells a schedule from others of the kernel: what it computes and how, not how it came about."""
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    return str(schedule.utils.shash2hex(candidate.sch.mod))
