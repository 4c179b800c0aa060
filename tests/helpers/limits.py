"""Limits found from tables, so that tests hold whatever the packs measure."""

from __future__ import annotations

import functools
import math

import numpy as np

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs.measures import latency
from nnmeter_nas.costs.table import FactorTable, every_architecture
from nnmeter_nas.supernet.named import load_space

#: Parts that the range of a measure is cut into to find a limit of few architectures.
_PARTS = 20_000


def limit_of(table: FactorTable, architectures: int) -> float:
    """A limit that so many architectures of a small space are within; no value is at it."""
    ranked = np.sort(table.values(every_architecture(table.sizes)))
    return float(ranked[architectures - 1] + ranked[architectures]) / 2


@functools.cache
def limit_in(space: str, device: str, share: float) -> float:
    """The latency (ms) on ``device`` that a ``share`` of a small space, by its name, is within."""
    table = latency(load_space(space), load_latency_predictor(device)).table
    assert table is not None
    return limit_of(table, round(share * math.prod(table.sizes)))


def limit_of_share(table: FactorTable, share: float) -> float:
    """A limit that about a ``share`` of an additive space is within, however few that are."""
    columns = [table.factors[p,] - table.factors[p,].min() for p in range(len(table.sizes))]
    least = table.constant + sum(float(table.factors[p,].min()) for p in range(len(columns)))
    width = sum(float(column.max()) for column in columns) / _PARTS
    counts = np.ones(1)
    for column in columns:
        shifts = np.rint(column / width).astype(int)
        counts = sum(np.pad(counts, (shift, shifts.max() - shift)) for shift in shifts)
    reached = np.cumsum(counts) >= share * math.prod(table.sizes)
    return least + width * (int(np.argmax(reached)) + 0.5)
