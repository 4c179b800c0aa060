"""Models of the user's are measured and compared with a predictor; one that fails leaves the others be."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx")

from layout import HELPERS
from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.verify import read_models, verify
from nnmeter_nas.builder.worker import worker
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.predictor import load_latency_predictor
from nnmeter_nas.readers.onnx.writer import to_onnx
from simulated_device import RULES, kernel_ms

DEVICE = "simulated_device:Device"


def test_models_are_compared_and_faults_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.setenv("SIMULATED_NOISE", "0")
    monkeypatch.setenv("SIMULATED_FAULTS", "broken=error zero=zero")
    graph = random_network(3)
    for name in ("good", "broken", "zero"):
        (tmp_path / f"{name}.onnx").write_bytes(to_onnx(graph))
    models = read_models([tmp_path / "good.onnx", tmp_path / "broken.onnx", tmp_path / "zero.onnx"])
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    with worker(DEVICE, 20.0) as running:
        found, faults = verify(predictor, load_backend(DEVICE), running, models, 2, lambda text: None)
    [only] = found
    assert only.name == str(tmp_path / "good.onnx")
    kernels = fuse(graph, parse_rules(RULES)).nodes(data="kernel")
    assert only.measured == pytest.approx(sum(kernel_ms(kernel) for _, kernel in kernels))
    assert only.low < only.predicted < only.high
    assert only.predicted == predictor.predict(graph)
    assert faults == {
        str(tmp_path / "broken.onnx"): "RuntimeError: operator not supported",
        str(tmp_path / "zero.onnx"): "the device measured [0.0, 0.0] ms",
    }
