"""Export to nn-Meter IR: reading it back gives the same kernels, in forms that nn-Meter 2.0 knows."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas import read_model
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph, set_outputs, validate
from nnmeter_nas.graph.shapes import infer_shapes
from nnmeter_nas.kernels.configuration import configuration, kernel_type
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.dataset import iter_models
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir

RULES = {device: parse_rules(card["fusion_rules"]) for device, card in devices().items()}


def kernels(graph: nx.DiGraph, device: str) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """Type, shapes and configuration of each kernel by name, and the edges between kernels."""
    fused = fuse(graph, RULES[device])
    found = {}
    for name, kernel in fused.nodes(data="kernel"):
        row = configuration(kernel) if kernel_type(kernel) else None
        found[name] = (kernel.type, kernel.in_shapes, kernel.out_shapes, row)
    return found, set(fused.edges)


def assert_same_kernels(graph: nx.DiGraph) -> None:
    """Assert that ``graph`` and the graph read from its IR have the same kernel graph on every device."""
    before = {name: dict(data) for name, data in graph.nodes(data=True)}
    ir = json.loads(json.dumps(to_nnmeter_ir(graph)))
    assert before == {name: dict(data) for name, data in graph.nodes(data=True)}
    again = read_model(ir, "nnmeter-ir")
    assert not again.graph["shape_mismatches"]
    for device in RULES:
        assert kernels(again, device) == kernels(graph, device)


class Cnn:
    """Builds a CNN operator by operator; ``last`` is the input of the next operator."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.graph = new_graph("cnn")
        self.last = add_input(self.graph, "image", (1, channels, height, width))
        self.shape = (channels, height, width)

    def add(self, op: str, attrs: dict[str, Any] | None = None, *inputs: Any) -> str:
        """Add an operator. By default its input is ``last``."""
        name = f"{len(self.graph)}.{op}"
        self.last = add_op(self.graph, name, op, inputs or [self.last], attrs)
        return name

    def infer_shape(self) -> None:
        """Infer the shape of ``last`` on a copy, so that choices can depend on it."""
        graph = copy.deepcopy(self.graph)
        infer_shapes(graph, validate(graph))
        self.shape = graph.nodes[self.last]["out_shapes"][0][1:]


def residual_network() -> nx.DiGraph:
    """A small network with most forms that exporters write."""
    net = Cnn(3, 32, 24)
    stem = {"kernel": (3, 5), "stride": (2, 1), "padding": [(1, 1), (2, 2)], "out_channels": 16}
    net.add("conv", stem)
    net.add("bn")
    entry = net.add("hswish")
    net.add("conv", {"kernel": (3, 3), "groups": 16, "padding": "same", "out_channels": 16})
    branch = net.add("bn")
    net.add("globalavgpool")
    net.add("conv", {"kernel": (1, 1), "out_channels": 4})
    net.add("relu")
    net.add("conv", {"kernel": (1, 1), "out_channels": 16})
    gate = net.add("hsigmoid")
    net.add("mul", None, branch, gate)
    net.add("add", None, net.last, entry)
    net.add("conv", {"kernel": (3, 3), "groups": 4, "padding": [(1, 1), (1, 1)], "out_channels": 16})
    net.add("channelshuffle", {"groups": 4})
    halves = net.add("split", {"axis": 1, "sections": 2})
    left = net.add("maxpool", {"kernel": (3, 3), "stride": (2, 2), "ceil_mode": True}, (halves, 0))
    right = net.add("avgpool", {"kernel": (2, 2), "stride": (2, 2), "padding": "same"}, (halves, 1))
    net.add("conv", {"kernel": (2, 2), "out_channels": 8}, left)
    narrow = net.last
    net.add("conv", {"kernel": (2, 2), "out_channels": 8}, right)
    net.add("concat", {"axis": 1}, narrow, net.last)
    net.add("globalavgpool", {"keepdims": True})
    net.add("flatten")
    net.add("fc", {"out_features": 10})
    net.add("softmax")
    return finish(net.graph)


def test_network_with_every_common_operator_keeps_its_kernels() -> None:
    assert_same_kernels(residual_network())


def test_official_models_of_every_family_keep_their_kernels(bench_dir: Path) -> None:
    files = sorted(bench_dir.glob("*.jsonl"))
    assert len(files) == 13
    for path in files:
        assert_same_kernels(read_model(next(iter_models(path)).graph))


def test_real_file_with_wrong_shapes_is_exported_with_correct_ones(shared_dir: Path) -> None:
    graph = read_model(shared_dir / "data" / "samples" / "mobilenetv3small_0.json")
    assert graph.graph["shape_mismatches"]
    assert_same_kernels(graph)


@pytest.mark.slow
def test_torch_networks_keep_their_kernels() -> None:
    torch = pytest.importorskip("torch")
    networks = pytest.importorskip("nnmeter_nas.benchmarks.networks")
    for name in networks.NETWORKS:
        with torch.device("meta"):
            module = networks.build_network(name)
        assert_same_kernels(read_model(module, "torch", networks.input_shape(name)))


def test_squeeze_excite_and_hswish_are_written_as_nn_meter_expects_them() -> None:
    ir = to_nnmeter_ir(residual_network())
    types = Counter(record["attr"]["type"] for record in ir.values())
    # Of h-swish, and of the gate of squeeze-excite.
    assert (types["Relu6"], types["hswish"]) == (2, 0)
    pool = next(name for name, record in ir.items() if record["attr"]["type"] == "AvgPool")
    chain, name = [], pool
    while len(chain) < 10:
        chain.append(ir[name]["attr"]["type"])
        name = ir[name]["outbounds"][0]
    expected = "AvgPool Conv2D BiasAdd Relu Conv2D BiasAdd Add Relu6 Mul Mul"
    assert chain == expected.split()


def test_shapes_are_nhwc_and_weights_have_tensorflows_layout() -> None:
    ir = to_nnmeter_ir(residual_network())
    [image] = [record for record in ir.values() if record["attr"]["type"] == "Placeholder"]
    assert image["attr"]["output_shape"] == [[1, 32, 24, 3]]
    stem, grouped = [r["attr"] for r in ir.values() if r["attr"]["type"] == "Conv2D"][::3][:2]
    assert stem["output_shape"] == [[1, 16, 24, 16]]
    assert stem["attr"]["weight_shape"] == [3, 5, 3, 16]
    assert stem["attr"]["pads"] == [1, 2, 1, 2]
    assert (grouped["attr"]["weight_shape"], grouped["attr"]["group"]) == ([3, 3, 4, 16], 4)
    [depthwise] = [r["attr"] for r in ir.values() if r["attr"]["type"] == "DepthwiseConv2dNative"]
    assert depthwise["attr"]["weight_shape"] == [3, 3, 16, 1]


def test_every_inbound_is_a_node_that_lists_its_consumer() -> None:
    ir = to_nnmeter_ir(residual_network())
    for name, record in ir.items():
        for inbound in record["inbounds"]:
            assert name in ir[inbound]["outbounds"]
        assert len(record["inbounds"]) == len(record["attr"]["input_shape"])


def test_uneven_split_keeps_its_pieces_separate() -> None:
    net = Cnn(8, 4, 4)
    pieces = net.add("split", {"axis": 1, "sections": [2, 6]})
    left = net.add("conv", {"kernel": (1, 1), "out_channels": 4}, (pieces, 0))
    right = net.add("conv", {"kernel": (1, 1), "out_channels": 4}, (pieces, 1))
    net.add("add", None, left, right)
    assert_same_kernels(finish(net.graph))


def test_operators_unknown_to_the_ir_keep_name_and_shapes() -> None:
    net = Cnn(4, 8, 8)
    net.add("upsample", {"scale": (2, 2)})
    net.add("pad", {"padding": [(0, 0), (0, 0), (1, 1), (1, 1)]})
    net.add("slice", {"axis": 2, "start": 1, "stop": 9})
    net.add("convtranspose", {"kernel": (2, 2), "stride": (2, 2), "out_channels": 3})
    graph = finish(net.graph)
    again = read_model(to_nnmeter_ir(graph))
    for name, shapes in graph.nodes(data="out_shapes"):
        assert again.nodes[name]["out_shapes"] == shapes
    kinds = {record["attr"]["type"] for record in to_nnmeter_ir(graph).values()}
    assert kinds == {"Placeholder", "ResizeBilinear", "PadV2", "StridedSlice", "Conv2DBackpropInput"}


def test_model_with_two_inputs_and_two_outputs_keeps_its_kernels() -> None:
    graph = new_graph("two")
    for side in ("left", "right"):
        add_input(graph, side, (1, 4, 8, 8))
        add_op(graph, f"{side}/conv", "conv", [side], {"kernel": (1, 1), "out_channels": 4})
    add_op(graph, "sum", "add", ["left/conv", "right/conv"])
    add_op(graph, "a", "relu", ["sum"])
    add_op(graph, "b", "sigmoid", ["sum"])
    set_outputs(graph, ["a", "b"])
    assert_same_kernels(finish(graph))


SIZES = st.integers(1, 3)
ACTIVATIONS = [
    "bn", "relu", "relu6", "hswish", "hsigmoid", "sigmoid", "swish", "leakyrelu", "gelu", "tanh", "clip",
    "elu",
]  # fmt: skip
STEPS: dict[str, Callable[[Cnn, st.DataObject], None]] = {}


def step(build: Callable[[Cnn, st.DataObject], None]) -> Callable[[Cnn, st.DataObject], None]:
    """Register a function that adds operators to a network."""
    STEPS[build.__name__] = build
    return build


@step
def convolution(net: Cnn, data: st.DataObject) -> None:
    """Any kernel, stride, dilation, padding and groups."""
    groups = data.draw(st.sampled_from([g for g in range(1, net.shape[0] + 1) if net.shape[0] % g == 0]))
    kernel = data.draw(st.tuples(SIZES, SIZES))
    dilation = data.draw(st.sampled_from([(1, 1), (2, 2)]))
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    padding = data.draw(st.sampled_from(["same", [(reach[0], 0), (1, reach[1])]]))
    attrs = {"kernel": kernel, "stride": data.draw(st.tuples(SIZES, SIZES)), "dilation": dilation,
             "padding": padding, "groups": groups, "out_channels": groups * data.draw(SIZES)}  # fmt: skip
    net.add("conv", attrs)


@step
def pool(net: Cnn, data: st.DataObject) -> None:
    """Both kinds, rounding up or down."""
    kernel = tuple(min(k, s) for k, s in zip(data.draw(st.tuples(SIZES, SIZES)), net.shape[1:], strict=True))
    attrs = {"kernel": kernel, "stride": kernel, "ceil_mode": data.draw(st.booleans()),
             "padding": data.draw(st.sampled_from(["same", "valid"]))}  # fmt: skip
    net.add(data.draw(st.sampled_from(["maxpool", "avgpool"])), attrs)


@step
def activation(net: Cnn, data: st.DataObject) -> None:
    """An operator with one operand that keeps the shape."""
    net.add(data.draw(st.sampled_from(ACTIVATIONS)))


@step
def constant(net: Cnn, data: st.DataObject) -> None:
    """A scalar, or one value per channel."""
    attrs = data.draw(st.sampled_from([{"const": 2.0}, {"const_shape": (net.shape[0], 1, 1)}]))
    net.add(data.draw(st.sampled_from(["add", "mul", "sub", "div"])), attrs)


@step
def residual(net: Cnn, data: st.DataObject) -> None:
    """A sum or product with an earlier operator."""
    before = net.last
    net.add("conv", {"kernel": (1, 1), "out_channels": net.shape[0]})
    net.add(data.draw(st.sampled_from(["add", "mul", "maximum"])), None, net.last, before)


@step
def branches(net: Cnn, data: st.DataObject) -> None:
    """A split and a join, along any axis except the batch."""
    axis = data.draw(st.integers(1, 3))
    size = net.shape[axis - 1]
    if size < 2:
        return
    first = data.draw(st.integers(1, size - 1))
    pieces = net.add("split", {"axis": axis, "sections": [first, size - first]})
    left = net.add("relu", None, (pieces, 0))
    net.add("sigmoid", None, (pieces, 1))
    net.add("concat", {"axis": axis}, net.last, left)


@step
def shuffle(net: Cnn, data: st.DataObject) -> None:
    """A channel shuffle in groups."""
    if net.shape[0] % 2 == 0:
        net.add("channelshuffle", {"groups": 2})


@step
def transposed(net: Cnn, data: st.DataObject) -> None:
    """Any order of channels and map that moves data.

    Another one is a view. Views join, so a channel shuffle beside one could be on either shape of the map.
    """
    perm = data.draw(st.permutations([1, 2, 3]))
    longer = [axis for axis in perm if net.shape[axis - 1] > 1]
    if longer != sorted(longer):
        net.add("transpose", {"perm": (0, *perm)})


@step
def squeeze_excite(net: Cnn, data: st.DataObject) -> None:
    """With the gates that networks use."""
    entry = net.last
    net.add("globalavgpool")
    net.add("conv", {"kernel": (1, 1), "out_channels": 2})
    net.add("relu")
    net.add("conv", {"kernel": (1, 1), "out_channels": net.shape[0]})
    gate = data.draw(st.sampled_from(["sigmoid", "hsigmoid", "spelled out"]))
    if gate == "spelled out":
        net.add("add", {"const": 3.0})
        net.add("relu6")
        net.add("div", {"const": 6.0})
    else:
        net.add(gate)
    net.add("mul", None, entry, net.last)


@given(st.data())
def test_any_cnn_keeps_its_kernels(data: st.DataObject) -> None:
    net = Cnn(*data.draw(st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12))))
    net.add("relu")
    for name in data.draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8)):
        STEPS[name](net, data)
        net.infer_shape()
    if data.draw(st.booleans()):
        net.add("globalavgpool", {"keepdims": data.draw(st.booleans())})
        net.add("flatten")
        net.add("fc", {"out_features": 10})
    assert_same_kernels(finish(net.graph))
