"""Models of the user are measured as they are predicted."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.builder.networks import random_network  # noqa: E402
from nnmeter_nas.builder.verify import read_models, verify  # noqa: E402
from nnmeter_nas.builder.worker import Visit, Worker  # noqa: E402
from nnmeter_nas.errors import MeasurementError  # noqa: E402
from nnmeter_nas.readers.onnx.writer import to_onnx  # noqa: E402
from simulated_device import Device  # noqa: E402

DEVICE = "cortexA76cpu_tflite21"


class Looking(Worker):
    """Notes the shape of the input of each file that it is to measure."""

    def __init__(self, ms: float = 2.0) -> None:
        super().__init__("simulated_device:Device", 5.0)
        self.shapes: list[list[int]] = []
        self.ms = ms

    def visit(self, path: Path) -> Visit:
        """Return a latency without running anything."""
        [declared] = onnx.load(path).graph.input
        self.shapes.append([size.dim_value for size in declared.type.tensor_type.shape.dim])
        return Visit(self.ms, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that leaves the sides of its image open."""
    model = onnx.load_from_string(to_onnx(random_network(7003)))
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_param = "side"
    onnx.save(model, tmp_path / "open.onnx")
    return tmp_path / "open.onnx"


def test_a_model_with_an_open_input_is_measured_at_the_shape_given(path: Path) -> None:
    shape = random_network(7003).nodes["input"]["out_shapes"][0]
    worker = Looking()
    told: list[str] = []
    predictor = load_latency_predictor(DEVICE)
    [found] = verify(predictor, Device(), worker, read_models([path], shape), 2, told.append)
    assert worker.shapes == [list(shape)] * 2
    assert found.low < found.predicted < found.high
    assert (found.measured, found.repeats) == (2.0, 1.0)
    assert told == [f"visit 1 of {path}", f"visit 2 of {path}"]


def test_a_device_that_measures_nothing_is_told(path: Path) -> None:
    models = read_models([path], random_network(7003).nodes["input"]["out_shapes"][0])
    with pytest.raises(MeasurementError, match=r"open\.onnx: the device measured \[0\.0, 0\.0\] ms"):
        verify(load_latency_predictor(DEVICE), Device(), Looking(0.0), models, 2, lambda text: None)
