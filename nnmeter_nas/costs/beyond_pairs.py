"""Measures that are no sum over pairs of choices: by what decides each kernel, or a list."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import SpaceError
from ..kernels.configuration import FloatArray
from ..supernet.choices import architecture_at
from ..supernet.influence import InfluenceTable, Place, Sample, learn_influences
from ..supernet.space import Space
from .pricing import Indices, Parts, Pricing
from .probing import is_exact
from .terms import Positions, Terms

#: Architectures that a space may have to be listed.
LARGEST_LIST = 20_000
#: Random architectures that what is learned is tested on, at least.
_PROBES = 48
#: Architectures at most that are learned from, of those whose sum is wrong.
_LEARNED_AT_ONCE = 4


def influence_terms(pricing: Pricing, columns: Sequence[int]) -> list[Terms | None]:
    """Measures by the few choices that decide each of their kernels.

    Args:
        pricing: gives the values.
        columns: which of its measures.

    Returns:
        One for each of ``columns``; None where many choices decide one kernel, or the space does not say
        where its operators stand.
    """
    if pricing.space.places is None:
        return [None] * len(columns)
    seen: dict[Indices, tuple[Parts, ...]] = {}

    def parts(row: Indices) -> tuple[Parts, ...]:
        if row not in seen:
            [seen[row]] = pricing.parts([row])
        return seen[row]

    sizes = [len(known) for known in pricing.space.candidates.values()]
    pricing.values(np.random.default_rng(0).integers(sizes, size=(_PROBES, len(sizes))))
    return [_influences(pricing, pricing.space.places, parts, column) for column in columns]


def _influences(
    pricing: Pricing,
    places: Mapping[str, Place],
    parts: Callable[[Indices], Sequence[Parts]],
    column: int,
) -> Terms | None:
    """A measure by the choices that decide each kernel, if these are few everywhere.

    Learning may miss what only rare choices bring about. So all that is known has to be right, and what is
    not is learned from, too.
    """
    space = pricing.space
    index = {label: {name: i for i, name in enumerate(c)} for label, c in space.candidates.items()}

    def evaluate(sample: Sample) -> Parts:
        return parts(tuple(index[label][str(sample[label])] for label in index))[column]

    samples: list[Sample] = []
    while True:
        try:
            tables = learn_influences(evaluate, space.candidates, places, samples=samples)
        except SpaceError:
            return None
        terms = _sum_of(tables, space)
        rows, values = pricing.known()
        right = is_exact(terms, rows, values[:, column])
        if right.all():
            return terms
        wrong = rows[~right][:_LEARNED_AT_ONCE].tolist()
        samples += [{**architecture_at(row, space.candidates)} for row in wrong]


def _sum_of(tables: Sequence[InfluenceTable], space: Space) -> Terms:
    """What ``tables`` sum up to, over positions."""
    position = {label: p for p, label in enumerate(space.candidates)}
    sizes = tuple(map(len, space.candidates.values()))
    constant, factors = 0.0, dict[Positions, FloatArray]()
    for table in tables:
        positions = tuple(position[label] for label in table.labels)
        # Their entries are in the order of the product of the candidates.
        values = np.array(list(table.latencies.values())).reshape([sizes[p] for p in positions])
        if positions:
            factors[positions] = factors.get(positions, 0.0) + values
        else:
            constant += float(values)
    return Terms(sizes, constant, factors)


def listed_terms(pricing: Pricing, columns: Sequence[int]) -> list[Terms | None]:
    """Measures as lists of all architectures; None if these are too many. See :func:`influence_terms`."""
    sizes = tuple(map(len, pricing.space.candidates.values()))
    if math.prod(sizes) > LARGEST_LIST:
        return [None] * len(columns)
    rows = np.array(list(itertools.product(*map(range, sizes))), dtype=np.intp)
    values, everything = pricing.values(rows), tuple(range(len(sizes)))
    return [Terms(sizes, 0.0, {everything: values[:, column].reshape(sizes)}) for column in columns]
