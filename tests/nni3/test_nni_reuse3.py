"""Frozen graph spaces of NNI 3.0 take what the whole model would, though only what is new is read."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("nni.nas.space", reason="reads what NNI 3.0 makes")

from nni.nas.space.pytorch import PytorchGraphModelSpace

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.search_spaces import spos

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")]


@pytest.mark.parametrize("device", ["cortexA76cpu_tflite21", "adreno640gpu_tflite21"])
def test_candidates_take_what_they_take_as_a_whole(device: str) -> None:
    module = spos("small", depths=(2, 1), channels=(16, 32))
    space = PytorchGraphModelSpace.from_model(module, None, tuple(module.input_shape))
    predictor = load_latency_predictor(device, 2.0)
    for _ in range(12):
        model = space.random()
        parts, found = predictor._units.parts(model, None), predictor.explain(model)
        assert parts is not None
        assert predictor.predict(model) == parts.latency_ms == found.latency_ms
