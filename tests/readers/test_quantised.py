"""Quantised networks: refused, or read as the float network that they stand for, whatever the format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from ir import IrBuilder
from nnmeter_nas import LatencyWarning, load_latency_predictor
from nnmeter_nas.errors import QuantizedModelError, ReaderError
from nnmeter_nas.readers import read_model
from onnx_models import IMAGE, model, node, ops, weights
from tf_graphs import TfBuilder

SHAPE = (1, 3, 32, 32)
MICROSOFT = "com.microsoft"
CONSTANTS = {
    "s": np.float32(0.1), "z": np.uint8(3), "w": np.ones((8, 8, 3, 3), np.int8), "f": weights(8, 8, 3, 3),
    "ws": np.float32(0.02), "wz": np.int8(0), "b": np.ones(8, np.int32), "m": np.ones((10, 6), np.int8),
}  # fmt: skip
CONV = ["conv", "relu"]
#: Spelling -> operators as (type, inputs, output), and the float network.
ONNX: dict[str, tuple[Sequence[tuple[str, str, str]], list[str]]] = {
    "QDQ": ([("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "d"),
             ("DequantizeLinear", "w ws wz", "k"), ("Conv", "d k", "c"), ("QuantizeLinear", "c s z", "r"),
             ("DequantizeLinear", "r s z", "e"), ("Relu", "e", "y")], CONV),
    "QLinearConv": ([("QuantizeLinear", "x s z", "q"), ("QLinearConv", "q s z w ws wz s z b", "c"),
                     ("DequantizeLinear", "c s z", "e"), ("Relu", "e", "y")], CONV),
    "ConvInteger": ([("DynamicQuantizeLinear", "x", "q t u"), ("ConvInteger", "q w u wz", "i"),
                     ("Cast", "i", "c"), ("Mul", "t ws", "p"), ("Mul", "c p", "e"), ("Relu", "e", "y")],
                    CONV),
    "MatMulInteger": ([("DynamicQuantizeLinear", "x", "q t u"), ("MatMulInteger", "q m u wz", "i"),
                       ("Cast", "i", "c"), ("Mul", "t ws", "p"), ("Mul", "c p", "y")], ["fc"]),
    "QLinearMatMul": ([("QuantizeLinear", "x s z", "q"), ("QLinearMatMul", "q s z m ws wz s z", "c"),
                       ("DequantizeLinear", "c s z", "y")], ["fc"]),
    "QLinearAdd": ([("QuantizeLinear", "x s z", "q"), (f"{MICROSOFT}.QLinearAdd", "q s z q s z s z", "a"),
                    (f"{MICROSOFT}.QLinearConcat", "s z a s z q s z", "k"),
                    (f"{MICROSOFT}.QLinearGlobalAveragePool", "k s z s z", "g"),
                    ("DequantizeLinear", "g s z", "y")], ["add", "concat", "globalavgpool"]),
    "dynamic, of Microsoft": ([(f"{MICROSOFT}.DynamicQuantizeMatMul", "x m ws wz", "y")], ["fc"]),
}  # fmt: skip


def in_onnx(spelling: str) -> onnx.ModelProto:
    """A quantised network as ONNX spells it."""
    more: dict[str, dict[str, int]] = {"Cast": {"to": 1}, f"{MICROSOFT}.QLinearConcat": {"axis": 1}}
    nodes = []
    for kind, inputs, outputs in ONNX[spelling][0]:
        domain, _, op = kind.rpartition(".")
        nodes.append(node(op, inputs, outputs, domain=domain, **more.get(kind, {})))
    return model(nodes, CONSTANTS, domains=[helper.make_opsetid(MICROSOFT, 1)])


@pytest.mark.parametrize("spelling", ONNX)
def test_onnx_is_read_as_the_float_network_on_request(spelling: str) -> None:
    with pytest.raises(QuantizedModelError, match=r"the first '.*allow_quantized=True"):
        read_model(in_onnx(spelling))
    assert ops(read_model(in_onnx(spelling), allow_quantized=True)) == ONNX[spelling][1]


def test_quantised_and_float_have_the_same_latency_and_a_warning() -> None:
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    plain = model([node("Conv", "x f", "c"), node("Relu", "c", "y")], CONSTANTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = predictor.predict(plain)
    for spelling in ("QDQ", "QLinearConv", "ConvInteger"):
        fresh = load_latency_predictor("cortexA76cpu_tflite21")
        with pytest.raises(QuantizedModelError):
            fresh.predict(in_onnx(spelling))
        with pytest.warns(LatencyWarning, match="the model is quantised"):
            assert fresh.predict(in_onnx(spelling), allow_quantized=True) == expected
        assert fresh.explain(in_onnx(spelling), allow_quantized=True).latency_ms == expected
    with pytest.raises(QuantizedModelError, match=r"models\[1\]"):
        list(predictor.predict_many([plain, in_onnx("QDQ")]))
    assert list(predictor.predict_many([in_onnx("QDQ")], allow_quantized=True)) == [expected]


def test_a_model_graph_stays_quantised() -> None:
    graph = read_model(in_onnx("QDQ"), allow_quantized=True)
    with pytest.raises(QuantizedModelError):
        read_model(graph)
    assert read_model(graph, allow_quantized=True) is graph


def test_compressed_weights_alone_make_no_quantised_network() -> None:
    nodes = [node("DequantizeLinear", "w ws wz", "k"), node("Conv", "x k", "y")]
    assert ops(read_model(model(nodes, CONSTANTS))) == ["conv"]


def test_a_branch_that_leads_nowhere_makes_no_quantised_network() -> None:
    nodes = [node("QuantizeLinear", "x s z", "q"), node("Relu", "x", "y")]
    assert ops(read_model(model(nodes, CONSTANTS))) == ["relu"]


def test_an_integer_operator_without_float_form_is_named() -> None:
    nodes = [node("QuantizeLinear", "u s z", "q"), node("ConvInteger", "x q", "y")]
    proto = model(nodes, CONSTANTS, {"x": IMAGE, "u": (1, 8, 3, 3)})
    with pytest.raises(QuantizedModelError, match=r"at 2 operator\(s\)"):
        read_model(proto)


@pytest.mark.parametrize("op", ["FakeQuantWithMinMaxVars", "QuantizeAndDequantizeV2"])
def test_simulated_quantisation_in_tensorflow(op: str) -> None:
    b = TfBuilder()
    low, high = b.const("low", -1.0), b.const("high", 1.0)
    b.add("rounded", op, [b.weights("w", 3, 3, 3, 8), low, high])
    b.add("conv", "Conv2D", ["input", "rounded"], strides=[1, 1, 1, 1], padding="SAME")
    assert ops(read_model(b.graph_def)) == ["conv"]
    b.add("relu", "Relu", [b.add("act", op, ["conv", low, high])])
    with pytest.raises(QuantizedModelError, match="'act'"):
        read_model(b.graph_def)
    assert ops(read_model(b.graph_def, allow_quantized=True)) == ["conv", "relu"]


def test_integers_in_tensorflow() -> None:
    b = TfBuilder()
    low, high = b.const("low", -1.0), b.const("high", 1.0)
    b.add("q", "QuantizeV2", ["input", low, high])
    b.add("conv", "QuantizedConv2D", ["q", b.weights("w", 3, 3, 3, 8), "q:1", "q:2", low, high],
          strides=[1, 2, 2, 1], padding="SAME")  # fmt: skip
    b.add("range", "RequantizationRange", ["conv", "conv:1", "conv:2"])
    b.add("narrow", "Requantize", ["conv", "conv:1", "conv:2", "range", "range:1"])
    b.add("relu", "QuantizedRelu", ["narrow", "narrow:1", "narrow:2"])
    b.add("d", "Dequantize", ["relu", "relu:1", "relu:2"])
    with pytest.raises(QuantizedModelError, match=r"at 5 operator\(s\), the first 'q'"):
        read_model(b.graph_def)
    graph = read_model(b.graph_def, allow_quantized=True)
    assert ops(graph) == ["conv", "relu"]
    assert graph.nodes["conv"]["out_shapes"] == [(1, 8, 16, 16)]


def test_simulated_quantisation_in_nnmeter_ir() -> None:
    b = IrBuilder()
    b.classifier(b.unary("rounded", "FakeQuantWithMinMaxVars", b.conv("conv", "input", 8)))
    with pytest.raises(QuantizedModelError, match="'rounded'"):
        read_model(b.nodes)
    assert "rounded" not in read_model(b.nodes, allow_quantized=True)


class Net(nn.Module):
    """A network with the operators that torch quantises."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()
        self.depthwise, self.act = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()
        self.up, self.norm = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.GroupNorm(2, 8)
        self.arithmetic = torch.ao.nn.quantized.FloatFunctional()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quant(x)))
        y = self.arithmetic.add(x, self.act(self.depthwise(x)))
        y = torch.max_pool2d(self.norm(self.up(self.arithmetic.cat([x, y], 1)[:, :8])), 2)
        y = self.arithmetic.mul_scalar(torch.cat([y, y], 1), 0.5)
        return self.dequant(self.fc(y.mean([2, 3])))


class Signal(nn.Module):
    """A network over a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.conv, self.up = nn.Conv1d(3, 8, 3, stride=2), nn.ConvTranspose1d(8, 8, 4, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.up(torch.relu(self.conv(self.quant(x)))))


@pytest.fixture(autouse=True)
def engine() -> Iterator[None]:
    """Choose an engine that every CPU has."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    yield
    torch.backends.quantized.engine = before


def converted(module: nn.Module, shape: Sequence[int]) -> nn.Module:
    """``module`` after static quantisation."""
    quantisation: Any = torch.ao.quantization
    module.eval().qconfig = quantisation.get_default_qconfig("qnnpack")
    prepared = quantisation.prepare(module)
    prepared(torch.rand(*shape))
    return quantisation.convert(prepared)


def operators(graph: Any) -> list[tuple[str, Any, list[tuple[int, ...]]]]:
    """What decides the latency of a model graph."""
    return [(d["op"], d["attrs"], d["out_shapes"]) for _, d in graph.nodes(data=True)]


@pytest.mark.filterwarnings("ignore")  # torch's, about its move to another package
@pytest.mark.parametrize(("network", "shape"), [(Net, SHAPE), (Signal, (1, 3, 32))])
def test_integer_modules_of_torch(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    plain = read_model(network(), "torch", shape)
    module = converted(network(), shape)
    with pytest.raises(QuantizedModelError, match="the first 'quant'"):
        read_model(module, "torch", shape)
    assert operators(read_model(module, "torch", shape, allow_quantized=True)) == operators(plain)


@pytest.mark.filterwarnings("ignore")
def test_simulated_and_dynamic_quantisation_in_torch() -> None:
    quantisation: Any = torch.ao.quantization
    module = Net().train()
    module.qconfig = quantisation.get_default_qat_qconfig("qnnpack")
    trained = quantisation.prepare_qat(module)
    trained(torch.rand(*SHAPE))
    expected = operators(read_model(Net(), "torch", SHAPE))
    with pytest.raises(QuantizedModelError):
        read_model(trained, "torch", SHAPE)
    assert operators(read_model(trained, "torch", SHAPE, allow_quantized=True)) == expected
    dynamic = quantisation.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    with pytest.raises(QuantizedModelError):
        read_model(dynamic, "torch", SHAPE)
    assert ops(read_model(dynamic, "torch", SHAPE, allow_quantized=True)) == ["flatten", "fc"]
    recurrent = quantisation.quantize_dynamic(nn.Sequential(nn.Flatten(2), nn.LSTM(1024, 10)), {nn.LSTM})
    with pytest.raises(ReaderError, match="computes with integers, and its float form is not known"):
        read_model(recurrent, "torch", SHAPE, allow_quantized=True)


def test_decomposed_quantisation_of_exported_programs() -> None:
    pytest.importorskip("torch.ao.quantization.fx._decomposed")

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("w", torch.ones(8, 3, 3, 3, dtype=torch.int8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            to, back = (getattr(torch.ops.quantized_decomposed, name).default
                        for name in ("quantize_per_tensor", "dequantize_per_tensor"))  # fmt: skip
            how = (0.1, 0, -128, 127, torch.int8)
            return torch.conv2d(back(to(x, *how), *how), back(self.w, *how)).relu()

    with pytest.raises(QuantizedModelError, match=r"at 2 operator\(s\)"):
        read_model(Exported(), "torch", SHAPE)
    assert ops(read_model(Exported(), "torch", SHAPE, allow_quantized=True)) == ["conv", "relu"]
