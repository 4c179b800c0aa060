"""Models of the user's are measured and compared with a predictor; one that fails leaves the others be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from layout import HELPERS
from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.verify import read_models, verify
from nnmeter_nas.builder.worker import worker
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.predictor import LatencyWarning, load_latency_predictor
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
    (tmp_path / "garbage.onnx").write_bytes(b"no model")
    files = [tmp_path / f"{name}.onnx" for name in ("good", "garbage", "broken", "zero")]
    models, unread = read_models(files)
    assert list(unread) == [str(tmp_path / "garbage.onnx")]
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


@pytest.mark.filterwarnings("always")
def test_a_warning_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    file = tmp_path / "recurrent.onnx"
    file.write_bytes(to_onnx(random_network(19)))
    models, _ = read_models([file])
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    with worker(DEVICE, 20.0) as running, pytest.warns(LatencyWarning, match=rf"^{file}: .*lstm"):
        verify(predictor, load_backend(DEVICE), running, models, 2, lambda text: None)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_models_of_indices_are_measured(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"the extra {name!r} is not installed")
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(np.ones((10, 8), np.float32), "weights")
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Gather", ["weights", "ids"], ["y"], "gather")],
        "graph",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [1, 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6, 8])],
        [weights],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(made, opset_imports=[opset], ir_version=8), tmp_path / "ids.onnx")
    assert load_backend(name).load(tmp_path / "ids.onnx").run() > 0
