"""Time predictions of one model against nn-Meter 2.0: SPOS candidates in NNI's graph IR, a torch module."""

from __future__ import annotations

import itertools
import logging
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.search_spaces import spos

from ..networks import build_network, input_shape
from .figures import Figure, Sample, measured
from .nnmeter import TOLERANCE, Both, DisagreementError

#: Number of candidates for a median, and number before them that are not timed.
CANDIDATES, _WARM_UP = 20, 2
_SHAPE = (1, 3, 224, 224)
_NETWORK = "mobilenet_v2"


def spos_candidates(engine: str) -> Iterator[Any]:
    """Make random candidates of the ImageNet-sized SPOS space without end, as NNI 2.10.1's ``Random`` does.

    Each is made when requested, under the ``engine`` "graph" or "py", which is NNI's default.
    """
    from nni.nas.experiment.pytorch import preprocess_model
    from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model
    from nni.retiarii.evaluator import FunctionalEvaluator

    graph = engine == "graph"
    evaluator = FunctionalEvaluator(print)
    base, mutators = preprocess_model(spos("imagenet"), evaluator, [], graph, list(_SHAPE) if graph else None)
    choices, draw = dry_run_for_search_space(base, mutators), random.Random(0)
    while True:
        sample = {key: draw.choice(values) for key, values in choices.items()}
        yield get_targeted_model(base, mutators, sample)


def candidate_figures(both: Both) -> Iterator[Figure]:
    """Time a candidate that is read whole, from graph IR to ms, on a predictor that has seen nothing."""
    candidates = list(itertools.islice(spos_candidates("graph"), _WARM_UP + CANDIDATES))
    # The results need not agree. nn-Meter knows channel shuffles, splits, concats and the pool by other names
    # than NNI's graph IR does, so it leaves them out at 0 ms.
    yield Figure(
        "one SPOS candidate read whole, graph IR to ms, first call", "ms",
        ours=_each(lambda candidate: both.ours().predict(candidate), candidates),
        rival=_each(lambda candidate: _nn_meter(both.theirs(), candidate), candidates),
        rival_name="nn-Meter 2.0", at_least=40, note="same forests and rules; nn-Meter leaves operators out",
    )  # fmt: skip
    own = load_latency_predictor(both.pack.name, 2.0).pack
    yield Figure(
        "the same, our own pack", "ms",
        ours=_each(lambda candidate: LatencyPredictor(own).predict(candidate), candidates), limit=6,
    )  # fmt: skip


def module_figures(both: Both) -> Iterator[Figure]:
    """Time a torch module to ms against nn-Meter's way: export to ONNX, simplify, detect kernels, predict."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # else it reports that torchvision is missing
    module, shape = build_network(_NETWORK), input_shape(_NETWORK)
    ours, theirs = both.ours(), both.theirs()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        a, b = _predict(ours, module, shape), _by_onnx(theirs, module, shape, path)
        if abs(a - b) > TOLERANCE * max(a, b):
            raise DisagreementError(f"nnmeter_nas predicts {a} ms where nn-Meter predicts {b} ms")
        yield Figure(
            f"torch module of {_NETWORK} to ms", "ms",
            ours=measured(lambda: _predict(ours, module, shape), 10, 1e3),
            rival=measured(lambda: _by_onnx(theirs, module, shape, path), 5, 1e3),
            rival_name="nn-Meter 2.0 by ONNX", at_least=20, note="same forests and rules",
        )  # fmt: skip


def _predict(predictor: LatencyPredictor, module: torch.nn.Module, shape: Sequence[int]) -> float:
    return predictor.predict(module, input_shape=tuple(shape))


def _nn_meter(predictor: Any, candidate: Any) -> float:
    return float(predictor.predict(candidate, "nni-ir"))


def _by_onnx(predictor: Any, module: torch.nn.Module, shape: Sequence[int], path: Path) -> float:
    """Predict as nn-Meter does from torch; its own export passes a file object, which torch now refuses."""
    import onnx
    import onnxsim

    torch.onnx.export(module, (torch.zeros(*shape),), path, dynamo=True, external_data=False, verbose=False)
    simple, same = onnxsim.simplify(onnx.load(path))
    if not same:
        raise DisagreementError("the simplified ONNX model computes something else")
    return float(predictor.predict(simple, "onnx"))


def _each(function: Callable[[Any], Any], candidates: Sequence[Any]) -> Sample:
    """Measure the milliseconds that ``function`` takes for each of ``candidates`` after the first few."""
    turn = iter(candidates)
    for candidate in itertools.islice(turn, _WARM_UP):
        function(candidate)
    return measured(lambda: function(next(turn)), len(candidates) - _WARM_UP, 1e3, warm=False)
