"""Measure what latency costs a search: the filter in NNI's strategy, and ranking through lookup tables."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs.bundled import bundled_table
from nnmeter_nas.solve.ranking import random_architectures
from nnmeter_nas.strategies import LatencyFilter
from nnmeter_nas.strategies.table_lookup import CHECKED
from nnmeter_nas.supernet.choices import architecture_at
from nnmeter_nas.supernet.named import load_space

from .candidates import spos_candidates
from .figures import Figure, Sample, measured

#: Number of architectures ranked in one repeat, and number predicted.
_RANKED, _PREDICTED = 1_000_000, 20
#: Name of each engine of NNI 2.10.1 -> (number of repeats, candidates filtered in each).
_ENGINES = {"default": (9, 200), "graph": (5, 4)}


def filter_figures(device: str) -> Iterator[Figure]:
    """Time a filter in NNI 2.10.1's ``Random`` on the ImageNet-sized SPOS space, under both engines."""
    for engine, (repeats, count) in _ENGINES.items():
        candidates = spos_candidates("graph" if engine == "graph" else "py")
        # Under the graph engine the filter finds the space through the experiment; there is none here.
        accept = LatencyFilter(1e9, device, space="spos" if engine == "graph" else None)
        for candidate in itertools.islice(candidates, CHECKED):
            accept(candidate)
        gc.collect()
        pairs = [_made_and_filtered(candidates, accept, count) for _ in range(repeats)]
        made, filtered = zip(*pairs, strict=True)
        yield Figure(
            f"one candidate in NNI's Random, {engine} engine, SPOS: the filter, and making it", "ms",
            ours=Sample(filtered), rival=Sample(made), rival_name="NNI making it", at_least=20,
            note="in turns, as a search has them; bundled table",
        )  # fmt: skip


def _made_and_filtered(
    candidates: Iterator[Any], accept: Callable[[Any], bool], count: int
) -> tuple[float, float]:
    """Measure the milliseconds for making each of ``count`` candidates, and for asking ``accept``."""
    made = filtered = 0.0
    for _ in range(count):
        start = time.perf_counter()
        candidate = next(candidates)
        between = time.perf_counter()
        accept(candidate)
        filtered += time.perf_counter() - between
        made += between - start
    return 1e3 * made / count, 1e3 * filtered / count


def ranking_figures(device: str) -> Iterator[Figure]:
    """Measure how many SPOS architectures a second are ranked by lookup table, and predicted one by one."""
    predictor = load_latency_predictor(device)
    table = bundled_table("spos", predictor)
    assert table is not None
    rows, space = random_architectures(table, _RANKED), load_space("spos")
    names = [architecture_at(row, table.candidates) for row in rows[:_PREDICTED].tolist()]
    graphs = measured(lambda: [predictor.predict(space.model_graph(one)) for one in names], 5)
    ranked = measured(lambda: np.argsort(table.latencies(rows)), 7)
    yield Figure(
        "ranking by lookup table, SPOS", "architectures/s",
        ours=Sample(tuple(_RANKED / seconds for seconds in ranked.values)),
        rival=Sample(tuple(_PREDICTED / seconds for seconds in graphs.values)),
        rival_name="predicting each", limit=1e6, more_is_better=True,
        note=f"{_RANKED:,} priced and sorted on one core",
    )  # fmt: skip
