"""Made-up factor tables, for whatever works on any."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nnmeter_nas.costs.table import FactorTable, Positions


@st.composite
def any_tables(draw: Any, integers: bool = True) -> FactorTable:
    """Up to six positions, up to four in one factor; with integers, many values are equal."""
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)))
    orders = range(1, min(len(sizes), 4) + 1)
    known = [known for order in orders for known in itertools.combinations(range(len(sizes)), order)]
    chosen = draw(st.lists(st.sampled_from(known), unique=True, max_size=8))
    random = np.random.default_rng(draw(st.integers(0, 1000)))

    def numbers(positions: tuple[int, ...]) -> Any:
        shape = [sizes[p] for p in positions]
        return random.integers(-3, 4, shape).astype(float) if integers else random.normal(size=shape)

    factors = {positions: numbers(positions) for positions in chosen}
    return FactorTable.of_sizes(sizes, float(random.integers(-5, 5)), factors)


def far_apart(count: int = 12, size: int = 3) -> FactorTable:
    """Positions of which every two interact."""
    random = np.random.default_rng(0)
    pairs = itertools.combinations(range(count), 2)
    factors = {pair: random.normal(size=(size, size)) for pair in pairs}
    return FactorTable.of_sizes((size,) * count, 0.0, factors)


def random_table(sizes: tuple[int, ...], factors: list[Positions], seed: int) -> FactorTable:
    """A table of these factors, with normal values."""
    random = np.random.default_rng(seed)
    return FactorTable.of_sizes(sizes, 5.0, {p: random.normal(size=[sizes[i] for i in p]) for p in factors})


def with_header(table: FactorTable, **facts: Any) -> FactorTable:
    """``table`` that says something else of itself."""
    return dataclasses.replace(table, header=dataclasses.replace(table.header, **facts))
