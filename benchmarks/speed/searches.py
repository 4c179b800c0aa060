"""What a search pays for latency: the filter inside NNI's strategy, and ranking through lookup tables."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs.bundled import bundled_table
from nnmeter_nas.search_spaces import spos
from nnmeter_nas.solve.ranking import random_architectures
from nnmeter_nas.strategies import LatencyFilter
from nnmeter_nas.strategies.looked_up import PATIENCE
from nnmeter_nas.supernet.choices import architecture_at
from nnmeter_nas.supernet.named import load_space

from .figures import Figure, Sample, measured

#: Candidates filtered, and architectures ranked, in one repeat.
_FILTERED, _RANKED, _PREDICTED = 200, 1_000_000, 20


def filter_figures(device: str) -> Iterator[Figure]:
    """A filter's share of NNI 2.10.1's ``Random``, default engine, on the ImageNet-sized SPOS space."""
    candidates = simplified_candidates()
    accept = LatencyFilter(1e9, device)
    for candidate in itertools.islice(candidates, PATIENCE + 1):
        accept(candidate)
    gc.collect()
    made, filtered = zip(*(made_and_filtered(candidates, accept, _FILTERED) for _ in range(9)), strict=True)
    yield Figure(
        "one candidate in NNI's Random, default engine, SPOS: the filter, and making it", "ms",
        ours=Sample(filtered), rival=Sample(made), rival_name="NNI making it", at_least=20,
        note=f"in turns, as a search has them; from the {PATIENCE + 1}st candidate on",
    )  # fmt: skip


def made_and_filtered(
    candidates: Iterator[Any], accept: Callable[[Any], bool], count: int
) -> tuple[float, float]:
    """Milliseconds a candidate that making it takes, and asking ``accept`` about it.

    Args:
        candidates: made when they are asked for.
        accept: a filter.
        count: how many are taken.
    """
    made = filtered = 0.0
    for _ in range(count):
        start = time.perf_counter()
        candidate = next(candidates)
        between = time.perf_counter()
        accept(candidate)
        filtered += time.perf_counter() - between
        made += between - start
    return 1e3 * made / count, 1e3 * filtered / count


def simplified_candidates() -> Iterator[Any]:
    """Random candidates of the ImageNet-sized SPOS space, as NNI 2.10.1's default engine makes them."""
    from nni.nas.experiment.pytorch import preprocess_model
    from nni.nas.strategy.bruteforce import random_generator
    from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model
    from nni.retiarii.evaluator import FunctionalEvaluator

    base, mutators = preprocess_model(spos("imagenet"), FunctionalEvaluator(print), [], False)
    for sample in random_generator(dry_run_for_search_space(base, mutators)):
        yield get_targeted_model(base, mutators, sample)


def ranking_figures(device: str) -> Iterator[Figure]:
    """Architectures of the SPOS space a second: through the lookup table, and by predicting each."""
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
