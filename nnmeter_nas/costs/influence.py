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
#: Label -> the candidates that it must have one of.
Conditions = Mapping[str, frozenset[Hashable]]
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


@dataclass(eq=False)
class Influence:
    """Choices that decide marks, and the samples that show these marks.

    Attributes:
        conditions: label -> the candidates with which the marks can exist.
        labels: decide the values of the marks if they exist.
        marks: names of the marks; the values mean nothing.
        seen: candidates of ``labels`` -> number of the first sample that meets the conditions with these.
        firsts: by number of the sample, what ``seen`` has for it; None if it does not meet the conditions.
    """

    conditions: Conditions
    labels: tuple[str, ...]
    marks: dict[str, None] = field(default_factory=dict)
    seen: dict[Combination, int] = field(default_factory=dict)
    firsts: list[int | None] = field(default_factory=list)

    def runs(self, sample: Mapping[str, str]) -> bool:
        """Whether the conditions are met."""
        return all(sample[label] in allowed for label, allowed in self.conditions.items())

    def samples(self, labels: Sequence[str], candidates: Candidates) -> list[int | None]:
        """Numbers of the samples that show the marks, for each combination of the candidates of ``labels``.

        Args:
            labels: at least those that decide the marks.
            candidates: candidates of every label.

        Returns:
            The numbers in index order; None where the marks are absent.
        """
        own = deciding([self], candidates)
        shape = [len(candidates[label]) for label in labels]
        found = np.empty([n if label in own else 1 for label, n in zip(labels, shape, strict=True)], object)
        for index in np.ndindex(found.shape):
            sample = {label: candidates[label][i] for label, i in zip(labels, index, strict=True)}
            found[index] = self.seen[_key(sample, self.labels)] if self.runs(sample) else None
        return list(np.broadcast_to(found, shape).ravel().tolist())

    def note(self, samples: Sequence[Sample]) -> None:
        """Note those of ``samples`` that are new."""
        for number, sample in enumerate(samples[len(self.firsts) :], len(self.firsts)):
            first = self.seen.setdefault(_key(sample, self.labels), number) if self.runs(sample) else None
            self.firsts.append(first)


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
    for name, influence in learner.influences.items():
        labels = deciding([influence], candidates)
        shape = [len(candidates[label]) for label in labels]
        found: list[Any] = [learner.value(name, n) or 0.0 for n in influence.samples(labels, candidates)]
        values = np.array(found, dtype=np.float64)
        terms.append((positions_of(labels, candidates), values.reshape(shape)))
    return summed(candidates, terms)


class Learner:
    """Evaluates samples until every mark is known for all choices that decide it.

    Args:
        evaluate, candidates, places, seed: as :func:`learn_influences` takes them, for marks of any kind.

    Attributes:
        influences: what decides each mark, as far as known; marks that the same choices decide share it.
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
        self._shared: dict[Hashable, Influence] = {}  # by conditions and labels
        self._steps: dict[tuple[int, int], str] = {}  # samples that differ in this label alone
        self._paths: dict[str, list[str]] = {label: [] for label in candidates}
        for path, place in places.items():
            for label in {*place.conditions, *place.labels}:
                self._paths[label].append(path)
        for path in places:  # every submodule has to run once, so that its marks are known
            self._expect_at_place(path)

    def value(self, name: str, number: int | None) -> Hashable:
        """A mark in a sample, by its number; None if the mark is absent, or if ``number`` is None."""
        return None if number is None else self._results[number].get(name)

    def learn(self, samples: Sequence[Sample] = ()) -> None:
        """Evaluate ``samples`` and further ones until many in a row come out as expected.

        Raises:
            SpaceError: a mark depends on more combinations than :data:`LARGEST_TABLE`; names the labels.
        """
        if not self.samples:
            for sample in changes_of_one(self._candidates, self._places):
                self._try(sample)
        waiting, agreed = list(samples), 0
        while waiting or agreed < AGREEING:
            while unseen := self._sample_with_unseen():
                self._try(unseen)
            agreed = agreed + 1 if self._try(waiting.pop(0) if waiting else self._complete({})) else 0

    def _try(self, sample: Sample) -> bool:
        """Evaluate ``sample``; return whether all marks are as expected. Learn from those that are not."""
        self._add(sample)
        agrees = True
        while self._new or self._checked < len(self.samples):
            if self._new:  # one at a time: each may need more samples, and these may show more marks
                self._compare(self._new.pop())
                continue
            for influence in list(self._shared.values()):
                influence.note(self.samples)
                for name in self._unlike(influence, influence.marks, self._checked):
                    agrees = False
                    self._compare(name)
            self._checked += 1
        return agrees

    def _add(self, sample: Sample) -> None:
        """Evaluate ``sample`` and note its new marks."""
        result = self._evaluate(sample)
        self.samples.append(sample)
        self._results.append(result)
        for name in result:
            if name not in self.influences:
                self._expect_at_place(name)
                self._new.append(name)

    def _expect_at_place(self, name: str) -> None:
        """Note what the place of the mark tells: its conditions, and its labels if they are few.

        If few samples do not show all combinations of the labels, those that decide the mark are searched.
        """
        place = place_at(name.partition(MARK)[0], self._places)
        combinations = math.prod(
            len(allowed_candidates(label, place.conditions, self._candidates)) for label in place.labels
        )
        self._expect(name, place.conditions, place.labels if combinations <= SURE else ())

    def _expect(self, name: str, conditions: Conditions, labels: Iterable[str]) -> None:
        """Note that ``labels`` decide the mark, where the ``conditions`` are met."""
        deciding = tuple(label for label in self._candidates if label in labels)
        check_size(name, deciding, self._candidates)
        if name in self.influences:
            del self.influences[name].marks[name]
        key = frozenset(conditions.items()), deciding
        influence = self._shared.setdefault(key, Influence(conditions, deciding))
        influence.marks[name] = None
        self.influences[name] = influence

    def _unlike(self, influence: Influence, names: Iterable[str], number: int) -> list[str]:
        """Those marks that sample ``number`` has otherwise than the first one with the same choices."""
        first, result = influence.firsts[number], self._results[number]
        if first == number:
            return []
        expected: Marks = {} if first is None else self._results[first]
        return [name for name in names if result.get(name) != expected.get(name)]

    def _compare(self, name: str) -> None:
        """Find what decides the mark by comparing all samples."""
        number = 0
        while number < len(self.samples):
            influence = self.influences[name]
            influence.note(self.samples)
            if not self._unlike(influence, [name], number):
                number += 1
                continue
            first = influence.firsts[number]
            if first is None:  # the place is wrong about its conditions
                self._expect(name, {}, {*influence.labels, *influence.conditions})
            else:
                label = self._difference(name, first, number)
                self._expect(name, influence.conditions, {*influence.labels, label})
            number = 0

    def _difference(self, name: str, first: int, second: int) -> str:
        """A label that makes the mark differ between two samples, by bisection of their differences.

        Labels of nearby places are tried first. Marks often change together, so what was found for another
        mark is looked at before.
        """
        influence = self.influences[name]
        for (before, after), label in self._steps.items():
            both_run = None not in (influence.firsts[before], influence.firsts[after])
            differ = self.value(name, before) != self.value(name, after)
            if label not in influence.labels and both_run and differ:
                return label
        near: dict[str, int] = {}
        while True:
            one, other = self.samples[first], self.samples[second]
            differing = [label for label in self._candidates if one[label] != other[label]]
            if len(differing) == 1:
                self._steps[first, second] = differing[0]
                return differing[0]
            near = near or {label: self._nearness(name, label) for label in self._candidates}
            differing.sort(key=lambda label: -near[label])
            nearest = sum(near[label] == near[differing[0]] for label in differing)
            suspects = differing[: min(nearest, len(differing) // 2)]
            middle = len(self.samples)
            self._add({**one, **{label: other[label] for label in suspects}})
            if self.value(name, middle) == self.value(name, first):
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
                for label, allowed in influence.conditions.items():
                    if label not in candidate and label not in chosen:
                        candidate[label] = self._random.choice(
                            [name for name in self._candidates[label] if name in allowed]
                        )
                fits = all(chosen.get(label, name) == name for label, name in candidate.items())
                if fits and influence.runs({**chosen, **candidate}):
                    chosen.update(candidate)
                    break
        return self._complete(chosen) if chosen else None

    def _unseen(self) -> list[tuple[Influence, list[Combination]]]:
        """What decides marks, with its combinations that were not seen; longest list first."""
        missing = []
        for influence in self._shared.values():
            influence.note(self.samples)
            known = [
                allowed_candidates(label, influence.conditions, self._candidates)
                for label in influence.labels
            ]
            if influence.marks and len(influence.seen) < math.prod(map(len, known)):
                every = itertools.product(*known)
                missing.append((influence, [one for one in every if one not in influence.seen]))
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


def place_at(path: str, places: Mapping[str, Place]) -> Place:
    """Place of the innermost submodule at or around ``path``."""
    while path not in places:
        path = path.rpartition(".")[0]
    return places[path]


def allowed_candidates(label: str, conditions: Conditions, candidates: Candidates) -> list[str]:
    """Candidates of ``label`` that meet the conditions."""
    allowed = conditions.get(label)
    return [name for name in candidates[label] if allowed is None or name in allowed]


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
    labels = {label for one in influences for label in {*one.labels, *one.conditions}}
    return [label for label in candidates if label in labels]


def positions_of(labels: Iterable[str], candidates: Candidates) -> Positions:
    """Positions of labels among the choices, ascending."""
    return tuple(position for position, label in enumerate(candidates) if label in set(labels))


def summed(candidates: Candidates, terms: Iterable[tuple[Positions, FloatArray]]) -> FactorTable:
    """Make one table of many small factors; factors within the positions of a larger one are added to it.

    A choice of one candidate decides nothing, whatever a factor says of it. What one choice alone decides
    stays a factor of its own, so that the table tells what this choice causes.
    """
    constant, factors = 0.0, dict[Positions, FloatArray]()
    sizes = [len(known) for known in candidates.values()]
    for all_positions, all_values in sorted(terms, key=lambda term: -term[1].size):
        positions = tuple(p for p in all_positions if sizes[p] > 1)
        values = all_values.reshape([sizes[p] for p in positions])
        if not positions:
            constant += float(values)
            continue
        within = (known for known in factors if len(positions) > 1 and set(positions) <= set(known))
        home = next(within, positions)
        if home not in factors:
            factors[home] = np.zeros([sizes[p] for p in home])
        factors[home] += np.expand_dims(values, tuple(i for i, p in enumerate(home) if p not in positions))
    return FactorTable(candidates, constant, factors)


def _key(sample: Mapping[str, str], labels: Iterable[str]) -> Combination:
    return tuple(sample[label] for label in labels)
