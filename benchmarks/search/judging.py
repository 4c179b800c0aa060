"""Judge searches by the share of the true hypervolume that they find, and compare them seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.kernels.configuration import FloatArray

from .contestants import JUDGED
from .one_shot import Landing
from .statistics import Comparison, compare, hypervolume, hypervolumes
from .tasks import Accuracies, TableAccuracy, Task, Truth

#: Trials after which the share of the hypervolume is reported, and those after which strategies are compared.
CHECKPOINTS, COMPARED = (20, 50, 100, 200), 50
#: Share of the hypervolume that counts as all but everything.
ENOUGH = 0.99


@dataclass(frozen=True)
class Tried:
    """What a search tried.

    Attributes:
        seed: of the search.
        rows: architectures in order, ``[n, positions]``; n is less than ``trials`` if it found no more.
        trials: number of trials that it was allowed.
        seconds: that a trial took, training not counted.
    """

    seed: int
    rows: IntArray
    trials: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """A search, judged.

    Attributes:
        tried: what it tried.
        share: of the true hypervolume, after each trial allowed, ``[trials]``.
        missed: by how much the best accuracy within the limit is below the true best, after each trial
            allowed, ``[trials]``; infinite before there is one.
        tested: test accuracy of that best architecture after each trial, ``[trials]``; None without any.
    """

    tried: Tried
    share: FloatArray
    missed: FloatArray
    tested: FloatArray | None

    @property
    def enough(self) -> float:
        """Trials until it has 99 % of the hypervolume; infinite if it never does."""
        reached = np.flatnonzero(self.share >= ENOUGH)
        return float(reached[0] + 1) if len(reached) else float("inf")


class Landed(NamedTuple):
    """One-shot searches of one seed, judged together.

    Attributes:
        share: of the true hypervolume that their architectures have.
        trials: how many trials take as long as they did.
    """

    share: float
    trials: float


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        task: the task.
        truths: what can be found, by seed.
        runs: by strategy, in the order of seeds.
        landed: the one-shot searches, if there were any.
    """

    task: Task
    truths: Mapping[int, Truth]
    runs: Mapping[str, Sequence[Run]]
    landed: Sequence[Landed] = ()


def judge(
    task: Task,
    tried: Mapping[str, Sequence[Tried]],
    seeds: Sequence[int],
    landings: Mapping[int, Landing] = MappingProxyType({}),
) -> Outcome:
    """Judge the searches of a task.

    Args:
        task: what was searched.
        tried: the searches by strategy, in the order of ``seeds``.
        seeds: of the searches.
        landings: what one-shot searches found, by seeds of their own.
    """
    truths = {seed: task.truth(seed) for seed in seeds}
    runs = {
        name: [_judged(task, one, task.accuracies(one.seed), truths[one.seed]) for one in found]
        for name, found in tried.items()
    }
    return Outcome(task, truths, runs, [_landed(task, seed, found) for seed, found in landings.items()])


def compared(outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Compare the strategy that is judged with each rival in each task, after :data:`COMPARED` trials.

    P-values are corrected for the number of comparisons in tasks of the same group. Strategies and tasks
    without so many trials are left out.
    """
    found = []
    for group in dict.fromkeys(outcome.task.group for outcome in outcomes):
        shares = {
            outcome.task.name: {
                name: [float(run.share[COMPARED - 1]) for run in runs]
                for name, runs in outcome.runs.items()
                if all(len(run.share) >= COMPARED for run in runs)
            }
            for outcome in outcomes
            if outcome.task.group == group
        }
        found += compare(shares, JUDGED, group.level)
    return found


def _judged(task: Task, tried: Tried, known: Accuracies, truth: Truth) -> Run:
    latency, accuracy = task.latency.values(tried.rows), known.accuracies(tried.rows)
    share = hypervolumes(latency, accuracy, task.slowest, truth.floor) / truth.hypervolume
    within = np.where(latency <= task.limit, accuracy, -np.inf)
    best = np.maximum.accumulate(within)
    tested = known.tested(tried.rows) if isinstance(known, TableAccuracy) else None
    if tested is not None:
        tested = np.where(np.isfinite(best), tested[_first_best(within)], np.nan)

    def padded(values: FloatArray) -> FloatArray:
        return np.pad(values, (0, tried.trials - len(values)), mode="edge")

    return Run(tried, padded(share), padded(truth.best - best), None if tested is None else padded(tested))


def _landed(task: Task, seed: int, landing: Landing) -> Landed:
    labels = task.problem.labels
    rows = np.array([task.problem.row(dict(zip(labels, one, strict=True))) for one in landing.architectures])
    truth = task.truth(seed)
    latency, accuracy = task.latency.values(rows), task.accuracies(seed).accuracies(rows)
    share = hypervolume(latency, accuracy, task.slowest, truth.floor) / truth.hypervolume
    return Landed(share, landing.trials)


def _first_best(values: FloatArray) -> IntArray:
    """For each number of values from the first, which of them is the largest, ``[N] -> [N]``."""
    new = np.concatenate([[True], values[1:] > np.maximum.accumulate(values)[:-1]])
    return np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))
