"""Terms as a walk: positions are decided one after another, and each decision adds what is then known.

After some decisions, all that matters of them is the candidates of *open* positions: those that share a term
with a position still to come. Partial architectures with the same candidates there are in the same state, and
what is said of a state holds for all of them. Few states do where few positions are open at once, which is so
wherever choices interact with their neighbours; then minima, rankings and counts take a loop over the stages.
This is elimination of variables along a path (Dechter, Bucket Elimination, 1999), as Viterbi decoding is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..costs.terms import IntArray, Positions, Terms
from ..kernels.configuration import FloatArray


@dataclass(frozen=True, eq=False)
class Stage:
    """The decision of one position. The first stage has one state, and the last leads to one.

    Attributes:
        position: the one decided.
        costs: ``[states, candidates]``: what a candidate adds to the sum in a state.
        successors: ``[states, candidates]``: the state of the next stage that it leads to.
    """

    position: int
    costs: FloatArray
    successors: IntArray


def stages(terms: Terms) -> list[Stage]:
    """The stages of all positions; their costs and the constant add up to the sum.

    >>> first, second = stages(Terms((2, 2), 0.0, {(0,): np.array([1.0, 2.0]), (0, 1): np.eye(2)}))
    >>> first.costs, first.successors
    (array([[1., 2.]]), array([[0, 1]]))
    >>> second.costs, second.successors
    (array([[1., 0.],
           [0., 1.]]), array([[0, 0],
           [0, 0]]))
    """
    order = _order(terms)
    number = {position: i for i, position in enumerate(order)}
    open_before = [*_open_positions(terms, order), ()]
    due: dict[int, list[Positions]] = {position: [] for position in order}
    for positions in terms.factors:
        due[max(positions, key=number.__getitem__)].append(positions)
    found = []
    for position, (before, after) in zip(order, itertools.pairwise(open_before), strict=True):
        axes = (*before, position)
        shape = tuple(terms.sizes[p] for p in axes)
        chosen = dict(zip(axes, np.unravel_index(np.arange(math.prod(shape)), shape), strict=True))
        costs = np.zeros(math.prod(shape))
        for positions in due[position]:
            costs += terms.factors[positions][tuple(chosen[p] for p in positions)]
        successors = np.zeros(costs.shape, dtype=np.int64)
        for p in after:
            successors = successors * terms.sizes[p] + chosen[p]
        table = (-1, terms.sizes[position])
        found.append(Stage(position, costs.reshape(table), successors.reshape(table)))
    return found


def least_to_come(found: Sequence[Stage]) -> list[FloatArray]:
    """The least that a stage and all after it can add, ``[states]`` for each; one more, 0, after the last."""
    ahead = [np.zeros(1)]
    for stage in reversed(found):
        ahead.append((stage.costs + ahead[-1][stage.successors]).min(axis=1))
    return ahead[::-1]


def transitions(terms: Terms) -> int:
    """How many pairs of a state and a candidate there are in :func:`stages`, in all."""
    return sum(_transitions(terms, _order(terms)))


def widest_states(terms: Terms) -> int:
    """The most states that a stage of :func:`stages` has."""
    open_before = _open_positions(terms, _order(terms))
    return max(math.prod(terms.sizes[p] for p in known) for known in open_before)


def narrowed(terms: Terms, most: int) -> tuple[Terms, float]:
    """Terms of ``most`` :func:`transitions` or fewer, nowhere above ``terms``, and how far below they may be.

    A term that keeps positions open gives way to its minimum over a position, that of least loss first.

    >>> terms = Terms((2, 2), 0.0, {(0, 1): np.array([[0.0, 1.0], [5.0, 7.0]])})
    >>> lower, loss = narrowed(terms, 5)
    >>> lower.factors, loss
    ({(0,): array([0., 5.])}, 2.0)
    """
    loss = 0.0
    while sum(counts := _transitions(terms, order := _order(terms))) > most:
        open_before = _open_positions(terms, order)
        with_open = [i for i, known in enumerate(open_before) if known]
        if not with_open:
            break  # there is no narrower form
        widest = max(with_open, key=counts.__getitem__)
        met = {order[widest], *open_before[widest]}
        options = [
            (float(np.ptp(array, axis=positions.index(p)).max()), positions, p)
            for positions, array in terms.factors.items()
            if len(positions) > 1
            for p in positions
            if p in met
        ]
        lost, positions, p = min(options)
        factors = dict(terms.factors)
        lower = factors.pop(positions).min(axis=positions.index(p))
        rest = tuple(q for q in positions if q != p)
        factors[rest] = factors[rest] + lower if rest in factors else lower
        terms, loss = Terms(terms.sizes, terms.constant, factors), loss + lost
    return terms, loss


def _transitions(terms: Terms, order: Sequence[int]) -> list[int]:
    """Pairs of a state and a candidate, by stage."""
    return [
        math.prod(terms.sizes[p] for p in (*known, position))
        for position, known in zip(order, _open_positions(terms, order), strict=True)
    ]


def _open_positions(terms: Terms, order: Sequence[int]) -> list[Positions]:
    """Positions decided before each stage that it or a later one still meets in a term."""
    number = {position: i for i, position in enumerate(order)}
    last = {position: i for position, i in number.items()}
    for positions in terms.factors:
        end = max(number[p] for p in positions)
        last.update((p, max(last[p], end)) for p in positions)
    return [tuple(sorted(p for p in order[:i] if last[p] >= i)) for i in range(len(order))]


def _order(terms: Terms) -> list[int]:
    """The order to decide positions in: their own, unless a greedy one keeps fewer open."""
    own = list(range(len(terms.sizes)))
    if all(len(positions) == 1 for positions in terms.factors):
        return own
    return min((own, _greedy_order(terms)), key=lambda order: sum(_transitions(terms, order)))


def _greedy_order(terms: Terms) -> list[int]:
    """An order in which term after term is decided, the one that leaves the fewest states open next."""
    beside: list[set[int]] = [set() for _ in terms.sizes]
    for positions in terms.factors:
        for p in positions:
            beside[p].update(positions)
    order: list[int] = []
    left = set(range(len(terms.sizes)))
    known: set[int] = set()  # decided, and next to what is left

    def states_after(decided: Positions) -> int:
        still = left.difference(decided)
        return math.prod(terms.sizes[p] for p in known.union(decided) if beside[p] & still)

    while undecided := {tuple(sorted(left.intersection(positions))) for positions in terms.factors} - {()}:
        decided = min(sorted(undecided), key=states_after)
        order.extend(decided)
        left.difference_update(decided)
        known = {p for p in known.union(decided) if beside[p] & left}
    return [*order, *sorted(left)]
