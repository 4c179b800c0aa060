"""Learn which choices decide the latency of each kernel, from few evaluated samples.

A network is a sum of kernels, and each depends on few choices: those of its own layer, of the layers that set
its shape, and of the neighbours that may fuse with it. What the space says of a kernel's place is a start. A
sample that contradicts it reveals a missing choice: halving the difference between two samples finds it in a
logarithmic number of evaluations. Nothing needs to be known of fusion rules or of how shapes propagate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import SpaceError
from ..kernels.configuration import FloatArray
from ..supernet.choices import Candidates
from ..supernet.place import Place
from .table import FactorTable, Positions

#: Label -> candidate.
Sample = dict[str, str]
#: Candidates under some labels.
Combination = tuple[str, ...]
#: Kernel -> ms, of the kernels that a sample has.
KernelLatencies = Mapping[str, float]

#: Combinations of candidates that one kernel may depend on.
LARGEST_TABLE = 4096
#: Random samples in a row that must be as expected at the end.
AGREEING = 8


def learn_influences(
    evaluate: Callable[[Sample], KernelLatencies],
    candidates: Candidates,
    places: Mapping[str, Place],
    seed: int = 0,
    samples: Sequence[Sample] = (),
) -> FactorTable:
    """The table of the choices that decide each kernel; its value for a sample is the sample's latency.

    Args:
        evaluate: gives the latency of each kernel of a sample; deterministic.
        candidates: of every label.
        places: where each submodule stands, by its path; a kernel's name is such a path, or begins with one.
        seed: of the samples.
        samples: some that have to be right as well.

    Raises:
        SpaceError: a kernel depends on more combinations than :data:`LARGEST_TABLE`; names the labels.
    """
    return _Learner(evaluate, candidates, places, seed).table(samples)


@dataclass
class _Kernel:
    """What is known of a kernel.

    Attributes:
        place: decides whether it runs.
        labels: decide its latency where it runs.
        seen: values under ``labels`` -> number of the first sample in which it ran with these.
    """

    place: Place
    labels: tuple[str, ...]
    seen: dict[Combination, int] = field(default_factory=dict)


class _Learner:
    """Evaluates samples until the latency of every kernel is known for all that decides it."""

    def __init__(
        self,
        evaluate: Callable[[Sample], KernelLatencies],
        candidates: Candidates,
        places: Mapping[str, Place],
        seed: int,
    ) -> None:
        self._evaluate = evaluate
        self._candidates = candidates
        self._places = places
        self._random = random.Random(seed)
        self._samples: list[Sample] = []
        self._results: list[KernelLatencies] = []
        self._kernels: dict[str, _Kernel] = {}
        self._checked = 0
        self._paths: dict[str, list[str]] = {label: [] for label in candidates}
        for path, place in places.items():
            for label in {*place.conditions, *place.labels}:
                self._paths[label].append(path)
        for path, place in places.items():  # every submodule is to run once, for its kernels to be known
            self._know(path, place, place.labels)

    def table(self, samples: Sequence[Sample]) -> FactorTable:
        """Learn, from ``samples`` first, and sum up the kernels that the same labels decide."""
        for given in samples:
            self._try(given)
        agreed = 0
        while agreed < AGREEING:
            while sample := self._sample_with_unseen():
                self._try(sample)
            agreed = agreed + 1 if self._try(self._complete({})) else 0
        return self._summed()

    def _try(self, sample: Sample) -> bool:
        """Evaluate ``sample``; whether all kernels are as expected. Learns why where they are not."""
        self._add(sample)
        agrees = True
        while self._checked < len(self._samples):
            for name in list(self._kernels):
                agrees &= self._agrees(name, self._checked)
            self._checked += 1
        return agrees

    def _add(self, sample: Sample) -> None:
        """Evaluate ``sample`` and note the kernels that are new."""
        result = self._evaluate(sample)
        self._samples.append(sample)
        self._results.append(result)
        for name in result:
            if name not in self._kernels:
                place = self._place(name)
                self._know(name, place, place.labels)

    def _place(self, name: str) -> Place:
        """The place of the kernel of that name."""
        while name not in self._places:
            name = name.rpartition(".")[0]
        return self._places[name]

    def _know(self, name: str, place: Place, labels: Iterable[str]) -> None:
        """Note that ``labels`` decide the kernel, and look what all samples tell of that."""
        kernel = _Kernel(place, tuple(label for label in self._candidates if label in labels))
        combinations = self._combinations(kernel.labels)
        if combinations > LARGEST_TABLE:
            raise SpaceError(
                f"the latency of {name} depends on {combinations} combinations of "
                f"{', '.join(kernel.labels)}; "
                f"beyond {LARGEST_TABLE} none is priced"
            )
        self._kernels[name] = kernel
        for number in range(len(self._samples)):
            if not self._agrees(name, number):
                break  # another label was found, and everything looked at

    def _allowed(self, kernel: _Kernel, label: str) -> list[str]:
        """Candidates of ``label`` with which the kernel can run."""
        allowed = kernel.place.conditions.get(label)
        return [value for value in self._candidates[label] if allowed is None or value in allowed]

    def _agrees(self, name: str, number: int) -> bool:
        """Whether the kernel is in a sample as in an earlier one that is like it; learns why it is not."""
        kernel, sample = self._kernels[name], self._samples[number]
        if not _runs(kernel, sample):
            return True
        first = kernel.seen.setdefault(_key(sample, kernel.labels), number)
        if self._latency(name, first) == self._latency(name, number):
            return True
        self._know(name, kernel.place, {*kernel.labels, self._difference(name, first, number)})
        return False

    def _latency(self, name: str, number: int) -> float:
        """ms of a kernel in sample ``number``; 0 where it has none."""
        return self._results[number].get(name, 0.0)

    def _difference(self, name: str, first: int, second: int) -> str:
        """A label that makes the kernel differ between two samples, by halving what they differ in.

        Labels of places nearby are suspected first.
        """
        near = {label: self._nearness(name, label) for label in self._candidates}
        while True:
            one, other = self._samples[first], self._samples[second]
            differing = [label for label in self._candidates if one[label] != other[label]]
            if len(differing) == 1:
                return differing[0]
            differing.sort(key=lambda label: -near[label])
            nearest = sum(near[label] == near[differing[0]] for label in differing)
            suspects = differing[: min(nearest, len(differing) // 2)]
            middle = len(self._samples)
            self._add({**one, **{label: other[label] for label in suspects}})
            if self._latency(name, middle) == self._latency(name, first):
                first = middle
            else:
                second = middle

    def _nearness(self, name: str, label: str) -> int:
        """How many parts of its path a kernel shares with a place that ``label`` decides."""
        parts = name.split(".")
        shared = (
            itertools.takewhile(lambda pair: pair[0] == pair[1], zip(parts, path.split("."), strict=False))
            for path in self._paths[label]
        )
        return max((sum(1 for _ in pairs) for pairs in shared), default=0)

    def _sample_with_unseen(self) -> Sample | None:
        """A sample with a combination not seen yet, for many kernels at once; None if all are seen."""
        chosen: Sample = {}
        for kernel, unseen in self._unseen():
            for combination in unseen:
                candidate = dict(zip(kernel.labels, combination, strict=True))
                for label in kernel.place.conditions:
                    if label not in candidate and label not in chosen:
                        candidate[label] = self._random.choice(self._allowed(kernel, label))
                fits = all(chosen.get(label, value) == value for label, value in candidate.items())
                if fits and _runs(kernel, {**chosen, **candidate}):
                    chosen.update(candidate)
                    break
        return self._complete(chosen) if chosen else None

    def _unseen(self) -> list[tuple[_Kernel, list[Combination]]]:
        """One kernel for each place and set of labels, with its combinations not seen yet; most first."""
        kernels = {(id(kernel.place), kernel.labels): kernel for kernel in self._kernels.values()}
        missing = []
        for kernel in kernels.values():
            every = itertools.product(*(self._allowed(kernel, label) for label in kernel.labels))
            unseen = [combination for combination in every if combination not in kernel.seen]
            if unseen:
                missing.append((kernel, unseen))
        return sorted(missing, key=lambda item: -len(item[1]))

    def _complete(self, chosen: Sample) -> Sample:
        """``chosen`` with random values under the other labels."""
        return {
            label: chosen[label] if label in chosen else self._random.choice(choices)
            for label, choices in self._candidates.items()
        }

    def _summed(self) -> FactorTable:
        """The sum of all kernels, largest first; one whose labels another has is added to that."""
        labels = tuple(self._candidates)
        constant, factors = 0.0, dict[Positions, FloatArray]()
        decided = {name: self._positions(kernel) for name, kernel in self._kernels.items()}
        for name in sorted(decided, key=lambda name: -self._combinations(labels[p] for p in decided[name])):
            positions = decided[name]
            values = self._values(name, positions)
            if not positions:
                constant += float(values)
                continue
            home = next((known for known in factors if set(positions) <= set(known)), positions)
            if home not in factors:
                factors[home] = np.zeros([len(self._candidates[labels[p]]) for p in home])
            missing = tuple(axis for axis, p in enumerate(home) if p not in positions)
            factors[home] += np.expand_dims(values, missing)
        return FactorTable(self._candidates, constant, factors)

    def _positions(self, kernel: _Kernel) -> Positions:
        """Positions of the labels that decide whether a kernel runs, and its latency."""
        deciding = {*kernel.labels, *kernel.place.conditions}
        return tuple(position for position, label in enumerate(self._candidates) if label in deciding)

    def _values(self, name: str, positions: Positions) -> FloatArray:
        """Latency of a kernel for each combination of the candidates at ``positions``."""
        kernel = self._kernels[name]
        labels = [label for position, label in enumerate(self._candidates) if position in positions]
        known = [self._candidates[label] for label in labels]
        values = np.zeros([len(of_label) for of_label in known])
        for index, combination in zip(np.ndindex(values.shape), itertools.product(*known), strict=True):
            sample = dict(zip(labels, combination, strict=True))
            if _runs(kernel, sample):
                values[index] = self._latency(name, kernel.seen[_key(sample, kernel.labels)])
        return values

    def _combinations(self, labels: Iterable[str]) -> int:
        """How many combinations of candidates ``labels`` have."""
        return math.prod(len(self._candidates[label]) for label in labels)


def _runs(kernel: _Kernel, sample: Mapping[str, str]) -> bool:
    """Whether the conditions of the kernel's place are met."""
    return all(sample[label] in allowed for label, allowed in kernel.place.conditions.items())


def _key(sample: Mapping[str, str], labels: Iterable[str]) -> Combination:
    return tuple(sample[label] for label in labels)
