"""Latency by kernel: learn the few choices that decide each size of each kernel, from few networks.

A kernel often depends on more choices than any one of its sizes does: its input channels may depend on two
choices, and its output channels on a third. So each size is learned by itself, which takes a fraction of the
networks. Then the sizes of every combination are put together into a kernel, and all kernels are priced in
one call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..kernels.configuration import FloatArray
from ..kernels.fusion import Kernel
from ..supernet.choices import Candidates
from ..supernet.place import Place
from .influence import (
    MARK,
    Influence,
    Learner,
    Marks,
    Sample,
    changes_of_one,
    check_size,
    deciding,
    place_at,
    positions_of,
    summed,
)
from .pricing import OFFSET, Kernels, Parts
from .table import FactorTable, Positions

#: Prices the kernels of several networks in one call.
Price = Callable[[Sequence[Kernels]], list[Parts]]
#: Fields of a kernel, except the names of its operators, which predictors do not see.
_FIELDS = [field.name for field in fields(Kernel) if field.name != "members"]
#: Name of the mark for the structure of a kernel, which its sizes fill in.
_STRUCTURE = "structure"


class KernelLearner:
    """Learns the kernels of a space under one set of fusion rules.

    Args:
        kernels: returns the kernels of a sample; deterministic.
        candidates: candidates of every label.
        places: place of each submodule, by its path.
        probes: samples that tell kernels apart, and that have to come out right.
        seed: seed of further samples.

    Attributes:
        samples: all samples learned from.

    Raises:
        SpaceError: many choices decide one size; names the labels.
    """

    def __init__(
        self,
        kernels: Callable[[Sample], Kernels],
        candidates: Candidates,
        places: Mapping[str, Place],
        probes: Sequence[Sample],
        seed: int = 0,
    ) -> None:
        known = [kernels(one) for one in (*changes_of_one(candidates, places), *probes)]
        names = _stable_names(known, places)
        self._candidates = candidates
        self._learner = Learner(lambda sample: _marks(kernels(sample), names), candidates, places, seed)
        self._learner.learn(probes)
        self.samples = self._learner.samples

    def learn(self, samples: Sequence[Sample]) -> None:
        """Learn from more samples; raises as the class does."""
        self._learner.learn(samples)

    def table(self, price: Price) -> FactorTable:
        """The latency table of one device.

        Raises:
            SpaceError: many choices decide one kernel; names the labels.
        """
        marks: dict[str, dict[str, Influence]] = {}
        for name, influence in self._learner.influences.items():
            kernel, _, mark = name.partition(MARK)
            if mark:
                marks.setdefault(kernel, {})[mark] = influence
        rows = {name: self._rows(name, of) for name, of in marks.items()}
        made = {
            (name, row): _kernel(row)
            for name, (_, _, listed) in rows.items()
            for row in dict.fromkeys(listed)
            if row[0] is not None
        }
        [parts] = price([{str(number): kernel for number, kernel in enumerate(made.values())}])
        ms = {key: parts.get(str(number), 0.0) for number, key in enumerate(made)}
        terms: list[tuple[Positions, FloatArray]] = [((), np.array(parts.get(OFFSET, 0.0)))]
        for name, (positions, shape, listed) in rows.items():
            values = np.array([ms.get((name, row), 0.0) for row in listed])
            terms.append((positions, values.reshape(shape)))
        return summed(self._candidates, terms)

    def _rows(
        self, name: str, marks: Mapping[str, Influence]
    ) -> tuple[Positions, list[int], list[tuple[Any, ...]]]:
        """Structure and sizes of a kernel, for each combination of the candidates that decide it.

        Returns:
            Positions of the choices, their numbers of candidates, and the rows in index order; the first
            entry of a row is None if the kernel does not exist.
        """
        labels = deciding(marks.values(), self._candidates)
        check_size(name, labels, self._candidates)
        shape = [len(self._candidates[label]) for label in labels]
        samples = {one: one.samples(labels, self._candidates) for one in set(marks.values())}
        listed = [
            [self._learner.value(f"{name}{MARK}{mark}", number) for number in samples[marks[mark]]]
            for mark in (_STRUCTURE, *map(str, range(len(marks) - 1)))
        ]
        return positions_of(labels, self._candidates), shape, list(zip(*listed, strict=True))


def _stable_names(
    probes: Sequence[Kernels], places: Mapping[str, Place]
) -> Callable[[Kernels], list[str]]:
    """Return a function that gives each kernel of a network a name that is the same in every network.

    A kernel takes the path of its first operator. If a layer is left out, later layers may move up and take
    each other's paths. Such a kernel is named by its type within the largest module around it in which each
    type occurs once: all kernels of a module in which one path has several types, or else those of one type
    that are at several paths, none of which is that of a candidate.
    """
    types: dict[str, set[str]] = {}
    several: set[str] = set()
    for kernels in probes:
        within: Counter[tuple[str, str]] = Counter()
        for name, kernel in kernels.items():
            types.setdefault(name, set()).add(kernel.type)
            within.update((path, kernel.type) for path in _around(name))
        several.update(path for (path, _), count in within.items() if count > 1)

    def module_of(name: str) -> str | None:
        return next((path for path in _around(name) if path not in several), None)

    modules = {module_of(name) for name, found in types.items() if len(found) > 1}
    paths: dict[tuple[str | None, str], list[str]] = {}
    for name, found in types.items():
        for kind in found:
            paths.setdefault((module_of(name), kind), []).append(name)
    moving = set()
    for key, at in paths.items():
        conditions = {frozenset(place_at(name, places).conditions.items()) for name in at}
        if len(at) > 1 and len(conditions) == 1:
            moving.add(key)

    def names(kernels: Kernels) -> list[str]:
        found: Counter[str] = Counter()
        named = []
        for name, kernel in kernels.items():
            module = module_of(name)
            if module is not None and (module in modules or (module, kernel.type) in moving):
                name = f"{module}.{kernel.type}"
            found[name] += 1
            named.append(name if found[name] == 1 else f"{name}#{found[name]}")
        return named

    return names


def _around(name: str) -> Iterator[str]:
    """Paths of the modules around an operator, outermost first, without the network itself.

    >>> list(_around("stages.1.conv"))
    ['stages', 'stages.1']
    """
    parts = name.split(".")
    return (".".join(parts[:depth]) for depth in range(1, len(parts)))


def _marks(kernels: Kernels, names: Callable[[Kernels], list[str]]) -> Marks:
    """Structure and sizes of each kernel, under its name."""
    found: dict[str, Hashable] = {}
    for name, kernel in zip(names(kernels), kernels.values(), strict=True):
        name, sizes = name.replace(MARK, "_"), list[Hashable]()
        found[f"{name}{MARK}{_STRUCTURE}"] = _taken_apart([getattr(kernel, f) for f in _FIELDS], sizes)
        found.update({f"{name}{MARK}{number}": size for number, size in enumerate(sizes)})
    return found


def _kernel(row: Sequence[Any]) -> Kernel:
    """Fill a structure with its sizes to make a kernel."""
    values = _put_together(row[0], iter(row[1:]))
    return Kernel(members=[], **dict(zip(_FIELDS, values, strict=True)))


def _taken_apart(value: Any, sizes: list[Hashable]) -> Hashable:
    """The structure of nested containers; their content is appended to ``sizes``."""
    if isinstance(value, Mapping):
        return (dict, *((key, _taken_apart(item, sizes)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple, *(_taken_apart(item, sizes) for item in value))
    sizes.append(value)
    return ()


def _put_together(structure: Any, sizes: Iterator[Any]) -> Any:
    """Inverse of :func:`_taken_apart`.

    >>> value = [{"kernel": (3, 3), "groups": 2}, [(1, 8)]]
    >>> sizes = []
    >>> structure = _taken_apart(value, sizes)
    >>> sizes
    [3, 3, 2, 1, 8]
    >>> _put_together(structure, iter(sizes)) == value
    True
    """
    if not structure:
        return next(sizes)
    kind, *items = structure
    if kind is dict:
        return {key: _put_together(item, sizes) for key, item in items}
    return kind(_put_together(item, sizes) for item in items)
