"""Learn which labels of a search space decide the latency of each kernel, from few evaluated samples.

A network is a sum of kernels, and each depends on few labels: those of its own layer, of the layers that set
its shape, and of the neighbours that may fuse with it. What is known of a kernel's place is a start; a sample
that contradicts it gives the missing labels away: halving the difference between two samples finds one in a
logarithmic number of evaluations. Nothing needs to be known of fusion rules or of how shapes propagate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import SpaceError

#: Label -> value.
Sample = dict[str, Hashable]
#: Values under some labels.
Combination = tuple[Hashable, ...]
#: Kernel -> ms, of the kernels that a sample has.
KernelLatencies = Mapping[str, float]

#: Combinations of values that one kernel may depend on.
LARGEST_TABLE = 4096
#: Random samples in a row that must be as expected at the end.
AGREEING = 8


@dataclass(frozen=True, eq=False)
class Place:
    """Where in a space an operator stands.

    Attributes:
        conditions: labels that decide whether it runs, and for each whether it does, by value.
        labels: labels of its own arguments.
    """

    conditions: Mapping[str, frozenset[Hashable]]
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class InfluenceTable:
    """Latency that some kernels take together, for each combination of values of the labels that decide it.

    Attributes:
        labels: in the order of the keys of ``latencies``.
        latencies: values under ``labels`` -> ms.
    """

    labels: tuple[str, ...]
    latencies: dict[Combination, float]


def learn_influences(
    evaluate: Callable[[Sample], KernelLatencies],
    values: Mapping[str, Sequence[Hashable]],
    places: Mapping[str, Place],
    seed: int = 0,
    samples: Sequence[Sample] = (),
) -> list[InfluenceTable]:
    """Tables whose entries for a sample sum up to its latency.

    Args:
        evaluate: gives the latency of each kernel of a sample; deterministic.
        values: all values of every label.
        places: where each submodule stands, by its path; a kernel's name is such a path, or begins with one.
        seed: of the samples.
        samples: some that have to be right as well.

    Raises:
        SpaceError: a kernel depends on more combinations than :data:`LARGEST_TABLE`; names the labels.
    """
    return _Learner(evaluate, values, places, seed).tables(samples)


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
        values: Mapping[str, Sequence[Hashable]],
        places: Mapping[str, Place],
        seed: int,
    ) -> None:
        self._evaluate = evaluate
        self._values = values
        self._places = places
        self._random = random.Random(seed)
        self._samples: list[Sample] = []
        self._results: list[KernelLatencies] = []
        self._kernels: dict[str, _Kernel] = {}
        self._checked = 0
        self._paths: dict[str, list[str]] = {label: [] for label in values}
        for path, place in places.items():
            for label in {*place.conditions, *place.labels}:
                self._paths[label].append(path)
        for path, place in places.items():  # every submodule is to run once, for its kernels to be known
            self._know(path, place, place.labels)

    def tables(self, samples: Sequence[Sample]) -> list[InfluenceTable]:
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
        kernel = _Kernel(place, tuple(label for label in self._values if label in labels))
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

    def _allowed(self, kernel: _Kernel, label: str) -> list[Hashable]:
        """Values of ``label`` with which the kernel can run."""
        allowed = kernel.place.conditions.get(label)
        return [value for value in self._values[label] if allowed is None or value in allowed]

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
        near = {label: self._nearness(name, label) for label in self._values}
        while True:
            one, other = self._samples[first], self._samples[second]
            differing = [label for label in self._values if one[label] != other[label]]
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
            for label, choices in self._values.items()
        }

    def _summed(self) -> list[InfluenceTable]:
        """The tables of all kernels, largest first; one with labels of another is added into that."""
        deciding = {
            name: tuple(
                label for label in self._values if label in kernel.labels or label in kernel.place.conditions
            )
            for name, kernel in self._kernels.items()
        }
        tables: list[InfluenceTable] = []
        for name in sorted(self._kernels, key=lambda name: -self._combinations(deciding[name])):
            labels = deciding[name]
            table = next((table for table in tables if set(labels) <= set(table.labels)), None)
            if table is None:
                every = itertools.product(*(self._values[label] for label in labels))
                table = InfluenceTable(labels, dict.fromkeys(every, 0.0))
                tables.append(table)
            self._add_to(table, name)
        return tables

    def _combinations(self, labels: Iterable[str]) -> int:
        """How many combinations of values ``labels`` have."""
        return math.prod(len(self._values[label]) for label in labels)

    def _add_to(self, table: InfluenceTable, name: str) -> None:
        """Add the latency of a kernel to a table of all labels that decide it."""
        kernel = self._kernels[name]
        for combination in table.latencies:
            sample = dict(zip(table.labels, combination, strict=True))
            if _runs(kernel, sample):
                number = kernel.seen[_key(sample, kernel.labels)]
                table.latencies[combination] += self._latency(name, number)


def _runs(kernel: _Kernel, sample: Mapping[str, Hashable]) -> bool:
    """Whether the conditions of the kernel's place are met."""
    return all(sample[label] in allowed for label, allowed in kernel.place.conditions.items())


def _key(sample: Mapping[str, Hashable], labels: Iterable[str]) -> Combination:
    return tuple(sample[label] for label in labels)
