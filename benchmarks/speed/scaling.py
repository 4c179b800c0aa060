"""Measure how cost grows with the size of a model graph and with the number of candidates."""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.costs.bundled import bundled_table
from nnmeter_nas.graph.model_graph import finish
from nnmeter_nas.graph.shapes import infer_shapes
from nnmeter_nas.graph.traversal import topological_order
from nnmeter_nas.solve.ranking import latency_reach, random_architectures
from nnmeter_nas.strategies import LatencyFilter
from nnmeter_nas.strategies.table_lookup import CHECKED
from nnmeter_nas.supernet.choices import architecture_at
from nnmeter_nas.supernet.named import load_space

from .candidates import spos_candidates
from .figures import Figure, Sample
from .synthetic import synthetic_graph

#: Units that the two kinds of curves count.
OPERATORS, CANDIDATES = "operators", "candidates"
#: Largest exponent that counts as linear. It is above 1 because caches hold less and less of the data.
LIMIT = 1.1
#: Largest model graph; largest numbers of candidates predicted and looked up.
_LARGEST, _PREDICTED, _LOOKED_UP = 100_000, 1000, 1_000_000
#: Sizes per decade.
_DENSITY = 3
#: Repeats of each size: minimum, maximum, and the seconds after which to stop in between.
_LEAST_REPEATS, _MOST_REPEATS, _SECONDS = 3, 9, 0.5


def size_figures(device: str, largest: int = _LARGEST) -> Iterator[Figure]:
    """Measure exponents: how the cost of a model graph grows with its number of operators."""
    pack = load_latency_predictor(device).pack

    def infer(size: int) -> Sample:
        graph = finish(synthetic_graph(size))
        return timed(lambda: None, lambda _: infer_shapes(graph, topological_order(graph)), collects=False)

    def fuse(size: int) -> Sample:
        graph = finish(synthetic_graph(size))
        return timed(lambda: None, lambda _: pack.kernel_graph(graph), collects=False)

    def kernels(size: int) -> Sample:
        found = pack.kernel_graph(finish(synthetic_graph(size))).nodes(data="kernel")
        kernels = [kernel for _, kernel in found]
        return timed(lambda: None, lambda _: pack.predictors.latencies(kernels), collects=False)

    def whole(size: int) -> Sample:
        return timed(
            lambda: (LatencyPredictor(pack), synthetic_graph(size)), lambda made: made[0].predict(made[1])
        )

    for name, measure in (
        ("shape inference", infer),
        ("fusion", fuse),
        ("prediction of the kernels", kernels),
        ("all of predict", whole),
    ):
        yield _exponent(name, OPERATORS, _curve(measure, 100, largest))


def number_figures(device: str, predicted: int = _PREDICTED, looked_up: int = _LOOKED_UP) -> Iterator[Figure]:
    """Measure exponents: how the cost of candidates of ImageNet-sized SPOS grows with their number."""
    predictor, space = load_latency_predictor(device), load_space("spos")
    table = bundled_table("spos", predictor)
    assert table is not None
    rows = random_architectures(table, looked_up)
    graphs = [
        space.model_graph(architecture_at(row, table.candidates)) for row in rows[:predicted].tolist()
    ]

    def predict(count: int) -> Sample:
        return timed(
            lambda: LatencyPredictor(predictor.pack), lambda one: list(one.predict_many(graphs[:count]))
        )

    def look_up(count: int) -> Sample:
        return timed(lambda: None, lambda _: table.latencies(rows[:count]))

    accept = _trusting_filter(device, latency_reach(table)[0])
    yield _exponent("whole-graph prediction", CANDIDATES, _curve(predict, 10, predicted))
    yield _exponent("LatencyFilter's look-up", CANDIDATES, _curve(accept, 10, looked_up))
    yield _exponent("FactorTable.latencies", CANDIDATES, _curve(look_up, 10, looked_up))


def _trusting_filter(device: str, fastest_ms: float) -> Callable[[int], Sample]:
    """Return a timer of a filter that trusts its table; the timer repeats the same 1000 candidates.

    ``fastest_ms`` is the least latency in the space.
    """
    candidates = list(itertools.islice(spos_candidates("py"), 1000))
    # The fastest architecture alone meets this limit, so accepted candidates do not accumulate.
    accept = LatencyFilter(fastest_ms, device, patience=sys.maxsize)
    for candidate in candidates[:CHECKED]:
        accept(candidate)

    def ask(count: int) -> None:
        for candidate in itertools.islice(itertools.cycle(candidates), count):
            accept(candidate)

    return lambda count: timed(lambda: None, lambda _: ask(count))


def _curve(measure: Callable[[int], Sample], least: int, most: int) -> list[tuple[int, Sample]]:
    with _nothing_else_collected():
        return [(size, measure(size)) for size in sizes(least, most)]


def sizes(least: int, most: int) -> list[int]:
    """Return sizes that grow by a constant factor.

    >>> sizes(10, 1000)
    [10, 22, 46, 100, 215, 464, 1000]
    """
    steps = round(_DENSITY * np.log10(most / least))
    return [round(size) for size in np.geomspace(least, most, steps + 1).tolist()]


def timed(prepare: Callable[[], Any], run: Callable[[Any], Any], collects: bool = True) -> Sample:
    """Time ``run`` repeatedly, in seconds of processor time.

    A curve takes minutes, and other processes would distort its wall time. The timed code uses one core.

    Args:
        prepare: called before each repeat, untimed; ``run`` gets its result.
        run: the function to time.
        collects: keep Python's garbage collector on; its full passes add steps to a curve.
    """
    taken: list[float] = []
    while len(taken) < _LEAST_REPEATS or (sum(taken) < _SECONDS and len(taken) < _MOST_REPEATS):
        prepared = prepare()
        gc.collect()
        if not collects:
            gc.disable()
        try:
            start = time.process_time()
            run(prepared)
            taken.append(time.process_time() - start)
        finally:
            gc.enable()
    return Sample(tuple(taken))


@contextmanager
def _nothing_else_collected() -> Iterator[None]:
    """Make the collector skip all objects that exist now, mainly those of torch and NNI."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def exponent(points: Sequence[tuple[int, Sample]]) -> float:
    """Return the slope of the least-squares line through log size and log seconds, over the top two decades.

    >>> round(exponent([(n, Sample((n**2.0,))) for n in (10, 100, 1000)]), 6)
    2.0
    """
    most = max(size for size, _ in points)
    kept = [(size, taken.median) for size, taken in points if 100 * size >= most]
    of_sizes, of_seconds = np.log(np.array(kept)).T
    return float(np.polyfit(of_sizes, of_seconds, 1)[0])


def _exponent(name: str, unit: str, points: Sequence[tuple[int, Sample]]) -> Figure:
    return Figure(
        f"{name}, by {unit}", "exponent", ours=Sample((exponent(points),)), limit=LIMIT, points=tuple(points)
    )
