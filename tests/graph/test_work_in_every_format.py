"""What a format spells in its own way has the multiply-adds of its formula, and the same price in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nnmeter_nas import load_latency_predictor, read_model
from nnmeter_nas.graph.work import flops, params
from nnmeter_nas.ops import OPERATORS
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from onnx_models import model, node, ops, weights
from tf_graphs import TfBuilder

pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
MAP, TOKENS, HEADS = (1, 8, 9, 11), (1, 6, 16), (1, 4, 6, 8)
ONE = np.float32(1)
MICROSOFT = [helper.make_opsetid("com.microsoft", 1)]


def latencies(graph: nx.DiGraph) -> list[float]:
    """Latency in ms on each device; nothing in it is left out."""
    predictors = [load_latency_predictor(device) for device in sorted(devices())]
    found = [predictor.explain(graph, allow_quantized=True) for predictor in predictors]
    assert not any(explanation.unpredicted for explanation in found)
    return [explanation.latency_ms for explanation in found]


def works(graph: nx.DiGraph, macs: int, *expected: str) -> None:
    """The graph has so many multiply-adds, the expected operators, and a price."""
    assert flops(graph) == 2 * macs
    assert [op for op in ops(graph) if OPERATORS[op].kernel] == list(expected)
    assert min(latencies(graph)) > 0


# ONNX


def one(
    op: str, inputs: str, constants: Mapping[str, Any], opset: int = 22, domain: str = "", **kwargs: Any
) -> Any:
    """A model of one operator; ``inputs`` that are no constants have a shape among ``kwargs``."""
    shapes = {name: kwargs.pop(name) for name in inputs.split() if name in kwargs and name not in constants}
    nodes = [node(op, inputs, kwargs.pop("outputs", "out"), domain=domain, **kwargs)]
    outputs = [name for name in nodes[0].output if name]
    return model(nodes, constants, shapes, outputs, opset, domains=MICROSOFT)


W8 = np.ones((12, 8, 3, 3), np.int8)


def test_convolutions_of_whole_numbers_have_the_work_of_float_ones() -> None:
    scales = dict.fromkeys(("s", "z", "ws", "wz", "ys", "yz"), ONE)
    macs = 12 * 7 * 9 * 8 * 9
    linear = one("QLinearConv", "x s z w ws wz ys yz", {"w": W8, **scales}, x=MAP)
    works(read_model(linear, allow_quantized=True), macs, "conv")
    integer = one("ConvInteger", "x w z", {"w": W8, "z": np.uint8(3)}, x=MAP)
    works(read_model(integer, allow_quantized=True), macs, "conv")
    grouped = one("ConvInteger", "x w", {"w": np.ones((8, 1, 3, 3), np.int8)}, x=MAP, group=8)
    works(read_model(grouped, allow_quantized=True), 8 * 7 * 9 * 9, "dwconv")


def test_products_of_whole_numbers_have_the_work_of_float_ones() -> None:
    w, scales = np.ones((16, 5), np.int8), dict.fromkeys(("s", "z", "ws", "wz", "ys", "yz"), ONE)
    for proto in (
        one("MatMulInteger", "x w", {"w": w}, x=TOKENS),
        one("QLinearMatMul", "x s z w ws wz ys yz", {"w": w, **scales}, x=TOKENS),
        one("DynamicQuantizeMatMul", "x w ws", {"w": w, "ws": ONE}, domain="com.microsoft", x=TOKENS),
        one("MatMulIntegerToFloat", "x w s ws", {"w": w, **scales}, domain="com.microsoft", x=TOKENS),
    ):
        works(read_model(proto, allow_quantized=True), 6 * 16 * 5, "fc")
    gemm = one("QGemm", "x s z w ws wz b ys", {"w": w.T, "b": np.ones(5, np.int32), **scales},
               domain="com.microsoft", x=(1, 16), transB=1)  # fmt: skip
    works(read_model(gemm, allow_quantized=True), 16 * 5, "fc")
    matrices = one("MatMulInteger", "x w", {}, x=HEADS, w=(1, 4, 8, 3))
    works(read_model(matrices, allow_quantized=True), 4 * 6 * 8 * 3, "matmul")


def test_a_deformable_convolution() -> None:
    proto = one("DeformConv", "x w o b m", {"w": weights(12, 4, 3, 3), "b": weights(12)},
                x=MAP, o=(1, 18, 9, 11), m=(1, 9, 9, 11), pads=[1] * 4, group=2)  # fmt: skip
    works(read_model(proto), 12 * 9 * 11 * 4 * 9, "deformconv")
    assert params(read_model(proto)) == 12 * 4 * 9 + 12
    plain = one("DeformConv", "x w o", {"w": weights(12, 8, 3, 3)}, x=MAP, o=(1, 18, 7, 9))
    works(read_model(plain), 12 * 7 * 9 * 8 * 9, "deformconv")


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_in_both_layouts(op: str, gates: int, layout: int) -> None:
    constants = {"w": weights(2, gates * 5, 16), "r": weights(2, gates * 5, 5), "b": weights(2, gates * 10)}
    proto = one(op, "x w r b", constants, opset=14, x=TOKENS if layout else (1, 6, 16), hidden_size=5,
                direction="bidirectional", layout=layout, outputs="y h")  # fmt: skip
    graph = read_model(proto)
    works(graph, 6 * 2 * gates * 5 * 21, op.lower(), *[] if layout else ["transpose"])
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.output
    expected = {tuple(d.dim_value for d in out.type.tensor_type.shape.dim) for out in inferred}
    outputs = graph.graph["outputs"]
    assert expected <= {shape for name in outputs for shape in graph.nodes[name]["out_shapes"]}


class Grouped(nn.Module):
    """Attention whose queries share keys and values in pairs."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, **self.options)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("heads", [4, 2])
def test_attention_as_one_operator_is_that_of_torch(heads: int, causal: int) -> None:
    keys = (1, heads, 6, 8)
    graph = read_model(one("Attention", "q k v", {}, 23, q=HEADS, k=keys, v=keys, is_causal=causal))
    layer = Grouped(is_causal=bool(causal), enable_gqa=heads != 4)
    other = read_model(layer, input_shape=[HEADS, keys])
    assert flops(graph) == flops(other) == 2 * 2 * 4 * 6 * 6 * 8
    assert latencies(graph) == pytest.approx(latencies(other), rel=1e-9)


def test_attention_over_tokens_with_a_past() -> None:
    past = dict.fromkeys(("pk", "pv"), (1, 2, 3, 4))
    graph = read_model(one("Attention", "q k v - pk pv", {}, 23, q=TOKENS, k=(1, 6, 8), v=(1, 6, 8), **past,
                           q_num_heads=4, kv_num_heads=2, softcap=30.0, outputs="y pk2 pv2"))  # fmt: skip
    assert flops(graph) == 2 * 2 * 4 * 6 * 9 * 4
    assert [graph.nodes[name]["out_shapes"] for name in graph.graph["outputs"]] == [
        [TOKENS], [(1, 2, 9, 4)], [(1, 2, 9, 4)]
    ]  # fmt: skip


def test_attention_of_onnxruntime() -> None:
    macs = 2 * 4 * 6 * 6 * 4
    for proto, more in (
        (one("MultiHeadAttention", "q k v b", {"b": weights(48)}, domain="com.microsoft", q=TOKENS, k=TOKENS,
             v=TOKENS, num_heads=4), 0),
        (one("GroupQueryAttention", "q k v - - n t", {"n": np.int32([5]), "t": np.int32(6)}, q=TOKENS,
             k=(1, 6, 8), v=(1, 6, 8), domain="com.microsoft", num_heads=4, kv_num_heads=2), 0),
        (one("Attention", "x w b", {"w": weights(16, 48), "b": weights(48)}, domain="com.microsoft", x=TOKENS,
             num_heads=4), 6 * 16 * 48),
    ):  # fmt: skip
        graph = read_model(proto)
        assert flops(graph) == 2 * (macs + more)
        assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [TOKENS]
        assert min(latencies(graph)) > 0


# torch


def test_attention_in_an_exported_program_with_decompositions() -> None:
    layer, inputs = Grouped(is_causal=True), (torch.zeros(HEADS), torch.zeros(HEADS))
    program = torch.export.export(layer, inputs).run_decompositions()
    assert flops(read_model(program, "torch")) == 2 * 2 * 4 * 6 * 6 * 8


def test_an_einsum_that_does_nothing_leaves_its_operand_alone() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first, second = x.relu().split([2, 4], 1)
            return torch.einsum("abc->abc", second) * first[:, :1]

    graph = read_model(Same(), input_shape=TOKENS)
    assert graph.graph["shape_mismatches"] == []
    assert sorted(ops(graph)) == ["mul", "relu", "slice", "split"]


@pytest.mark.parametrize("name", [
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
])  # fmt: skip
def test_chosen_attention(name: str) -> None:
    class Chosen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rest = (None, False) if "efficient" in name else ()
            return getattr(torch.ops.aten, name)(x, x, x, *rest)[0]

    graph, other = read_model(Chosen(), input_shape=HEADS), read_model(Grouped(), input_shape=[HEADS, HEADS])
    assert flops(graph) == flops(other)
    assert latencies(graph) == pytest.approx(latencies(other), rel=1e-9)


@pytest.fixture
def _deform_conv() -> Iterator[None]:
    """An operator of the name and with the arguments of torchvision's."""
    windows = [f"{name}_{axis}" for name in ("stride", "pad", "dilation") for axis in "hw"]
    arguments = ", ".join([f"Tensor {name}" for name in ("input", "weight", "offset", "mask", "bias")]
                          + [f"SymInt {name}" for name in (*windows, "groups", "offset_groups")]
                          + ["bool use_mask"])  # fmt: skip
    with torch.library._scoped_library("torchvision", "FRAGMENT") as library:
        library.define(f"deform_conv2d({arguments}) -> Tensor")

        def shape(x: Tensor, weight: Tensor, offset: Tensor, *others: Any) -> Tensor:
            return x.new_empty((x.shape[0], weight.shape[0], *offset.shape[2:]))

        library.impl("deform_conv2d", shape, "Meta")
        yield


@pytest.mark.usefixtures("_deform_conv")
@pytest.mark.parametrize("use_mask", [False, True])
def test_the_deformable_convolution_of_torchvision(use_mask: bool) -> None:
    class Deformable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.mask = nn.Conv2d(8, 18, 3, 2, 1), nn.Conv2d(8, 9, 3, 2, 1)
            self.weight, self.bias = nn.Parameter(torch.zeros(12, 4, 3, 3)), nn.Parameter(torch.zeros(12))

        def forward(self, x: Tensor) -> Tensor:
            mask = self.mask(x).sigmoid() if use_mask else torch.zeros(1, 1)
            return torch.ops.torchvision.deform_conv2d(
                x, self.weight, self.offset(x), mask, self.bias, 2, 2, 1, 1, 1, 1, 2, 1, use_mask
            )

    graph = read_model(Deformable(), input_shape=MAP)
    [layer] = [data for _, data in graph.nodes(data=True) if data["op"] == "deformconv"]
    assert layer["out_shapes"] == [(1, 12, 5, 6)]
    assert len(layer["in_shapes"]) == 2 + use_mask
    offsets = (18 + 9 * use_mask) * 5 * 6 * 8 * 9
    assert flops(graph) == 2 * (12 * 5 * 6 * 4 * 9 + offsets)
    assert OPERATORS["deformconv"].params_of(layer) == 12 * 4 * 9 + 12
    assert min(latencies(graph)) > 0


# TensorFlow


def in_tensorflow(
    op: str, inputs: Mapping[str, tuple[int, ...]], constants: Mapping[str, Any], **attrs: Any
) -> Any:
    """A GraphDef of one operator; ``constants`` are arrays, or shapes of weights."""
    b = TfBuilder(None)
    for name, shape in inputs.items():
        b.placeholder(name, shape)
    for name, value in constants.items():
        b.weights(name, *value) if isinstance(value, tuple) else b.const(name, value)
    b.add("out", op, [*attrs.pop("order", [*inputs, *constants])], **attrs)
    return b.graph_def


def test_products_of_tensorflow_with_weights() -> None:
    batch = read_model(in_tensorflow("BatchMatMulV2", {"x": HEADS}, {"w": (4, 8, 3)}), "pb")
    works(batch, 4 * 6 * 8 * 3, "matmul")
    assert params(batch) == 4 * 8 * 3
    left = read_model(in_tensorflow("MatMul", {"x": (1, 16)}, {"w": (3, 1)}, order=["w", "x"]), "pb")
    works(left, 3 * 16, "matmul")


def test_convolutions_of_tensorflow_by_computed_weights() -> None:
    b = TfBuilder((1, 9, 11, 8))
    b.add("mean", "Mean", ["input", b.const("axes", [1, 2])])
    b.add("flat", "MatMul", ["mean", b.weights("w", 8, 3 * 3 * 8 * 12)])
    b.with_const("kernel", "Reshape", "flat", [3, 3, 8, 12])
    b.add("conv", "Conv2D", ["input", "kernel"], strides=[1, 2, 2, 1], padding="SAME")
    b.add("columns", "MatMul", ["mean", b.weights("v", 8, 3 * 3 * 8)])
    b.with_const("each", "Reshape", "columns", [3, 3, 8, 1])
    b.add("depthwise", "DepthwiseConv2dNative", ["input", "each"], strides=[1, 1, 1, 1], padding="VALID")
    graph = read_model(b.graph_def, "pb")
    dense = 8 * 3 * 3 * 8 * 13
    assert flops(graph) == 2 * (5 * 6 * 12 * 8 * 9 + 7 * 9 * 8 * 9 + dense)
    shapes = {name: graph.nodes[name]["out_shapes"] for name in graph.graph["outputs"]}
    assert shapes == {"conv": [(1, 12, 5, 6)], "depthwise": [(1, 8, 7, 9)]}
    assert min(latencies(graph)) > 0


@pytest.mark.parametrize(
    ("equation", "inputs", "weight"),
    [
        ("abc,cde->abde", {"x": TOKENS}, (16, 2, 3)),
        ("bhqd,bhkd->bhqk", {"x": HEADS, "y": HEADS}, None),
        ("bgd,gdk->bgk", {"x": TOKENS}, (6, 16, 3)),
        ("...d,dk->...k", {"x": TOKENS}, (16, 3)),
    ],
)
def test_einsum_is_the_same_in_every_format(
    equation: str, inputs: dict[str, tuple[int, ...]], weight: tuple[int, ...] | None
) -> None:
    class Einsum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.ParameterList([torch.zeros(weight)] if weight else [])

        def forward(self, *tensors: Tensor) -> Tensor:
            return torch.einsum(equation, *tensors, *self.w)

    constants = {"w": weights(*weight)} if weight else {}
    names = " ".join([*inputs, *constants])
    found = [
        read_model(Einsum(), input_shape=list(inputs.values())),
        read_model(one("Einsum", names, constants, equation=equation, **inputs)),
        read_model(in_tensorflow("Einsum", inputs, {"w": weight} if weight else {}, equation=equation), "pb"),
    ]
    with FlopCounterMode(display=False) as counter:
        Einsum()(*map(torch.zeros, inputs.values()))
    assert {flops(graph) for graph in found} == {counter.get_total_flops()}
    for graph in found[1:]:
        assert latencies(graph) == pytest.approx(latencies(found[0]), rel=1e-9)


def test_recurrent_layers_of_tensorflow() -> None:
    rest = {"wci": (5,), "wcf": (5,), "wco": (5,), "b": (20,)}
    state = {"c": (1, 5), "h": (1, 5)}
    block = in_tensorflow("BlockLSTM", {"x": (1, 6, 16)}, {"n": np.array(1), **dict.fromkeys("ch", (6, 5)),
                          "w": (21, 20), **rest}, order=["n", "x", "c", "h", "w", *rest])  # fmt: skip
    works(read_model(block, "pb"), 6 * 4 * 5 * 21, "lstm")
    cell = in_tensorflow("LSTMBlockCell", {"x": (1, 16), **state}, {"w": (21, 20), **rest})
    works(read_model(cell, "pb"), 4 * 5 * 21, "lstm")
    gru = in_tensorflow("GRUBlockCell", {"x": (1, 16), "h": (1, 5)}, {"w": (21, 10), "v": (21, 5), "a": (10,),
                        "b": (5,)})  # fmt: skip
    works(read_model(gru, "pb"), 3 * 5 * 21, "gru")
    for mode, gates in (("lstm", 4), ("gru", 3), ("rnn_relu", 1)):
        constants = {"h": np.zeros((4, 6, 5)), "c": np.zeros((4, 6, 5)), "p": (999,)}
        attrs = {"rnn_mode": mode, "direction": "bidirectional"}
        graph = read_model(in_tensorflow("CudnnRNN", {"x": (1, 6, 16)}, constants, **attrs), "pb")
        op = mode.split("_")[0]
        states = ["concat"] * (2 if op == "lstm" else 1)
        works(graph, 6 * 2 * gates * 5 * (16 + 5 + 10 + 5), op, op, *states)


# nn-Meter IR


@pytest.mark.parametrize("module", [nn.LSTM(16, 5, 2, bidirectional=True, batch_first=True), nn.GRU(16, 5)])
def test_recurrent_layers_go_through_nn_meter_ir(module: nn.Module) -> None:
    graph = read_model(module, input_shape=TOKENS)
    other = read_model(to_nnmeter_ir(graph))
    assert flops(other) == flops(graph) > 0
    assert latencies(other) == pytest.approx(latencies(graph), rel=1e-9)
