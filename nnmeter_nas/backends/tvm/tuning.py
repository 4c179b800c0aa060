"""Tune the kernels of a model: measure schedules of each, chosen by a cost model that learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .compiling import Fused
from .cost_models import DEFAULT, cost_model
from .imports import load_tvm
from .interrupts import end_if_asked, interrupts_held
from .search import KernelSearch

#: Trials of a kernel before the next one is looked at: at least, at most, and such a part of all for each.
_LEAST, _MOST, _ROUNDS = 4, 64, 3
#: Batches of trials whose gain counts, and how much it counts beside what the kernel takes: TVM's numbers.
_RECENT, _TREND = 3, 0.2


class Progress(NamedTuple):
    """How far a tuning is.

    Attributes:
        trials: trials made now.
        best_ms: what the kernels of the model take by the best trial of each, or as they come, in ms.
        kernel: the kernel that was looked at; empty before the first trial.
    """

    trials: int
    best_ms: float
    kernel: str


def kernels_to_tune(fused: Fused, target: Any) -> list[Any]:
    """The different kernels of a model, as tasks of TVM's search."""
    schedule = load_tvm("tvm.s_tir.meta_schedule")
    return list(schedule.relax_integration.extract_tasks(fused.module, target))


def tune(
    tasks: Sequence[Any],
    target: Any,
    records: Any,
    trials: int,
    tell: Callable[[Progress], None],
    seed: int = 0,
    model: str = DEFAULT,
    prepare: Callable[[int], None] = lambda _: None,
) -> None:
    """Make ``trials`` trials of some kernels: a few of each, costliest first, then where most time is won.

    Before that, each kernel is measured as it comes, which is no trial.

    Args:
        tasks: the kernels, see :func:`kernels_to_tune`.
        target: TVM's target.
        records: the database that trials are added to; what it knows already counts.
        trials: schedules to measure; fewer are, if there are no more.
        tell: is called before the first trial, and after each few of them.
        seed: decides the schedules that are tried.
        model: the cost model that chooses them, one of ``COST_MODELS``.
        prepare: is called with the position of each kernel before it is measured as it comes.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C; it waits until the trial that is made is recorded.
    """
    if not tasks or trials < 1:
        return
    with interrupts_held():
        _tune(tasks, target, records, trials, tell, seed, model, prepare)


def _tune(
    tasks: Sequence[Any],
    target: Any,
    records: Any,
    trials: int,
    tell: Callable[[Progress], None],
    seed: int,
    model: str,
    prepare: Callable[[int], None],
) -> None:
    chooser = cost_model(model, seed)
    at_once = min(_MOST, max(_LEAST, trials // (_ROUNDS * len(tasks))))
    seeds = np.random.default_rng(seed).integers(1, 2**30, len(tasks)).tolist()
    searches = []
    for i, (task, one) in enumerate(zip(tasks, seeds, strict=True)):
        end_if_asked()
        prepare(i)
        searches.append(KernelSearch(task, target, records, chooser, at_once, one))
    made = 0

    def tell_best(kernel: str) -> None:
        tell(Progress(made, sum(one.ms for one in searches), kernel))

    end_if_asked()
    tell_best("")
    while made < trials and (search := _next(searches)) is not None:
        if found := search.step(min(at_once, trials - made)):
            made += found
            tell_best(search.name)
        end_if_asked()


def _next(searches: Sequence[KernelSearch]) -> KernelSearch | None:
    """The kernel whose trials promise most; None if nothing is left to try."""
    left = [one for one in searches if not one.exhausted]
    fresh = [one for one in left if not one.trials]
    if fresh:
        return max(fresh, key=lambda one: one.ms)
    return max(left, key=_promise, default=None)


def _promise(search: KernelSearch) -> float:
    """What the next batch may win in ms, as TVM's scheduler guesses: as of late, or an ever smaller share."""
    best = search.best
    recent = best[-1 - _RECENT :]
    won = (recent[0] - recent[-1]) / max(1, len(recent) - 1)
    return search.weight * (_TREND * won + (1 - _TREND) * best[-1] / len(best))
