"""Stages: split a factor table into decisions, one for each choice.

Choices are decided one after another, and each decision adds the factors that are then complete. Later
decisions depend only on *open* positions: decided ones that share a factor with an undecided one. So all
partial architectures with the same candidates at the open positions are in one state. If choices interact
only with their neighbours, there are few states, and a loop over the stages finds minima, rankings and
counts. This is variable elimination (Dechter, Bucket Elimination, 1999), like Viterbi decoding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..costs.table import FactorTable, IntArray, Positions
from ..kernels.configuration import FloatArray


@dataclass(frozen=True, eq=False)
class Stage:
    """The decision of one position. The first stage has one state, and the last leads to a single one.

    Attributes:
        position: the position decided.
        costs: ``[states, candidates]``: cost of a candidate in a state.
        successors: ``[states, candidates]``: state of the next stage after a candidate.
    """

    position: int
    costs: FloatArray
    successors: IntArray


def stages(table: FactorTable) -> list[Stage]:
    """The stages of all positions; their costs and the constant add up to the sum.

    >>> factors = {(0,): np.array([1.0, 2.0]), (0, 1): np.eye(2)}
    >>> first, second = stages(FactorTable.of_sizes((2, 2), 0.0, factors))
    >>> first.costs, first.successors
    (array([[1., 2.]]), array([[0, 1]]))
    >>> second.costs, second.successors
    (array([[1., 0.],
           [0., 1.]]), array([[0, 0],
           [0, 0]]))
    """
    order = _order(table)
    number = {position: i for i, position in enumerate(order)}
    open_before = [*_open_positions(table, order), ()]
    due: dict[int, list[Positions]] = {position: [] for position in order}
    for positions in table.factors:
        due[max(positions, key=number.__getitem__)].append(positions)
    found = []
    for position, (before, after) in zip(order, itertools.pairwise(open_before), strict=True):
        axes = (*before, position)
        shape = tuple(table.sizes[p] for p in axes)
        chosen = dict(zip(axes, np.unravel_index(np.arange(math.prod(shape)), shape), strict=True))
        costs = np.zeros(math.prod(shape))
        for positions in due[position]:
            costs += table.factors[positions][tuple(chosen[p] for p in positions)]
        successors = np.zeros(costs.shape, dtype=np.int64)
        for p in after:
            successors = successors * table.sizes[p] + chosen[p]
        by_state = (-1, table.sizes[position])
        found.append(Stage(position, costs.reshape(by_state), successors.reshape(by_state)))
    return found


def least_to_come(found: Sequence[Stage]) -> list[FloatArray]:
    """Least cost of a stage and all later ones, ``[states]`` for each; then a 0 for after the last."""
    ahead = [np.zeros(1)]
    for stage in reversed(found):
        ahead.append((stage.costs + ahead[-1][stage.successors]).min(axis=1))
    return ahead[::-1]


def transitions(table: FactorTable) -> int:
    """Number of pairs of a state and a candidate in all :func:`stages` together."""
    return sum(_transitions(table, _order(table)))


def widest_states(table: FactorTable) -> int:
    """Largest number of states of a stage in :func:`stages`."""
    open_before = _open_positions(table, _order(table))
    return max(math.prod(table.sizes[p] for p in known) for known in open_before)


def narrowed(table: FactorTable, most: int) -> tuple[FactorTable, float]:
    """A table of at most ``most`` :func:`transitions` that is nowhere above ``table``, and how far below.

    Replaces factors that keep positions open by their minimum over one position, the least loss first.

    >>> table = FactorTable.of_sizes((2, 2), 0.0, {(0, 1): np.array([[0.0, 1.0], [5.0, 7.0]])})
    >>> lower, loss = narrowed(table, 5)
    >>> lower.factors, loss
    ({(0,): array([0., 5.])}, 2.0)
    """
    loss = 0.0
    while sum(counts := _transitions(table, order := _order(table))) > most:
        open_before = _open_positions(table, order)
        with_open = [i for i, known in enumerate(open_before) if known]
        if not with_open:
            break  # the table cannot be narrowed further
        widest = max(with_open, key=counts.__getitem__)
        met = {order[widest], *open_before[widest]}
        options = [
            (float(np.ptp(array, axis=positions.index(p)).max()), positions, p)
            for positions, array in table.factors.items()
            if len(positions) > 1
            for p in positions
            if p in met
        ]
        lost, positions, p = min(options)
        factors = dict(table.factors)
        lower = factors.pop(positions).min(axis=positions.index(p))
        rest = tuple(q for q in positions if q != p)
        factors[rest] = factors[rest] + lower if rest in factors else lower
        table, loss = replace(table, factors=factors), loss + lost
    return table, loss


def _transitions(table: FactorTable, order: Sequence[int]) -> list[int]:
    """Number of pairs of a state and a candidate, by stage."""
    return [
        math.prod(table.sizes[p] for p in (*known, position))
        for position, known in zip(order, _open_positions(table, order), strict=True)
    ]


def _open_positions(table: FactorTable, order: Sequence[int]) -> list[Positions]:
    """For each stage, the earlier positions that share a factor with it or a later one."""
    number = {position: i for i, position in enumerate(order)}
    last = {position: i for position, i in number.items()}
    for positions in table.factors:
        end = max(number[p] for p in positions)
        last.update((p, max(last[p], end)) for p in positions)
    return [tuple(sorted(p for p in order[:i] if last[p] >= i)) for i in range(len(order))]


def _order(table: FactorTable) -> list[int]:
    """Order in which to decide positions: their own order, unless a greedy one keeps fewer open."""
    own = list(range(len(table.sizes)))
    if all(len(positions) == 1 for positions in table.factors):
        return own
    return min((own, _greedy_order(table)), key=lambda order: sum(_transitions(table, order)))


def _greedy_order(table: FactorTable) -> list[int]:
    """An order that decides one factor after another, always the one that leaves the fewest states."""
    beside: list[set[int]] = [set() for _ in table.sizes]
    for positions in table.factors:
        for p in positions:
            beside[p].update(positions)
    order: list[int] = []
    left = set(range(len(table.sizes)))
    known: set[int] = set()  # decided positions that share a factor with one not decided yet

    def states_after(decided: Positions) -> int:
        still = left.difference(decided)
        return math.prod(table.sizes[p] for p in known.union(decided) if beside[p] & still)

    while undecided := {tuple(sorted(left.intersection(positions))) for positions in table.factors} - {()}:
        decided = min(sorted(undecided), key=states_after)
        order.extend(decided)
        left.difference_update(decided)
        known = {p for p in known.union(decided) if beside[p] & left}
    return [*order, *sorted(left)]
