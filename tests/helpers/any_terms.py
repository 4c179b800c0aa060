"""Random terms, for tests of code that accepts any terms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nnmeter_nas.costs.terms import Positions, Terms


@st.composite
def any_terms(draw: Any, integers: bool = True) -> Terms:
    """Terms over up to six positions, each over up to four of them. With integers, many values are equal."""
    sizes = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)))
    orders = range(1, min(len(sizes), 4) + 1)
    known = [known for order in orders for known in itertools.combinations(range(len(sizes)), order)]
    chosen = draw(st.lists(st.sampled_from(known), unique=True, max_size=8))
    random = np.random.default_rng(draw(st.integers(0, 1000)))

    def numbers(positions: tuple[int, ...]) -> Any:
        shape = [sizes[p] for p in positions]
        return random.integers(-3, 4, shape).astype(float) if integers else random.normal(size=shape)

    factors = {positions: numbers(positions) for positions in chosen}
    return Terms(sizes, float(random.integers(-5, 5)), factors)


def far_apart(count: int = 12, size: int = 3) -> Terms:
    """Positions that all interact with each other in pairs."""
    random = np.random.default_rng(0)
    pairs = itertools.combinations(range(count), 2)
    return Terms((size,) * count, 0.0, {pair: random.normal(size=(size, size)) for pair in pairs})


def random_terms(sizes: tuple[int, ...], factors: list[Positions], seed: int) -> Terms:
    """Terms of these factors, with normally distributed values."""
    random = np.random.default_rng(seed)
    return Terms(sizes, 5.0, {p: random.normal(size=[sizes[i] for i in p]) for p in factors})
