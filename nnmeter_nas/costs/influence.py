"""Learn which choices decide each of many marks of an architecture, from few evaluated samples.

A mark is anything that a sample shows: the latency of one of its kernels, or the channels that the kernel
reads. Each depends on few choices. Changing one choice at a time shows most of them, for all marks at once. A
later sample that contradicts what is known reveals a missing choice: halving the difference between two
samples finds it in a logarithmic number of evaluations. Then samples are made until each mark has been seen
for every combination of the choices that decide it. Nothing needs to be known of fusion rules or of how
shapes propagate.
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
#: Candidates under some labels.
Combination = tuple[str, ...]
#: What a sample shows, by name; a mark that it does not have is absent.
Marks = Mapping[str, Hashable]

#: Combinations of candidates that one mark, or one kernel, may depend on.
LARGEST_TABLE = 4096
#: Combinations of candidates that a mark is seen with in any case, if its place says what may decide it.
SURE = 100
#: Random samples in a row that must be as expected at the end.
AGREEING = 48
#: In names of marks, behind the name of the operator or kernel that shows it.
MARK = ":"


@dataclass
class Influence:
    """What decides a mark.

    Attributes:
        place: decides whether the mark is there at all.
        labels: decide its value where it is there.
        seen: candidates under ``labels`` -> number of the first sample in which it was there with these.
        values: of the mark, by the number of the sample; None where it is absent.
    """

    place: Place
    labels: tuple[str, ...]
    values: Callable[[int], Hashable]
    seen: dict[Combination, int] = field(default_factory=dict)

    def runs(self, sample: Mapping[str, str]) -> bool:
        """Whether the conditions of the place are met."""
        return all(sample[label] in allowed for label, allowed in self.place.conditions.items())

    def value(self, sample: Mapping[str, str]) -> Hashable:
        """The mark in a sample, of which only the labels that decide it are looked at; None if absent."""
        return self.values(self.seen[_key(sample, self.labels)]) if self.runs(sample) else None


def learn_influences(
    evaluate: Callable[[Sample], Mapping[str, float]],
    candidates: Candidates,
    places: Mapping[str, Place],
    seed: int = 0,
    samples: Sequence[Sample] = (),
) -> FactorTable:
    """The table of what few choices decide; its value for a sample is the sum of the sample's marks.

    Args:
        evaluate: gives the numbers that a sample shows, such as the latency of each kernel; deterministic.
        candidates: of every label.
        places: where each submodule stands, by its path; the name of a mark is such a path, or begins with
            one.
        seed: of the samples.
        samples: some that have to be right as well.

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
    """Evaluates samples until every mark is known for all that decides it.

    Args:
        evaluate, candidates, places, seed: as :func:`learn_influences` takes them, for marks of any kind.

    Attributes:
        influences: by the name of the mark; what is known so far.
        samples: all that were evaluated.
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
        self._new: list[str] = []  # marks that earlier samples have not been compared for
        self._paths: dict[str, list[str]] = {label: [] for label in candidates}
        for path, place in places.items():
            for label in {*place.conditions, *place.labels}:
                self._paths[label].append(path)
        for path, place in places.items():  # every submodule is to run once, for its marks to be known
            self._expect(path, place, self._own_labels(place))

    def learn(self, samples: Sequence[Sample] = ()) -> None:
        """Evaluate samples, those given too, until what they show is as expected again and again.

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
        """Evaluate ``sample``; whether all marks are as expected. Learns why where they are not."""
        self._add(sample)
        agrees = True
        while self._new or self._checked < len(self.samples):
            if self._new:  # one after another, as each may ask for more samples, and these show more marks
                self._compare(self._new.pop())
                continue
            for name in list(self.influences):
                agrees &= self._agrees(name, self._checked)
            self._checked += 1
        return agrees

    def _add(self, sample: Sample) -> None:
        """Evaluate ``sample`` and note the marks that are new."""
        result = self._evaluate(sample)
        self.samples.append(sample)
        self._results.append(result)
        for name in result:
            if name not in self.influences:
                place = self._place(name)
                self._expect(name, place, self._own_labels(place))
                self._new.append(name)

    def _own_labels(self, place: Place) -> frozenset[str]:
        """Labels of a place, if few samples show all of their combinations; else they are to be found."""
        combinations = math.prod(len(self._candidates[label]) for label in place.labels)
        return place.labels if combinations <= SURE else frozenset()

    def _place(self, name: str) -> Place:
        """The place of the mark of that name."""
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
        """Look what all samples tell of the labels that decide the mark."""
        for number in range(len(self.samples)):
            if not self._agrees(name, number):
                break  # another label was found, and everything looked at

    def _allowed(self, influence: Influence, label: str) -> list[str]:
        """Candidates of ``label`` with which the mark can be there."""
        allowed = influence.place.conditions.get(label)
        return [name for name in self._candidates[label] if allowed is None or name in allowed]

    def _agrees(self, name: str, number: int) -> bool:
        """Whether the mark is in a sample as in an earlier one that is like it; learns why it is not."""
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
        """A mark in sample ``number``; None where it has none."""
        return self._results[number].get(name)

    def _difference(self, name: str, first: int, second: int) -> str:
        """A label that makes the mark differ between two samples, by halving what they differ in.

        Labels of places nearby are suspected first.
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
        """How many parts of its path a mark shares with a place that ``label`` decides."""
        parts = name.partition(MARK)[0].split(".")
        shared = (
            itertools.takewhile(lambda pair: pair[0] == pair[1], zip(parts, path.split("."), strict=False))
            for path in self._paths[label]
        )
        return max((sum(1 for _ in pairs) for pairs in shared), default=0)

    def _sample_with_unseen(self) -> Sample | None:
        """A sample with a combination not seen yet, for many marks at once; None if all are seen."""
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
        """One mark for each place and set of labels, with its combinations not seen yet; most first."""
        alike = {(id(one.place), one.labels): one for one in self.influences.values()}
        missing = []
        for influence in alike.values():
            every = itertools.product(*(self._allowed(influence, label) for label in influence.labels))
            unseen = [combination for combination in every if combination not in influence.seen]
            if unseen:
                missing.append((influence, unseen))
        return sorted(missing, key=lambda item: -len(item[1]))

    def _complete(self, chosen: Sample) -> Sample:
        """``chosen`` with random candidates under the other labels."""
        return {
            label: chosen[label] if label in chosen else self._random.choice(known)
            for label, known in self._candidates.items()
        }


def changes_of_one(candidates: Candidates, places: Mapping[str, Place]) -> list[Sample]:
    """A sample in which much runs, and for each label one that differs there, as far as can be."""
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
    """Raise a SpaceError if ``labels``, which decide what ``name`` names, have too many combinations."""
    combinations = math.prod(len(candidates[label]) for label in labels)
    if combinations > LARGEST_TABLE:
        raise SpaceError(
            f"the latency of {name.partition(MARK)[0]} depends on {combinations} combinations of "
            f"{', '.join(labels)}; beyond {LARGEST_TABLE} none is priced"
        )


def deciding(influences: Iterable[Influence], candidates: Candidates) -> list[str]:
    """Labels that decide some marks, in the order of the candidates."""
    labels = {label for one in influences for label in {*one.labels, *one.place.conditions}}
    return [label for label in candidates if label in labels]


def positions_of(labels: Iterable[str], candidates: Candidates) -> Positions:
    """Where labels stand among the choices, ascending."""
    return tuple(position for position, label in enumerate(candidates) if label in set(labels))


def summed(candidates: Candidates, terms: Iterable[tuple[Positions, FloatArray]]) -> FactorTable:
    """The table of many small factors; one whose positions a larger one has is added to that."""
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
