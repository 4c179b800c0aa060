"""Frozen TensorFlow graphs are read without TensorFlow, with its padding, layouts and forms of layers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from tensorboard.compat.proto import attr_value_pb2, graph_pb2

from ir_to_tensorflow import graph_def_of_ir
from nnmeter_nas.errors import GraphError, MissingPackageError, ReaderError, ShapeError
from nnmeter_nas.kernels.configuration import configuration, kernel_type
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.predictor import load_latency_predictor
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.inputs import InputShape
from nnmeter_nas.readers.tensorflow.graphdef import read_tf_graphdef
from tf_graphs import TfBuilder, official_mobilenet, set_attr, shape_proto

RULES = parse_rules(
    ["conv->bn", "conv->relu", "dwconv->bn", "dwconv->relu", "conv->hswish", "bn->relu", "fc->relu"]
)


def read(builder: TfBuilder, input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read the graph of ``builder``."""
    return read_tf_graphdef(builder.graph_def, input_shape)


def shape(graph: nx.DiGraph, name: str) -> tuple[int, ...]:
    """NCHW shape of the first output of ``name``."""
    result: tuple[int, ...] = graph.nodes[name]["out_shapes"][0]
    return result


def operators(graph: nx.DiGraph) -> Counter[str]:
    """Count each canonical operator of a model graph."""
    return Counter(op for _, op in graph.nodes(data="op") if op != "input")


def kernels(graph: nx.DiGraph) -> Counter[str]:
    """Count each kernel type under :data:`RULES`."""
    return Counter(kernel.type for _, kernel in fuse(graph, RULES).nodes(data="kernel"))


# Files, messages and installation


def test_file_and_message_give_the_same_model(tmp_path: Path) -> None:
    graph_def = official_mobilenet()
    path = tmp_path / "model.pb"
    path.write_bytes(graph_def.SerializeToString())
    from_message = read_model(graph_def)
    for source in (path, str(path)):
        assert dict(read_model(source).nodes(data=True)) == dict(from_message.nodes(data=True))


def test_reading_does_not_change_the_message() -> None:
    graph_def = official_mobilenet()
    before = graph_def.SerializeToString(deterministic=True)
    read_tf_graphdef(graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before


def test_reading_imports_neither_tensorflow_nor_the_rest_of_tensorboard(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(official_mobilenet().SerializeToString())
    script = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        f"import nnmeter_nas; nnmeter_nas.read_model({str(path)!r})\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'nni', 'onnx', 'grpc', 'werkzeug')])\n"
        "print([m for m in sys.modules if m.startswith('tensorboard.') and 'compat' not in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, of_tensorboard = done.stdout.splitlines()
    assert heavy == "[]"
    assert of_tensorboard == "['tensorboard.lazy', 'tensorboard.version']"


def test_benchmark_models_get_the_kernels_of_their_ir_files(bench_dir: Path) -> None:
    files = sorted(bench_dir.glob("*.jsonl"))
    assert len(files) >= 12
    for path in files:
        with path.open(encoding="utf-8") as lines:
            ir = json.loads(next(lines))["graph"]
        found = [
            Counter(
                (kernel.type, configuration(kernel) if kernel_type(kernel) else None)
                for _, kernel in fuse(graph, RULES).nodes(data="kernel")
            )
            for graph in (read_model(ir), read_model(graph_def_of_ir(ir)))
        ]
        assert found[0] == found[1], path.name


def test_benchmark_models_get_the_measured_latency(bench_dir: Path) -> None:
    device = "cortexA76cpu_tflite21"
    predictor = load_latency_predictor(device)
    within = []
    for path in sorted(bench_dir.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            record = json.loads(next(lines))
        predicted = predictor.predict(graph_def_of_ir(record["graph"]))
        within.append(abs(predicted / record[device] - 1) < 0.1)
    assert np.mean(within) > 0.9


def test_official_form_of_a_mobile_network_is_recognised() -> None:
    graph = read_tf_graphdef(official_mobilenet(blocks=2))
    assert kernels(graph) == {
        "conv": 3, "conv-bn-hswish": 2, "dwconv": 2, "se": 2, "add": 2, "globalavgpool": 1, "fc": 1,
    }  # fmt: skip
    assert not graph.graph["shape_mismatches"]


def test_error_without_tensorboard_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(official_mobilenet().SerializeToString())
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.graph_pb2", None)
    with pytest.raises(MissingPackageError, match=r"TensorFlow graphs needs .*nnmeter_nas\[tensorflow\]"):
        read_model(path)


# Inputs


def test_unknown_batch_is_1() -> None:
    b = TfBuilder((-1, 17, 19, 3))
    b.conv("conv", "input", (3, 3, 3, 8), 2)
    graph = read(b)
    assert shape(graph, "input") == (1, 3, 17, 19)
    assert shape(graph, "conv") == (1, 8, 9, 10)


def test_error_for_another_batch_names_the_input() -> None:
    b = TfBuilder((2, 17, 19, 3))
    b.add("relu", "Relu", ["input"])
    with pytest.raises(ShapeError, match=r"operator 'input'.*batch is 2"):
        read(b)


def test_unknown_map_size_needs_input_shape_in_nchw() -> None:
    b = TfBuilder((-1, -1, -1, 3))
    b.conv("conv", "input", (3, 3, 3, 8), 2)
    way_out = r"'input'.*unknown sizes; pass input_shape.*\(1, 3, 224, 224\)\} \(NCHW\)"
    with pytest.raises(ReaderError, match=way_out):
        read(b)
    for given in ((1, 3, 30, 20), [(1, 3, 30, 20)], {"input": (1, 3, 30, 20)}):
        assert shape(read(b, given), "conv") == (1, 8, 15, 10)


def test_placeholder_without_shape_needs_input_shape() -> None:
    b = TfBuilder(None)
    b.add("image", "Placeholder", [])
    b.conv("conv", "image", (3, 3, 3, 8))
    with pytest.raises(ReaderError, match=r"'image'.*pass input_shape"):
        read(b)
    assert shape(read(b, (1, 3, 8, 8)), "conv") == (1, 8, 8, 8)


def test_several_input_shapes_are_matched_by_name_or_order() -> None:
    b = TfBuilder((-1, 8, 8, 3))
    b.placeholder("scale", (-1, 3))
    b.add("product", "Mul", ["input", b.with_const("map", "Reshape", "scale", [-1, 1, 1, 3])])
    assert shape(read(b), "product") == (1, 3, 8, 8)
    assert shape(read(b, {"input": (1, 3, 4, 6)}), "product") == (1, 3, 4, 6)
    assert shape(read(b, [(1, 3, 4, 6), (1, 3)]), "product") == (1, 3, 4, 6)


def test_scalar_placeholder_is_a_switch_and_not_an_input() -> None:
    b = TfBuilder()
    b.placeholder("keep_prob", ())
    b.add("scaled", "RealDiv", ["input", "keep_prob"])
    assert [n for n, op in read(b, (1, 3, 8, 8)).nodes(data="op") if op == "input"] == ["input"]


# Windows


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_and_valid_padding_are_tensorflows(size: int, kernel: int, stride: int) -> None:
    b = TfBuilder((1, size, size + 1, 3))
    for padding in ("SAME", "VALID"):
        b.conv(f"conv{padding}", "input", (kernel, kernel, 3, 8), stride, padding)
        b.pool(f"pool{padding}", "input", "AvgPool", kernel, stride, padding)
    graph = read(b)
    for name in ("conv", "pool"):
        same, valid = shape(graph, f"{name}SAME")[2:], shape(graph, f"{name}VALID")[2:]
        # https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
        assert same == (-(-size // stride), -(-(size + 1) // stride))
        assert valid == (-(-(size - kernel + 1) // stride), -(-(size - kernel + 2) // stride))


def test_dilation_changes_the_output_only_with_valid_padding() -> None:
    b = TfBuilder((1, 20, 20, 3))
    b.conv("same", "input", (3, 3, 3, 8), padding="SAME", dilations=[1, 2, 3, 1])
    b.conv("valid", "input", (3, 3, 3, 8), padding="VALID", dilations=[1, 2, 3, 1])
    graph = read(b)
    assert shape(graph, "same") == (1, 8, 20, 20)
    assert shape(graph, "valid") == (1, 8, 16, 14)
    assert graph.nodes["valid"]["attrs"]["dilation"] == (2, 3)


def test_explicit_padding_pads_the_map() -> None:
    b = TfBuilder((1, 20, 20, 3))
    pads = [0, 0, 1, 2, 3, 0, 0, 0]
    b.conv("conv", "input", (3, 3, 3, 8), 2, "EXPLICIT", explicit_paddings=pads)
    graph = read(b)
    assert graph.nodes["conv"]["attrs"]["padding"] == [(1, 2), (3, 0)]
    assert shape(graph, "conv") == (1, 8, 11, 11)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_with_a_multiplier_has_more_outputs(multiplier: int) -> None:
    b = TfBuilder((1, 9, 9, 6))
    b.conv("conv", "input", (3, 3, 6, multiplier), 2, depthwise=True)
    data = read(b).nodes["conv"]
    assert data["op"] == "dwconv"
    assert data["out_shapes"] == [(1, 6 * multiplier, 5, 5)]


def test_weights_determine_the_groups_of_a_convolution() -> None:
    b = TfBuilder((1, 9, 9, 8))
    b.conv("conv", "input", (3, 3, 2, 16))
    assert read(b).nodes["conv"]["attrs"]["groups"] == 4


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(2, 2, "SAME", 18), (3, 2, "SAME", 17), (4, 2, "VALID", 20), (3, 1, "SAME", 9), (2, 3, "VALID", 26),
     (2, 3, "VALID", 27), (5, 1, "VALID", 13)],
)  # fmt: skip
def test_transposed_convolution_has_the_output_size_of_its_operand(
    kernel: int, stride: int, padding: str, size: int
) -> None:
    b = TfBuilder((1, 9, 9, 8))
    wanted = b.const("size", [1, size, size, 5])
    weights = b.weights("weights", kernel, kernel, 5, 8)
    operands = [wanted, weights, "input"]
    b.add("up", "Conv2DBackpropInput", operands, strides=[1, stride, stride, 1], padding=padding)
    data = read(b).nodes["up"]
    assert (data["op"], data["out_shapes"]) == ("convtranspose", [(1, 5, size, size)])


def test_transposed_convolution_to_an_impossible_size_is_rejected() -> None:
    b = TfBuilder((1, 9, 9, 8))
    operands = [b.const("size", [1, 40, 40, 5]), b.weights("weights", 3, 3, 5, 8), "input"]
    b.add("up", "Conv2DBackpropInput", operands, strides=[1, 2, 2, 1], padding="SAME")
    with pytest.raises(ShapeError, match=r"'up'.*does not fit"):
        read(b)


def test_dilation_written_as_space_to_batch_is_recognised() -> None:
    b = TfBuilder((1, 65, 45, 3))
    padded = b.const("paddings", [[2, 3], [2, 3]])
    blocks = b.add("blocks", "SpaceToBatchND", ["input", b.const("block", [2, 2]), padded])
    conv = b.conv("conv", blocks, (3, 3, 3, 16), padding="VALID")
    b.add("map", "BatchToSpaceND", [conv, "block", b.const("crops", [[0, 1], [0, 1]])])
    b.add("relu", "Relu", [b.bias("bias", "map", 16)])
    graph = read(b)
    assert kernels(graph) == {"conv-relu": 1}
    assert graph.nodes["map"]["attrs"]["dilation"] == (2, 2)
    assert shape(graph, "map") == (1, 16, 65, 45)


def test_padding_before_a_convolution_becomes_its_padding() -> None:
    b = TfBuilder((1, 32, 32, 3))
    pad = b.with_const("pad", "Pad", "input", [[0, 0], [0, 1], [0, 1], [0, 0]])
    b.conv("conv", pad, (3, 3, 3, 8), 2, "VALID")
    graph = read(b)
    assert operators(graph) == {"conv": 1}
    assert shape(graph, "conv") == (1, 8, 16, 16)


@pytest.mark.parametrize("op", ["MirrorPad", "PadV2", "Pad"])
def test_padding_without_a_convolution_stays(op: str) -> None:
    b = TfBuilder((1, 32, 32, 3))
    paddings = b.const("paddings", [[0, 0], [1, 2], [3, 4], [0, 2 if op == "Pad" else 0]])
    extra = {"MirrorPad": {"mode": "REFLECT"}}.get(op, {})
    b.add("pad", op, ["input", paddings, *([b.const("one", 1.0)] if op == "PadV2" else [])], **extra)
    b.conv("conv", "pad", (3, 3, 5 if op == "Pad" else 3, 8), 1, "VALID")
    graph = read(b)
    assert operators(graph) == {"pad": 1, "conv": 1}
    assert shape(graph, "pad") == (1, 5 if op == "Pad" else 3, 35, 39)


# Layout


def test_channels_first_graph_keeps_its_axes() -> None:
    b = TfBuilder((-1, 3, 64, 48))
    weights = b.weights("weights", 3, 3, 3, 16)
    strides = [1, 1, 2, 2]
    b.add("conv", "Conv2D", ["input", weights], strides=strides, padding="SAME", data_format="NCHW")
    b.add("relu", "Relu", [b.bias("bias", "conv", 16, data_format="NCHW")])
    b.mean("mean", "relu", (2, 3))
    b.dense("fc", "mean", 16, 10)
    graph = read(b)
    assert kernels(graph) == {"conv-relu": 1, "globalavgpool": 1, "fc": 1}
    assert shape(graph, "conv") == (1, 16, 32, 24)


def test_nhwc_to_nchw_is_free_in_a_channels_first_graph() -> None:
    b = TfBuilder((-1, 64, 48, 3))
    turned = b.with_const("turn", "Transpose", "input", [0, 3, 1, 2])
    weights = b.weights("weights", 3, 3, 3, 16)
    b.add("conv", "Conv2D", [turned, weights], strides=[1, 1, 1, 1], padding="SAME", data_format="NCHW")
    b.with_const("back", "Transpose", "conv", [0, 2, 3, 1])
    b.pool("pool", "back")
    graph = read(b)
    assert operators(graph) == {"conv": 1, "maxpool": 1}
    assert shape(graph, "pool") == (1, 16, 32, 24)


def test_transpose_in_a_channels_last_graph_moves_data() -> None:
    b = TfBuilder((-1, 8, 6, 3))
    b.with_const("turn", "Transpose", "input", [0, 3, 1, 2])
    b.with_const("flat", "Reshape", "turn", [-1, 3 * 8 * 6])
    b.dense("fc", "flat", 3 * 8 * 6, 10)
    graph = read(b)
    assert operators(graph) == {"transpose": 1, "reshape": 1, "fc": 1}


def test_concat_split_and_slices_find_their_axis() -> None:
    b = TfBuilder((-1, 8, 6, 4))
    b.add("split", "Split", [b.const("axis", -1), "input"], num_split=2)
    b.add("rows", "ConcatV2", ["split", "split:1", b.const("row_axis", 1)])
    b.add("parts", "SplitV", ["input", b.const("sizes", [2, -1]), b.const("map_axis", 2)])
    bounds = [b.const("begin", [0, 1, 0]), b.const("end", [0, -1, 0]), b.const("steps", [1, 2, 1])]
    b.add("cut", "StridedSlice", ["input", *bounds], begin_mask=0b101, end_mask=0b101)
    bounds = [b.const("from", [0, 0, 2, 1]), b.const("size", [-1, 4, -1, 2])]
    b.add("relu", "Relu", [b.add("part", "Slice", ["input", *bounds])])
    graph = read(b)
    assert graph.nodes["split"]["out_shapes"] == [(1, 2, 8, 6), (1, 2, 8, 6)]
    assert shape(graph, "rows") == (1, 2, 16, 6)
    assert graph.nodes["parts"]["out_shapes"] == [(1, 4, 8, 2), (1, 4, 8, 4)]
    assert shape(graph, "cut") == (1, 4, 3, 6)
    assert shape(graph, "relu") == (1, 2, 4, 4)


def test_ellipsis_and_new_axis_of_a_strided_slice_are_read() -> None:
    b = TfBuilder((-1, 8, 6, 4))
    bounds = [b.const("begin", [0, 0, 1]), b.const("end", [0, 0, 3]), b.const("steps", [1, 1, 1])]
    b.add("cut", "StridedSlice", ["input", *bounds], ellipsis_mask=1, new_axis_mask=2)
    b.add("shape", "Shape", ["cut"])
    b.add("flat", "Reshape", ["cut", b.with_const("all", "Sub", "shape", [0, 0, 0, 0, 0])])
    b.mean("mean", "flat", (1, 2, 3))
    assert shape(read(b), "mean") == (1, 2)


def test_mean_over_other_axes_is_not_a_global_pool() -> None:
    b = TfBuilder((-1, 8, 6, 4))
    b.mean("channels", "input", (3,), keep_dims=True)
    b.mean("rows", "input", (1,))
    b.mean("map", "input", (1, 2))
    graph = read(b)
    assert operators(graph) == {"mean": 2, "globalavgpool": 1}
    assert shape(graph, "channels") == (1, 1, 8, 6)
    assert shape(graph, "rows") == (1, 4, 6)
    assert shape(graph, "map") == (1, 4)


def test_dense_layer_on_a_map_applies_to_every_position() -> None:
    b = TfBuilder((-1, 8, 6, 4))
    rows = b.with_const("rows", "Reshape", "input", [-1, 4])
    product = b.dense("fc", rows, 4, 10)
    b.with_const("map", "Reshape", product, [-1, 8, 6, 10])
    graph = read(b)
    [kernel] = [kernel for _, kernel in fuse(graph, RULES).nodes(data="kernel")]
    assert kernel.in_shapes == [(1, 48, 4)]
    assert kernel.out_shapes == [(1, 48, 10)]


def test_attention_multiplies_computed_matrices() -> None:
    b = TfBuilder((-1, 10, 8))
    product = b.add("scores", "BatchMatMulV2", ["input", "input"], adj_y=True)
    weighted = b.add("softmax", "Softmax", [product])
    b.add("values", "BatchMatMulV2", [weighted, "input"])
    graph = read(b)
    assert (shape(graph, "scores"), shape(graph, "values")) == ((1, 10, 10), (1, 10, 8))


# Fusion


def test_bias_and_activation_fuse_into_the_convolution() -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    last = b.add("relu", "Relu", [b.bias("bias", last, 8)])
    last = b.conv("depthwise", last, (3, 3, 8, 1), depthwise=True)
    b.add("relu6", "Relu6", [b.batch_norm("bn", last, 8)])
    assert kernels(read(b)) == {"conv-relu": 1, "dwconv-bn-relu6": 1}


def test_batch_norm_written_as_product_and_sum_folds_into_the_convolution() -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    last = b.add("scaled", "Mul", [last, b.weights("scale", 8)])
    last = b.add("shifted", "AddV2", [b.weights("offset", 1, 1, 1, 8), last])
    b.add("relu", "Relu", [last])
    assert kernels(read(b)) == {"conv-bn-relu": 1}


def test_batch_norm_scale_may_be_computed_from_constants() -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    inverse = b.add("rsqrt", "Rsqrt", [b.with_const("eps", "Add", b.weights("variance", 8), 1e-3)])
    scale = b.add("scale", "Mul", [inverse, b.weights("gamma", 8)])
    shift = b.add("shift", "Sub", [b.weights("beta", 8), b.add("mean", "Mul", [b.weights("m", 8), scale])])
    b.add("bn", "AddV2", [b.add("scaled", "Mul", [last, scale]), shift])
    assert kernels(read(b)) == {"conv-bn": 1}


def test_hand_written_batch_norm_without_a_convolution_is_one_kernel() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    last = b.add("scaled", "Mul", ["input", b.weights("scale", 4)])
    b.add("relu", "Relu", [b.add("shifted", "AddV2", [last, b.weights("offset", 4)])])
    assert kernels(read(b)) == {"bn-relu": 1}


@pytest.mark.parametrize("constant", [(32, 1, 1), (32, 32, 8), (32, 1, 8)])
def test_constant_that_is_not_per_channel_is_not_a_batch_norm(constant: tuple[int, ...]) -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    b.add("sum", "AddV2", [last, b.weights("table", *constant)])
    assert kernels(read(b)) == {"conv": 1, "add": 1}


def test_constant_minus_the_map_is_not_a_bias() -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    b.add("difference", "Sub", [b.weights("table", 8), last])
    assert kernels(read(b)) == {"conv": 1, "sub": 1}


def test_convolution_with_two_consumers_keeps_its_bias_separate() -> None:
    b = TfBuilder()
    last = b.conv("conv", "input", (3, 3, 3, 8))
    b.add("relu", "Relu", [last])
    b.bias("bias", last, 8)
    assert kernels(read(b)) == {"conv": 1, "relu": 1, "add": 1}


@pytest.mark.parametrize("divides", [False, True])
def test_h_swish_is_one_operator(divides: bool) -> None:
    b = TfBuilder()
    last = b.batch_norm("bn", b.conv("conv", "input", (3, 3, 3, 8)), 8)
    b.h_swish("h_swish", last, divides)
    assert kernels(read(b)) == {"conv-bn-hswish": 1}


def test_swish_with_a_factor_of_one_is_one_operator_too() -> None:
    b = TfBuilder()
    gate = b.add("gate", "Sigmoid", [b.with_const("beta", "Mul", "input", 1.0)])
    b.add("swish", "Mul", ["input", gate])
    assert operators(read(b)) == {"swish": 1}


@pytest.mark.parametrize("dense", [False, True])
def test_squeeze_excite_is_one_kernel(dense: bool) -> None:
    b = TfBuilder((-1, 14, 14, 16))
    entry = b.add("relu", "Relu", ["input"])
    gate = b.mean("squeeze", entry, keep_dims=not dense)
    if dense:
        gate = b.add("inner", "Relu", [b.bias("bias", b.dense("reduce", gate, 16, 4), 4)])
        gate = b.add("outer", "Sigmoid", [b.bias("bias2", b.dense("expand", gate, 4, 16), 16)])
        gate = b.with_const("map", "Reshape", gate, [-1, 1, 1, 16])
    else:
        gate = b.add("inner", "Relu", [b.bias("bias", b.conv("reduce", gate, (1, 1, 16, 4)), 4)])
        gate = b.add("outer", "Sigmoid", [b.bias("bias2", b.conv("expand", gate, (1, 1, 4, 16)), 16)])
    b.add("excite", "Mul", [entry, gate])
    assert kernels(read(b)) == {"relu": 1, "se": 1}


@pytest.mark.parametrize("spelling", ["five axes", "four axes", "three axes", "channels first", "computed"])
def test_channel_shuffle_is_one_kernel(spelling: str) -> None:
    first = spelling == "channels first"
    b = TfBuilder((-1, 12, 8, 6) if first else (-1, 8, 6, 12))
    back: str | list[int] = [-1, 12, 8, 6] if first else [-1, 8, 6, 12]
    inner: list[int]
    if spelling == "five axes":
        inner, perm = [-1, 8, 6, 2, 6], [0, 1, 2, 4, 3]
    elif spelling == "four axes":
        inner, perm = [8, 6, 2, 6], [0, 1, 3, 2]
    elif spelling == "three axes":
        inner, perm = [48, 2, 6], [0, 2, 1]
    elif first:
        inner, perm = [-1, 2, 6, 8, 6], [0, 2, 1, 3, 4]
    else:
        inner, perm = [], [0, 1, 2, 4, 3]
    entry = "input"
    if first:
        attrs = {"strides": [1, 1, 1, 1], "padding": "SAME", "data_format": "NCHW"}
        entry = b.add("conv", "Conv2D", ["input", b.weights("w", 1, 1, 12, 12)], **attrs)
    shape_of = b.add("shape", "Shape", [entry])
    if spelling == "computed":
        sizes = []
        for i in range(3):
            bounds = [b.const(f"size{i}/{part}", [value]) for part, value in enumerate((i, i + 1, 1))]
            sizes.append(b.add(f"size{i}", "StridedSlice", [shape_of, *bounds], shrink_axis_mask=1))
        target = b.add("target", "Pack", [*sizes, b.const("groups", 2), b.const("width", 6)], axis=0)
    else:
        target = b.const("target", inner)
    apart = b.add("apart", "Reshape", [entry, target])
    swapped = b.with_const("swapped", "Transpose", apart, perm)
    b.add("joined", "Reshape", [swapped, shape_of if spelling == "computed" else b.const("back", back)])
    b.pool("pool", "joined") if not first else b.add("relu", "Relu", ["joined"])
    expected = {"channelshuffle": 1, **({"conv": 1, "relu": 1} if first else {"maxpool": 1})}
    assert kernels(read(b)) == expected


@pytest.mark.parametrize("behind", ["Squeeze", "Reshape"])
def test_global_pool_written_as_mean_or_window_with_a_view_is_recognised(behind: str) -> None:
    b = TfBuilder((-1, 7, 7, 16))
    b.mean("mean", "input", keep_dims=True)
    b.pool("window", "input", "AvgPool", 7, 1, "VALID")
    for source in ("mean", "window"):
        if behind == "Squeeze":
            flat = b.add(f"{source}/flat", "Squeeze", [source], squeeze_dims=[1, 2])
        else:
            flat = b.with_const(f"{source}/flat", "Reshape", source, [-1, 16])
        b.dense(f"{source}/fc", flat, 16, 10)
    assert kernels(read(b)) == {"globalavgpool": 2, "fc": 2}


def test_layers_fused_by_tensorflows_optimiser_are_split() -> None:
    b = TfBuilder()
    weights = [b.weights("w", 3, 3, 3, 8), b.weights("b", 8)]
    b.add("conv", "_FusedConv2D", ["input", *weights], strides=[1, 1, 1, 1], padding="SAME")
    b.graph_def.node[-1].attr["fused_ops"].list.s.extend([b"BiasAdd", b"Relu"])
    assert kernels(read(b)) == {"conv-relu": 1}


# Shape arithmetic, branches, functions


def test_flatten_to_a_computed_shape_is_folded() -> None:
    b = TfBuilder((-1, 7, 5, 16))
    size = b.add("shape", "Shape", ["input"])
    bounds = [b.const(f"bound{i}", [v]) for i, v in enumerate((1, 4, 1))]
    rest = b.add("rest", "StridedSlice", [size, *bounds])
    count = b.with_const("count", "Prod", rest, [0])
    target = b.add("target", "Pack", [b.const("open", -1), count])
    b.dense("fc", b.add("flat", "Reshape", ["input", target]), 560, 10)
    assert operators(read(b)) == {"reshape": 1, "fc": 1}


def test_size_computed_from_the_shape_is_folded() -> None:
    b = TfBuilder((-1, 7, 5, 16))
    size = b.add("shape", "Shape", ["input"])
    bounds = [b.const(f"bound{i}", [v]) for i, v in enumerate((1, 3, 1))]
    size = b.with_const("double", "Mul", b.add("map", "StridedSlice", [size, *bounds]), [2, 2])
    b.add("up", "ResizeNearestNeighbor", ["input", size])
    assert shape(read(b), "up") == (1, 16, 14, 10)


@pytest.mark.parametrize("training", [False, True])
def test_branch_with_a_constant_condition_is_resolved(training: bool) -> None:
    b = TfBuilder((-1, 8, 8, 4))
    condition = b.const("is_training", training)
    b.add("switch", "Switch", ["input", condition])
    b.add("off", "Relu", ["switch"])
    b.add("on", "Tanh", ["switch:1", "^off"])
    b.pool("pool", b.add("merge", "Merge", ["off", "on"]))
    assert operators(read(b)) == {"tanh" if training else "relu": 1, "maxpool": 1}


def test_branch_chosen_at_run_time_is_rejected() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.placeholder("is_training", ())
    b.add("switch", "Switch", ["input", "is_training"])
    b.add("merge", "Merge", ["switch", "switch:1"])
    with pytest.raises(ReaderError, match=r"'switch' \(Switch\).*'is_training' chooses.*is_training=False"):
        read(b)


@pytest.mark.parametrize("swap", [False, True])
def test_of_a_choice_on_data_the_costlier_branch_counts_and_a_note_says_so(swap: bool) -> None:
    b = TfBuilder((-1, 8, 8, 4))
    flag = b.with_const("flag", "Greater", b.mean("mean", "input", (0, 1, 2, 3)), 0.5)
    b.add("switch", "Switch", ["input", flag])
    b.add("cheap", "Relu", ["switch:1"])
    b.conv("dear", "switch", (3, 3, 4, 4))
    b.pool("pool", b.add("merge", "Merge", ["cheap", "dear"][:: -1 if swap else 1]))
    graph = read(b)
    assert operators(graph) == {"mean": 1, "greater": 1, "given": 1, "conv": 1, "maxpool": 1}
    assert "'merge' (Merge) takes one of 2 branches" in graph.graph["notes"][0]
    assert "'dear', is counted" in graph.graph["notes"][0]


def test_a_choice_on_data_of_different_shapes_is_unknown() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    flag = b.with_const("flag", "Greater", b.mean("mean", "input", (0, 1, 2, 3)), 0.5)
    b.add("switch", "Switch", ["input", flag])
    b.conv("wide", "switch", (3, 3, 4, 6))
    b.add("relu", "Relu", [b.add("merge", "Merge", ["switch:1", "wide"])])
    found = load_latency_predictor("cortexA76cpu_tflite21").explain(read(b))
    assert found.unpredicted == {"merge": "merge", "relu": "relu of unknown size"}


def test_placeholder_with_default_is_read() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("is_training", "PlaceholderWithDefault", [b.const("no", False)], shape=shape_proto(()))
    b.add("switch", "Switch", ["input", "is_training"])
    b.pool("pool", b.add("merge", "Merge", ["switch", "switch:1"]))
    assert operators(read(b)) == {"maxpool": 1}


def with_function(body_op: str = "Relu", calls_itself: bool = False) -> TfBuilder:
    """A graph that calls a function with two results: it splits its argument and activates one half."""
    b = TfBuilder((-1, 8, 8, 4))
    function = b.graph_def.library.function.add()
    function.signature.name = "halves"
    function.signature.input_arg.add(name="x")
    function.signature.output_arg.add(name="left")
    function.signature.output_arg.add(name="right")
    inner = TfBuilder(None)
    inner.const("axis", 3)
    inner.add("split", "Split", ["axis:output:0", "x"], num_split=2)
    if calls_itself:
        call = inner.add("again", "PartitionedCall", ["x"])
        set_attr(inner.graph_def.node[-1], "f", attr_value_pb2.NameAttrList(name="halves"))
        inner.add("act", body_op, [f"{call}:output:1"])
    else:
        inner.add("act", body_op, ["split:output:1", "^split"])
    function.node_def.extend(inner.graph_def.node)
    function.ret["left"], function.ret["right"] = "split:output:0", "act:activations:0"
    b.add("call", "StatefulPartitionedCall", ["input"], f=attr_value_pb2.NameAttrList(name="halves"))
    b.conv("conv", "call:1", (1, 1, 2, 8))
    b.conv("other", "call", (1, 1, 2, 8))
    return b


def test_called_functions_are_inlined() -> None:
    graph = read(with_function())
    assert operators(graph) == {"split": 1, "relu": 1, "conv": 2}
    assert list(graph.predecessors("conv")) == ["call/act"]


def test_recursive_function_is_rejected() -> None:
    with pytest.raises(ReaderError, match=r"'call/again' calls the function 'halves' recursively"):
        read(with_function(calls_itself=True))


def test_error_names_a_missing_function() -> None:
    b = with_function()
    del b.graph_def.library.function[:]
    with pytest.raises(ReaderError, match=r"'call'.*calls the function 'halves', which is not in the graph"):
        read(b)


# Operators without a canonical form


def test_detection_head_is_read_and_estimated() -> None:
    b = TfBuilder((-1, 32, 32, 3))
    last = b.conv("conv", "input", (3, 3, 3, 16), 2)
    boxes = b.with_const("boxes", "Reshape", b.conv("box", last, (1, 1, 16, 4)), [-1, 4])
    scores = b.with_const("scores", "Reshape", b.conv("score", last, (1, 1, 16, 1)), [-1])
    b.add("top", "TopKV2", [scores, b.const("k", 100)])
    b.add("best", "GatherV2", [boxes, "top:1", b.const("axis", 0)])
    limits = [b.const("most", 20), b.const("iou", 0.5), b.const("score_limit", 0.3), b.const("sigma", 0.0)]
    b.add("nms", "NonMaxSuppressionV5", ["best", "top", *limits])
    b.add("kept", "GatherV2", ["best", "nms", "axis"])
    b.add("where", "Where", [b.with_const("above", "Greater", "nms:1", 0.5)])
    graph = read(b)
    assert shape(graph, "kept") == (20, 4)
    found = load_latency_predictor("cortexA76cpu_tflite21").explain(graph)
    reported = {op for op in found.estimated.values() if not op.startswith("conv")}
    assert reported == {"topkv2", "gatherv2", "nonmaxsuppressionv5", "greater", "where"}
    assert found.latency_ms > 0


def test_unknown_operator_keeps_the_shape_the_graph_declares() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("own", "MyOperator", ["input"])
    b.conv("conv", "own", (1, 1, 6, 8))
    found = load_latency_predictor("cortexA76cpu_tflite21").explain(read(b))
    assert found.unpredicted == {"own": "myoperator", "conv": "conv of unknown size"}
    assert math.isnan(found.unpredicted_share)
    assert "add_shapes=True" in found.notes[0]
    b.graph_def.node[1].attr["_output_shapes"].list.shape.append(shape_proto((-1, 4, 4, 6)))
    graph = read(b)
    assert operators(graph) == {"myoperator": 1, "conv": 1}
    assert shape(graph, "conv") == (1, 8, 4, 4)
    assert operators(read(b, (1, 4, 16, 16))) == {"myoperator": 1, "conv of unknown size": 1}


def after_unknown(*, pool_axes: tuple[int, int] = (1, 2)) -> TfBuilder:
    """An operator of unknown shape, and a network after it that ends in a pool and a dense layer."""
    b = TfBuilder((-1, 8, 8, 4))
    b.add("own", "MyOperator", ["input"])
    b.add("relu", "Relu", [b.bias("bias", "own:1", 6)])
    b.mean("pool", "relu", pool_axes)
    b.add("dense", "MatMul", ["pool", b.weights("w", 6, 10)])
    b.add("prob", "Softmax", [b.bias("shift", "dense", 10)])
    return b


def test_what_follows_an_unknown_shape_is_predicted_where_the_weights_tell_it() -> None:
    cpu = load_latency_predictor("cortexA76cpu_tflite21")
    found = cpu.explain(read(after_unknown()))
    assert found.unpredicted == {
        "own": "myoperator", "relu": "relu of unknown size", "pool": "globalavgpool of unknown size",
    }  # fmt: skip
    kernel = found.kernel_graph.nodes["dense"]["kernel"]
    assert (kernel.in_shapes, kernel.out_shapes) == ([(1, 6)], [(1, 10)])
    assert found.kernel_graph.nodes["prob"]["latency_ms"] > 0
    assert "fc of unknown size" in cpu.explain(read(after_unknown(pool_axes=(0, 3)))).unpredicted.values()


def test_what_follows_an_unknown_shape_is_predicted_after_a_reshape_and_after_a_sum() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("own", "MyOperator", ["input"])
    b.conv("first", b.with_const("view", "Reshape", "own", [1, 8, 8, 6]), (1, 1, 6, 4))
    b.add("second", "MyOperator", ["first"])
    b.conv("conv", b.add("sum", "AddV2", ["first", "second"]), (3, 3, 4, 8))
    graph = read(b)
    assert operators(graph) == {"myoperator": 2, "given": 1, "conv": 2, "add": 1}
    assert shape(graph, "conv") == (1, 8, 8, 8)
    assert graph.nodes["first"]["in_shapes"] == [(1, 6, 8, 8)]


def test_unknown_operator_on_constants_is_ignored() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("quantised", "MyDecoder", [b.weights("packed", 100)])
    b.add("listener", "Identity", ["quantised:3"])
    b.conv("conv", "input", (1, 1, 4, 8))
    assert operators(read(b)) == {"conv": 1}


def test_a_constant_of_unknown_shape_makes_a_sum_unknown() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("quantised", "MyDecoder", [b.weights("packed", 100)])
    b.conv("conv", "input", (1, 1, 4, 8))
    b.add("sum", "Add", ["conv", "quantised"])
    found = load_latency_predictor("cortexA76cpu_tflite21").explain(read(b))
    assert set(found.unpredicted) == {"sum"}
    assert math.isnan(found.unpredicted_share)


@pytest.mark.parametrize(
    ("op", "constants", "attrs", "expected"),
    [
        ("DepthToSpace", [], {"block_size": 2}, (1, 1, 16, 12)),
        ("SpaceToDepth", [], {"block_size": 2}, (1, 16, 4, 3)),
        ("ResizeBilinear", [[5, 7]], {}, (1, 4, 5, 7)),
        ("Tile", [[1, 2, 1, 3]], {}, (1, 12, 16, 6)),
        ("BroadcastTo", [[1, 8, 6, 4]], {}, (1, 4, 8, 6)),
        ("Max", [[1, 2]], {}, (1, 4)),
        ("Sum", [[3]], {"keep_dims": True}, (1, 1, 8, 6)),
        ("ArgMax", [-1], {}, (1, 8, 6)),
        ("OneHot", [5, 1.0, 0.0], {}, (1, 4, 5, 8, 6)),
        ("GatherV2", [[0, 2, 3], 3], {}, (1, 3, 8, 6)),
        ("CropAndResize", [[[0.0, 0.0, 1.0, 1.0]], [0], [7, 9]], {}, (1, 4, 7, 9)),
        ("Greater", [0.5], {}, (1, 4, 8, 6)),
        ("Where", [], {}, (192, 4)),
        ("LRN", [], {}, (1, 4, 8, 6)),
        ("SpaceToBatchND", [[2, 2], [[0, 0], [1, 1]]], {}, (4, 4, 4, 4)),
        ("ExpandDims", [0], {}, (1, 6, 4, 1, 8)),
    ],
)
def test_other_operators_have_the_right_shapes(
    op: str, constants: list[Any], attrs: dict[str, Any], expected: tuple[int, ...]
) -> None:
    b = TfBuilder((-1, 8, 6, 4))
    b.add(
        "op", op, ["input", *(b.const(f"constant{i}", value) for i, value in enumerate(constants))], **attrs
    )
    b.add("identity", "Relu", ["op"])
    assert shape(read(b), "identity") == expected


def test_pack_and_unpack_add_and_drop_an_axis() -> None:
    b = TfBuilder((-1, 8, 6, 4))
    b.add("rows", "Unpack", ["input"], axis=1, num=8)
    b.add("pair", "Pack", ["rows:1", "rows:7"], axis=-1)
    b.add("relu", "Relu", ["pair"])
    graph = read(b)
    assert graph.nodes["rows"]["out_shapes"] == [(1, 4, 1, 6)] * 8
    # NHWC (1, 6, 4, 2)
    assert shape(graph, "relu") == (1, 2, 6, 4)


def test_one_dimensional_convolution_becomes_one_of_height_1() -> None:
    b = TfBuilder((-1, 50, 4))
    b.with_const("map", "ExpandDims", "input", 1)
    last = b.conv("conv", "map", (1, 3, 4, 8), 2)
    last = b.add("line", "Squeeze", [last], squeeze_dims=[-3])
    b.add("relu", "Relu", [b.bias("bias", last, 8)])
    graph = read(b)
    assert operators(graph) == {"reshape": 2, "conv": 1, "relu": 1}
    assert shape(graph, "conv") == (1, 8, 1, 25)
    assert shape(graph, "relu") == (1, 25, 8)


def test_dense_layer_written_as_einsum_is_recognised() -> None:
    b = TfBuilder((-1, 10, 8))
    b.add("fc", "Einsum", ["input", b.weights("w", 8, 5)], equation="abc,cd->abd")
    b.add("other", "Einsum", ["input", b.weights("heads", 8, 2, 3)], equation="abc,cde->abde")
    graph = read(b)
    assert operators(graph) == {"fc": 2, "reshape": 1}
    assert shape(graph, "fc") == (1, 10, 5)
    assert shape(graph, "other") == (1, 10, 6)


# Files that are not frozen graphs


@pytest.mark.parametrize("op", ["VariableV2", "VarHandleOp", "ReadVariableOp"])
def test_error_for_an_unfrozen_graph_says_how_to_freeze_it(op: str) -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("weights", op, [])
    b.add("conv", "Conv2D", ["input", "weights"], strides=[1, 1, 1, 1], padding="SAME")
    with pytest.raises(ReaderError, match=r"'weights'.*not frozen.*convert_variables_to_constants"):
        read(b)


@pytest.mark.parametrize("op", ["Enter", "NextIteration", "LoopCond"])
def test_error_names_a_part_of_a_loop(op: str) -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.add("loop", op, ["input"])
    with pytest.raises(ReaderError, match=rf"'loop' \({op}\) is a part of a loop that is not whole"):
        read(b)


def add_cycle(b: TfBuilder, name: str, source: str, body: Callable[[str], str]) -> str:
    """A loop of TensorFlow 1 with a counter, whose body maps one tensor to the next; returns its exit."""

    def within(part: str) -> str:
        return f"{name}/{part}"

    b.const(within("steps"), np.array(3, np.int32))
    state = {"i": b.const(within("zero"), np.array(0, np.int32)), "x": source}
    merged = {
        key: b.add(within(f"merge_{key}"), "Merge",
                   [b.add(within(f"enter_{key}"), "Enter", [value]), within(f"next_{key}")])
        for key, value in state.items()
    }  # fmt: skip
    limit = b.add(within("limit"), "Enter", [within("steps")])
    goes_on = b.add(within("cond"), "LoopCond", [b.add(within("less"), "Less", [merged["i"], limit])])
    switched = {
        key: b.add(within(f"switch_{key}"), "Switch", [value, goes_on]) for key, value in merged.items()
    }
    one = b.const(within("one"), np.array(1, np.int32))
    after = {
        "i": b.add(within("count"), "Add", [f"{switched['i']}:1", one]), "x": body(f"{switched['x']}:1"),
    }  # fmt: skip
    for key, value in after.items():
        b.add(within(f"next_{key}"), "NextIteration", [value])
    return b.add(within("exit"), "Exit", [switched["x"]])


def test_a_loop_that_is_a_cycle_is_an_operator_of_unknown_work() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    stem = b.conv("stem", "input", (1, 1, 4, 8))

    def body(x: str) -> str:
        inner = add_cycle(b, "inner", b.conv("layer", x, (3, 3, 8, 8)), lambda y: b.add("act", "Relu", [y]))
        return b.add("tanh", "Tanh", [inner])

    b.conv("head", b.add("sig", "Sigmoid", [add_cycle(b, "outer", stem, body)]), (1, 1, 8, 8))
    graph = read(b)
    assert operators(graph)["while"] == 1
    found = load_latency_predictor("cortexA76cpu_tflite21").explain(graph)
    assert set(found.unpredicted) == {"inner/cond", "sig", "head"}
    assert found.kernel_graph.nodes["stem"]["basis"] in ("measured", "extrapolated")
    assert math.isnan(found.unpredicted_share)


def test_a_loop_that_nothing_enters_or_leaves_hides_nothing_else() -> None:
    b = TfBuilder((-1, 8, 8, 4))
    last = b.conv("conv", "input", (1, 1, 4, 8))
    add_cycle(b, "aside", b.const("start", np.zeros(3, np.float32)), lambda x: b.add("neg", "Neg", [x]))
    b.add("relu", "Relu", [last])
    graph = read(b)
    assert {"conv", "relu"} <= set(operators(graph))


@pytest.mark.parametrize("op", ["While", "StatelessIf", "TensorListStack"])
def test_control_flow_is_an_operator_of_unknown_work(op: str) -> None:
    b = TfBuilder((-1, 8, 8, 4))
    b.conv("conv", b.add("loop", op, ["input"]), (1, 1, 4, 8))
    cpu = load_latency_predictor("cortexA76cpu_tflite21")
    assert set(cpu.explain(read(b)).unpredicted) == {"loop", "conv"}
    b.graph_def.node[1].attr["output_shapes"].list.shape.append(shape_proto((-1, 8, 8, 4)))
    found = cpu.explain(read(b))
    told = op != "TensorListStack"  # the work of an operator that is no loop follows from its shapes
    assert set(found.unpredicted) == ({"loop"} if told else set())
    assert math.isnan(found.unpredicted_share) == told


def test_saved_model_is_recognised_and_rejected(tmp_path: Path) -> None:
    path = tmp_path / "saved_model.pb"
    path.write_bytes(b"\x08\x01\x12\x04\x0a\x02\x08\x01")
    with pytest.raises(ReaderError, match=r"is a SavedModel.*freeze it"):
        read_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, b"This is not a graph.\n" * 5, b'node {\n  name: "x"\n}\n', b"{}"]
)
def test_file_that_is_not_a_graph_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pb"
    path.write_bytes(content)
    with pytest.raises(ReaderError, match=r"model\.pb is not a frozen TensorFlow graph"):
        read_model(path)


def test_text_form_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.pb"
    path.write_text(str(official_mobilenet()), encoding="utf-8")
    with pytest.raises(ReaderError, match=r"text form, write graph_def\.SerializeToString\(\)"):
        read_model(path)


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"cannot read .*none\.pb: No such file"):
        read_model(tmp_path / "none.pb")


def test_error_names_the_type_of_an_invalid_model() -> None:
    with pytest.raises(ReaderError, match=r"'int' is neither"):
        read_model(3, model_type="pb")


def test_missing_operand_cycle_and_duplicate_name_are_graph_errors() -> None:
    missing = TfBuilder()
    missing.add("relu", "Relu", ["nowhere"])
    with pytest.raises(GraphError, match=r"'relu'.*'nowhere' does not exist"):
        read(missing)
    cycle = TfBuilder()
    cycle.add("a", "Add", ["input", "b"])
    cycle.add("b", "Relu", ["a"])
    with pytest.raises(GraphError, match=r"cyclic: (a -> b -> a|b -> a -> b)"):
        read(cycle)
    twice = TfBuilder()
    twice.add("relu", "Relu", ["input"])
    twice.add("relu", "Relu", ["input"])
    with pytest.raises(GraphError, match=r"'relu'.*used twice"):
        read(twice)
    slot = TfBuilder()
    slot.add("relu", "Relu", ["input:7"])
    with pytest.raises(ShapeError, match=r"'relu'.*'input' has no output 7"):
        read(slot)


def test_graph_without_operators_is_rejected() -> None:
    with pytest.raises(GraphError, match="empty"):
        read_tf_graphdef(TfBuilder().graph_def)
    with pytest.raises(GraphError, match="empty"):
        read_tf_graphdef(graph_pb2.GraphDef())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("strides", "2", r"attribute 'strides' holds 's', expected 'list'"),
        ("strides", [1, 2, 2], r"strides=\[1, 2, 2\] does not slide"),
        ("strides", [1, 2, 2, 2], r"strides=\[1, 2, 2, 2\] does not slide"),
        ("strides", [1, 0, 0, 1], r"stride=\(0, 0\)"),
        ("padding", "ROUND", r"padding='ROUND'"),
        ("padding", 3, r"attribute 'padding' holds 'i', expected 's'"),
        ("dilations", [1, -1, 1, 1], r"dilation=\(-1, 1\)"),
    ],
)
def test_error_names_an_attribute_of_the_wrong_kind_and_its_node(key: str, value: Any, message: str) -> None:
    b = TfBuilder()
    b.conv("conv", "input", (3, 3, 3, 8))
    b.graph_def.node[-1].attr[key].Clear()
    set_attr(b.graph_def.node[-1], key, value)
    with pytest.raises((ReaderError, ShapeError), match=rf"'conv'.*{message}"):
        read(b)


def test_error_names_weights_that_do_not_fit() -> None:
    b = TfBuilder()
    b.conv("conv", "input", (3, 3, 5, 8))
    with pytest.raises(ShapeError, match=r"'conv'.*weights take 5 channels, its input has 3"):
        read(b)
