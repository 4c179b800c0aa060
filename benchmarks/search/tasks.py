"""The tasks of the comparison: a space, a device, and accuracies that are known before any search.

NAS-Bench-201 has the accuracies that its authors measured, SPOS synthetic ones, and the small space of the
digits those of real trainings. docs/search_comparison.md explains the design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs import measures
from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import LISTED, IntArray, every_architecture
from nnmeter_nas.files import digest
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.solve.problem import Problem
from nnmeter_nas.solve.ranking import latency_reach
from nnmeter_nas.supernet.named import make_space
from nnmeter_nas.supernet.nni_space import space_of
from nnmeter_nas.supernet.space import Space

from .accuracy import SyntheticAccuracy
from .known_front import evolved
from .nasbench201_accuracy import CLASSES, DATASETS, load_accuracies
from .statistics import hypervolume

#: Share of the architectures that are within the limit under which the best accuracy is looked for.
LIMIT_QUANTILE = 0.25
#: Share of the architectures that stay below the reference point where accuracies are made up.
_FLOOR_QUANTILE = 0.1
#: Random architectures that stand for a space too large to list.
_SAMPLED = 20_000
#: Architectures that a task's fingerprint looks at.
_FINGERPRINT = 200
#: The device of the tasks that run on one alone: its latencies spread out even in a small space.
_ONE_DEVICE = "adreno640gpu_tflite21"


class Accuracies(Protocol):
    """Accuracies of architectures."""

    def accuracies(self, rows: IntArray) -> FloatArray:
        """Accuracy by which searches are judged, ``[N, positions] -> [N]``."""
        ...

    def reported(self, rows: IntArray) -> FloatArray:
        """Accuracy that trials report, ``[N, positions] -> [N]``."""
        ...


@dataclass(frozen=True)
class TableAccuracy:
    """Accuracies of earlier trainings; trials report the same numbers.

    Attributes:
        sizes: number of candidates of each position.
        listed: accuracies in the order of :func:`every_architecture`.
        test: accuracies on images that no search sees, in the same order, where there are any.
    """

    sizes: tuple[int, ...]
    listed: FloatArray
    test: FloatArray | None = None

    def accuracies(self, rows: IntArray) -> FloatArray:
        """See :class:`Accuracies`."""
        return self.listed[self._numbers(rows)]

    reported = accuracies

    def tested(self, rows: IntArray) -> FloatArray | None:
        """Test accuracy of architectures, ``[N, positions] -> [N]``; None if there is none."""
        return None if self.test is None else self.test[self._numbers(rows)]

    def _numbers(self, rows: IntArray) -> npt.NDArray[np.intp]:
        return np.ravel_multi_index(tuple(np.asarray(rows).T), self.sizes)


class Group(NamedTuple):
    """Tasks that are judged together, and the probability of a false positive over all their tests."""

    title: str
    level: float


@dataclass(frozen=True)
class Truth:
    """What is known of a task with one seed's accuracies.

    Attributes:
        floor: accuracy of the reference point: that of guessing, or one that few architectures stay below.
        hypervolume: of all architectures together; of the best ones known where a space is too large to list.
        best: highest accuracy within the task's limit.
        best_test: test accuracy of that architecture, if there is one.
    """

    floor: float
    hypervolume: float
    best: float
    best_test: float | None


@dataclass(frozen=True)
class Task:
    """One task that every strategy searches.

    Attributes:
        name, title, group: its name, its name in reports, and the tasks that it is judged with.
        nni_space, space: the space as an NNI object, and as data.
        latency: of its architectures, in ms.
        chance: accuracy of a network that guesses; None if accuracies are made up.
        accuracies: the accuracies for a seed.
    """

    name: str
    title: str
    group: Group
    nni_space: Any
    space: Space
    latency: Measure
    chance: float | None
    accuracies: Callable[[int], Accuracies]

    @cached_property
    def problem(self) -> Problem:
        """All architectures that run anything are inside its limits."""
        return Problem(self.space.candidates, {"latency_ms": self.latency}, {})

    @cached_property
    def everything(self) -> IntArray:
        """All architectures that run anything, or random ones of a large space, ``[N, positions]``."""
        listed = self.problem.listed()
        return self.problem.draw(_SAMPLED, np.random.default_rng(0)) if listed is None else listed

    @cached_property
    def slowest(self) -> float:
        """Latency of the slowest architecture, in ms: that of the reference point."""
        assert self.latency.table is not None, "every space of the comparison has a table"
        return latency_reach(self.latency.table)[1]

    @cached_property
    def limit(self) -> float:
        """Latency limit under which the best accuracy is looked for, in ms."""
        return float(np.quantile(self.latency.values(self.everything), LIMIT_QUANTILE))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what searches depend on, from some architectures."""
        rows = self.everything[:: max(1, len(self.everything) // _FINGERPRINT)]
        latency, accuracy = self.latency.values(rows), self.accuracies(0).reported(rows)
        names = {label: list(known) for label, known in self.space.candidates.items()}
        return digest([names, latency.tolist(), accuracy.tolist()])[:16]

    def truth(self, seed: int) -> Truth:
        """What a search with this seed can find at most."""
        known = self.accuracies(seed)
        rows, floor = self.everything, self.chance
        if floor is None:
            floor = float(np.quantile(known.accuracies(rows), _FLOOR_QUANTILE))
        if self.problem.size > LISTED:
            rows = np.concatenate([rows, evolved(self.problem, known.accuracies, rows, seed)])
        latency, accuracy = self.latency.values(rows), known.accuracies(rows)
        within = np.flatnonzero(latency <= self.limit)
        best = within[accuracy[within].argmax()]
        tested = known.tested(rows[[best]]) if isinstance(known, TableAccuracy) else None
        return Truth(
            floor,
            hypervolume(latency, accuracy, self.slowest, floor),
            float(accuracy[best]),
            None if tested is None else float(tested[0]),
        )


_NASBENCH201 = Group("NAS-Bench-201", 0.01)
_SPOS = Group("SPOS, synthetic accuracy", 0.05)
_DIGITS = Group("digits, real training", 0.05)


def task_names(topics: Sequence[str], on: Sequence[str]) -> list[str]:
    """Names of the tasks ``TOPIC/DEVICE`` of some topics on some devices, in the order of reports."""
    every = [f"{dataset}/{device}" for dataset in DATASETS for device in devices()]
    every += [f"{topic}/{_ONE_DEVICE}" for topic in ("spos", "digits")]
    return [name for name in every if name.split("/")[0] in topics and name.split("/")[1] in on]


def digits_file(work: Path) -> Path:
    """Where the trainings on the digits are kept."""
    return work / "digits.jsonl"


@cache
def make_task(name: str, work: Path) -> Task:
    """Make a task by its name; ``work`` keeps the trainings on the digits, which run if they are not there.

    Raises:
        MissingPackageError: the digits are to be trained, and NNI 3.0 is not installed.
        SearchError: a training on the digits fails.
    """
    topic, device = name.split("/")
    nni_space, group, chance, accuracies = TOPICS[topic](topic, work)
    space = space_of(nni_space)
    latency = measures.latency(space, load_latency_predictor(device))
    title = f"{DATASETS[topic]}, {device}" if topic in DATASETS else group.title
    return Task(name, title, group, nni_space, space, latency, chance, accuracies(space))


#: An NNI space, its group, the accuracy of guessing, and what makes accuracies by seed.
Topic = tuple[Any, Group, float | None, Callable[[Space], Callable[[int], Accuracies]]]


def _nasbench201(dataset: str, work: Path) -> Topic:
    def accuracies(space: Space) -> Callable[[int], Accuracies]:
        found = load_accuracies()[dataset]
        known = TableAccuracy(_sizes(space), found.validation, found.test)
        return lambda seed: known

    return make_space("nasbench201"), _NASBENCH201, 1 / CLASSES[dataset], accuracies


def _spos(topic: str, work: Path) -> Topic:
    def accuracies(space: Space) -> Callable[[int], Accuracies]:
        names, flops = list(space.candidates.values()), measures.flops(space).values
        return cache(lambda seed: SyntheticAccuracy(names, flops, seed))

    return make_space("spos"), _SPOS, None, accuracies


def _digits(topic: str, work: Path) -> Topic:
    from .digits import trained_accuracies  # late: it needs NNI 3.0
    from .digits_space import digits_space

    trained = trained_accuracies(digits_file(work))

    def accuracies(space: Space) -> Callable[[int], Accuracies]:
        names = list(space.candidates.values())
        rows = every_architecture(_sizes(space))
        by_row = [trained[tuple(known[i] for known, i in zip(names, row, strict=True))] for row in rows]
        known = TableAccuracy(_sizes(space), np.array(by_row))
        return lambda seed: known

    return digits_space(), _DIGITS, 0.1, accuracies


def _sizes(space: Space) -> tuple[int, ...]:
    return tuple(len(known) for known in space.candidates.values())


#: Makes the space, the group and the accuracies of the tasks of a topic.
TOPICS: Mapping[str, Callable[[str, Path], Topic]] = {
    **dict.fromkeys(DATASETS, _nasbench201),
    "spos": _spos,
    "digits": _digits,
}
