"""Learn which choices decide each of many marks of an architecture, from few evaluated samples.

A mark is anything that a sample shows: the latency of one of its kernels, or the channels that the kernel
reads. Each mark depends on few choices. Changing one choice at a time finds most of them, for all marks at
once. A later sample that contradicts the known choices reveals a missing one, which bisection of the
difference between two samples finds in a logarithmic number of evaluations. Then samples are made until each
mark has been seen for every combination of the choices that decide it. The learner needs to know nothing of
fusion rules or shape propagation.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import SpaceError
from ..kernels.configuration import FloatArray
from ..supernet.choices import Candidates
from ..supernet.place import Place
from .table import FactorTable, Positions

#: Label -> candidate.
Sample = dict[str, str]
#: Candidates of some labels.
Combination = tuple[str, ...]
#: Marks of a sample by name; absent marks have no entry.
Marks = Mapping[str, Hashable]

#: Largest number of combinations of candidates that one mark, or one kernel, may depend on.
LARGEST_TABLE = 4096
#: If the place of a mark has at most this many combinations, the mark is seen with all of them.
SURE = 100
#: Number of random samples in a row that must come out as expected at the end.
AGREEING = 48
#: Separator in names of marks, after the name of the operator or kernel.
MARK = ":"


@dataclass
class Influence:
    """The choices that decide a mark.

    Attributes:
        place: decides whether the mark exists.
        labels: decide its value if it exists.
        seen: candidates of ``labels`` -> number of the first sample in which the mark existed with these.
        values: value of the mark by number of the sample; None if it is absent.
    """

    place: Place
    labels: tuple[str, ...]
    values: Callable[[int], Hashable]
    seen: dict[Combination, int] = field(default_factory=dict)

    def runs(self, sample: Mapping[str, str]) -> bool:
        """Whether the conditions of the place are met."""
        return all(sample[label] in allowed for label, allowed in self.place.conditions.items())

    def value(self, sample: Mapping[str, str]) -> Hashable:
        """The mark in a sample, by the labels that decide it; None if absent."""
        return self.values(self.seen[_key(sample, self.labels)]) if self.runs(sample) else None


def learn_influences(
    evaluate: Callable[[Sample], Mapping[str, float]],
    candidates: Candidates,
    places: Mapping[str, Place],
    seed: int = 0,
    samples: Sequence[Sample] = (),
) -> FactorTable:
    """Learn a table of marks that few choices decide; the value of a sample is the sum of its marks.

    Args:
        evaluate: returns the numbers of a sample, such as the latency of each kernel; deterministic.
        candidates: candidates of every label.
        places: place of each submodule, by its path; the name of a mark is or begins with such a path.
        seed: seed of the samples.
        samples: further samples that have to come out right.

    Raises:
        SpaceError: a mark depends on more combinations than :data:`LARGEST_TABLE`; names the labels.
    """
    learner = Learner(evaluate, candidates, places, seed)
    learner.learn(samples)
    terms: list[tuple[Positions, FloatArray]] = []
    for influence in learner.influences.values():
        labels = deciding([influence], candidates)
        known = [candidates[label] for label in labels]
        samples_of = (dict(zip(labels, names, strict=True)) for names in itertools.product(*known))
        found: list[Any] = [influence.value(sample) or 0.0 for sample in samples_of]
        values = np.array(found, dtype=np.float64)
        terms.append((positions_of(labels, candidates), values.reshape([len(names) for names in known])))
    return summed(candidates, terms)


class Learner:
    """Evaluates samples until every mark is known for all choices that decide it.

    Args:
        evaluate, candidates, places, seed: as :func:`learn_influences` takes them, for marks of any kind.

    Attributes:
        influences: what is known so far, by name of the mark.
        samples: all evaluated samples.
    """

    def __init__(
        self,
        evaluate: Callable[[Sample], Marks],
        candidates: Candidates,
        places: Mapping[str, Place],
        seed: int = 0,
    ) -> None:
        self.influences: dict[str, Influence] = {}
        self.samples: list[Sample] = []
        self._evaluate = evaluate
        self._candidates = candidates
        self._places = places
        self._random = random.Random(seed)
        self._results: list[Marks] = []
        self._checked = 0
        self._new: list[str] = []  # marks that have not yet been compared between earlier samples
        self._paths: dict[str, list[str]] = {label: [] for label in candidates}
        for path, place in places.items():
            for label in {*place.conditions, *place.labels}:
                self._paths[label].append(path)
        for path, place in places.items():  # every submodule has to run once, so that its marks are known
            self._expect(path, place, self._own_labels(place))

    def learn(self, samples: Sequence[Sample] = ()) -> None:
        """Evaluate ``samples`` and further ones until many in a row come out as expected.

        Raises:
            SpaceError: a mark depends on more combinations than :data:`LARGEST_TABLE`; names the labels.
        """
        if not self.samples:
            for sample in changes_of_one(self._candidates, self._places):
                self._try(sample)
        for given in samples:
            self._try(given)
        agreed = 0
        while agreed < AGREEING:
            while unseen := self._sample_with_unseen():
                self._try(unseen)
            agreed = agreed + 1 if self._try(self._complete({})) else 0

    def _try(self, sample: Sample) -> bool:
        """Evaluate ``sample``; return whether all marks are as expected. Learn from those that are not."""
        self._add(sample)
        agrees = True
        while self._new or self._checked < len(self.samples):
            if self._new:  # one at a time: each may need more samples, and these may show more marks
                self._compare(self._new.pop())
                continue
            for name in list(self.influences):
                agrees &= self._agrees(name, self._checked)
            self._checked += 1
        return agrees

    def _add(self, sample: Sample) -> None:
        """Evaluate ``sample`` and note its new marks."""
        result = self._evaluate(sample)
        self.samples.append(sample)
        self._results.append(result)
        for name in result:
            if name not in self.influences:
                place = self._place(name)
                self._expect(name, place, self._own_labels(place))
                self._new.append(name)

    def _own_labels(self, place: Place) -> frozenset[str]:
        """Labels of a place, if few samples show all their combinations; else none, so they are searched."""
        combinations = math.prod(len(self._candidates[label]) for label in place.labels)
        return place.labels if combinations <= SURE else frozenset()

    def _place(self, name: str) -> Place:
        """The place of the mark ``name``."""
        name = name.partition(MARK)[0]
        while name not in self._places:
            name = name.rpartition(".")[0]
        return self._places[name]

    def _expect(self, name: str, place: Place, labels: Iterable[str]) -> None:
        """Note that ``labels`` decide the mark."""
        deciding = tuple(label for label in self._candidates if label in labels)
        check_size(name, deciding, self._candidates)
        self.influences[name] = Influence(place, deciding, lambda number: self._value(name, number))

    def _compare(self, name: str) -> None:
        """Find labels that decide the mark by comparing all samples."""
        for number in range(len(self.samples)):
            if not self._agrees(name, number):
                break  # another label was found, and all samples have been compared

    def _allowed(self, influence: Influence, label: str) -> list[str]:
        """Candidates of ``label`` with which the mark can exist."""
        allowed = influence.place.conditions.get(label)
        return [name for name in self._candidates[label] if allowed is None or name in allowed]

    def _agrees(self, name: str, number: int) -> bool:
        """Whether the mark equals that of an earlier sample with the same choices; if not, learn why."""
        influence, sample = self.influences[name], self.samples[number]
        if not influence.runs(sample):
            return True
        first = influence.seen.setdefault(_key(sample, influence.labels), number)
        if first == number or self._value(name, first) == self._value(name, number):
            return True
        self._expect(name, influence.place, {*influence.labels, self._difference(name, first, number)})
        self._compare(name)
        return False

    def _value(self, name: str, number: int) -> Hashable:
        """A mark in sample ``number``; None if absent."""
        return self._results[number].get(name)

    def _difference(self, name: str, first: int, second: int) -> str:
        """A label that makes the mark differ between two samples, by bisection of their differences.

        Labels of nearby places are tried first.
        """
        near: dict[str, int] = {}
        while True:
            one, other = self.samples[first], self.samples[second]
            differing = [label for label in self._candidates if one[label] != other[label]]
            if len(differing) == 1:
                return differing[0]
            near = near or {label: self._nearness(name, label) for label in self._candidates}
            differing.sort(key=lambda label: -near[label])
            nearest = sum(near[label] == near[differing[0]] for label in differing)
            suspects = differing[: min(nearest, len(differing) // 2)]
            middle = len(self.samples)
            self._add({**one, **{label: other[label] for label in suspects}})
            if self._value(name, middle) == self._value(name, first):
                first = middle
            else:
                second = middle

    def _nearness(self, name: str, label: str) -> int:
        """Length of the path that a mark shares with a place that ``label`` decides, in parts."""
        parts = name.partition(MARK)[0].split(".")
        shared = (
            itertools.takewhile(lambda pair: pair[0] == pair[1], zip(parts, path.split("."), strict=False))
            for path in self._paths[label]
        )
        return max((sum(1 for _ in pairs) for pairs in shared), default=0)

    def _sample_with_unseen(self) -> Sample | None:
        """A sample with combinations that many marks have not been seen with; None if all were seen."""
        chosen: Sample = {}
        for influence, unseen in self._unseen():
            for combination in unseen:
                candidate = dict(zip(influence.labels, combination, strict=True))
                for label in influence.place.conditions:
                    if label not in candidate and label not in chosen:
                        candidate[label] = self._random.choice(self._allowed(influence, label))
                fits = all(chosen.get(label, name) == name for label, name in candidate.items())
                if fits and influence.runs({**chosen, **candidate}):
                    chosen.update(candidate)
                    break
        return self._complete(chosen) if chosen else None

    def _unseen(self) -> list[tuple[Influence, list[Combination]]]:
        """One mark for each place and set of labels, with its unseen combinations; longest list first."""
        alike = {(id(one.place), one.labels): one for one in self.influences.values()}
        missing = []
        for influence in alike.values():
            every = itertools.product(*(self._allowed(influence, label) for label in influence.labels))
            unseen = [combination for combination in every if combination not in influence.seen]
            if unseen:
                missing.append((influence, unseen))
        return sorted(missing, key=lambda item: -len(item[1]))

    def _complete(self, chosen: Sample) -> Sample:
        """``chosen``, with random candidates for the other labels."""
        return {
            label: chosen[label] if label in chosen else self._random.choice(known)
            for label, known in self._candidates.items()
        }


def changes_of_one(candidates: Candidates, places: Mapping[str, Place]) -> list[Sample]:
    """A sample in which much runs, and for each label one that differs only there, as far as possible."""
    base = {}
    for label, known in candidates.items():
        allowing = [place.conditions.get(label, known) for place in places.values()]
        base[label] = max(reversed(known), key=lambda name: sum(name in one for one in allowing))
    found = [base]
    for label, known in candidates.items():
        if len(known) > 1:
            far = known[0] if known.index(base[label]) >= len(known) / 2 else known[-1]
            found.append({**base, label: far})
    return found


def check_size(name: str, labels: Sequence[str], candidates: Candidates) -> None:
    """Raise a SpaceError if the ``labels`` that decide ``name`` have too many combinations."""
    combinations = math.prod(len(candidates[label]) for label in labels)
    if combinations > LARGEST_TABLE:
        raise SpaceError(
            f"the latency of {name.partition(MARK)[0]} depends on {combinations} combinations of "
            f"{', '.join(labels)}; beyond {LARGEST_TABLE} none is priced"
        )


def deciding(influences: Iterable[Influence], candidates: Candidates) -> list[str]:
    """Labels that decide any of ``influences``, in the order of ``candidates``."""
    labels = {label for one in influences for label in {*one.labels, *one.place.conditions}}
    return [label for label in candidates if label in labels]


def positions_of(labels: Iterable[str], candidates: Candidates) -> Positions:
    """Positions of labels among the choices, ascending."""
    return tuple(position for position, label in enumerate(candidates) if label in set(labels))


def summed(candidates: Candidates, terms: Iterable[tuple[Positions, FloatArray]]) -> FactorTable:
    """Make one table of many small factors; factors within the positions of a larger one are added to it."""
    constant, factors = 0.0, dict[Positions, FloatArray]()
    for positions, values in sorted(terms, key=lambda term: -term[1].size):
        if not positions:
            constant += float(values)
            continue
        home = next((known for known in factors if set(positions) <= set(known)), positions)
        if home not in factors:
            factors[home] = np.zeros([len(tuple(candidates.values())[p]) for p in home])
        factors[home] += np.expand_dims(values, tuple(i for i, p in enumerate(home) if p not in positions))
    return FactorTable(candidates, constant, factors)


def _key(sample: Mapping[str, str], labels: Iterable[str]) -> Combination:
    return tuple(sample[label] for label in labels)
