"""Every operator of exported networks is read in its canonical form, with ONNX's shapes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.errors import GraphError, ReaderError, ShapeError
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.onnx.folding import FOLDINGS, Arithmetic, fold
from nnmeter_nas.readers.onnx.model import read_onnx
from onnx_models import FLOAT, IMAGE, INT64, ints, kernel_types, layer, model, node, ops, weights

NEWEST = 22

#: Canonical operator, and an ONNX model of it after a tanh.
LAYERS = [
    ("conv", layer("Conv", {"w": weights(6, 8, 3, 3), "b": weights(6)}, pads=[1, 1, 1, 1], strides=[2, 2])),
    ("conv", layer("Conv", {"w": weights(6, 4, 3, 1)}, group=2, dilations=[2, 1], pads=[0, 1, 2, 3])),
    ("dwconv", layer("Conv", {"w": weights(16, 1, 5, 5)}, group=8, auto_pad="SAME_UPPER", strides=[2, 3])),
    ("conv", layer("Conv", {"w": weights(6, 8, 4, 4)}, auto_pad="SAME_LOWER", strides=[3, 3])),
    ("conv", layer("Conv", {"w": weights(6, 8, 4, 4)}, auto_pad="VALID", kernel_shape=[4, 4], opset=9)),
    ("conv", layer("Conv", {"w": weights(6, 8, 3)}, shape=(1, 8, 20), pads=[1, 1])),
    ("conv", layer("Conv", {"w": weights(6, 8, 3, 3, 3)}, shape=(1, 8, 5, 6, 7))),
    ("convtranspose", layer("ConvTranspose", {"w": weights(8, 6, 3, 3)}, strides=[2, 2], pads=[1, 1, 1, 1],
                            output_padding=[1, 1])),
    ("convtranspose", layer("ConvTranspose", {"w": weights(8, 3, 4, 4)}, strides=[2, 2], group=2,
                            output_shape=[24, 20])),
    ("convtranspose", layer("ConvTranspose", {"w": weights(8, 3, 2, 2)}, strides=[2, 2], dilations=[2, 2])),
    ("fc", layer("Gemm", {"w": weights(5, 8), "b": weights(5)}, shape=(1, 8), transB=1)),
    ("fc", layer("Gemm", {"w": weights(8, 5), "b": weights(5)}, shape=(1, 8), alpha=0.5)),
    ("fc", layer("MatMul", {"w": weights(8, 5)}, shape=(1, 7, 8))),
    ("bn", layer("BatchNormalization", {n: weights(8) for n in "abcd"}, opset=9)),
    ("norm", layer("InstanceNormalization", {n: weights(8) for n in "ab"})),
    ("norm", layer("LayerNormalization", {n: weights(10) for n in "ab"})),
    *[(op.lower(), layer(op)) for op in ("Relu", "Elu", "Sigmoid", "Tanh", "Softplus", "Softmax", "Exp",
                                         "Sqrt", "Neg", "Abs", "Erf", "Floor", "Ceil", "LogSoftmax")],
    ("leakyrelu", layer("LeakyRelu", alpha=0.1)),
    ("prelu", layer("PRelu", {"slope": weights(8, 1, 1)})),
    ("elu", layer("Selu")),
    ("elu", layer("Celu")),
    ("mish", layer("Mish", opset=18)),
    ("gelu", layer("Gelu", opset=20)),
    ("swish", layer("Swish", opset=24)),
    ("hswish", layer("HardSwish")),
    ("hsigmoid", layer("HardSigmoid", alpha=1 / 6)),
    ("cast", layer("Cast", to=TensorProto.FLOAT16)),
    ("relu6", layer("Clip", opset=9, min=0.0, max=6.0)),
    ("relu6", layer("Clip", {"low": np.float32(0), "high": np.float32(6)})),
    ("relu", layer("Clip", {"low": np.float32(0)})),
    ("relu", layer("Clip", opset=9, min=0.0)),
    ("clip", layer("Clip", {"low": np.float32(-1), "high": np.float32(1)})),
    ("clip", layer("Clip", {"high": np.float32(5)}, absent=1)),
    ("maxpool", layer("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    ("maxpool", layer("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    ("maxpool", layer("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], opset=11)),
    ("maxpool", layer("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")),
    ("avgpool", layer("AveragePool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1],
                      count_include_pad=1)),
    ("globalavgpool", layer("AveragePool", kernel_shape=[12, 10])),
    ("globalavgpool", layer("GlobalAveragePool")),
    ("maxpool", layer("GlobalMaxPool")),
    ("globalavgpool", layer("ReduceMean", axes=[2, 3], keepdims=0)),
    ("globalavgpool", layer("ReduceMean", {"axes": ints(-1, -2)}, opset=18)),
    ("mean", layer("ReduceMean", axes=[1])),
    ("mean", layer("ReduceMean", keepdims=0)),
    ("sum", layer("ReduceSum", axes=[1], keepdims=0, opset=11)),
    ("sum", layer("ReduceSum", {"axes": ints(1)}, keepdims=0)),
    ("maxpool", layer("ReduceMax", axes=[2, 3])),
    ("add", layer("Add", {"c": weights(8, 1, 1)})),
    ("sub", layer("Sub", {"c": np.float32(2)})),
    ("mul", layer("Mul", {"c": weights(3, 1, 8, 12, 1)})),
    ("mul", layer("Div", {"c": np.float32([6])})),
    ("pow", layer("Pow", {"c": np.float32(3)})),
    ("minimum", layer("Min", {"a": np.float32(1), "b": weights(10)})),
    ("clip", layer("Max", {"a": np.float32(1)})),
    ("add", layer("Sum", {"a": weights(1, 8, 1, 1), "b": weights(10)})),
    ("split", layer("Split", outputs="y z", axis=1, opset=11)),
    ("split", layer("Split", outputs="y z", axis=1, split=[3, 5], opset=11)),
    ("split", layer("Split", {"s": ints(3, 5)}, outputs="y z", axis=-3)),
    ("split", layer("Split", outputs="y z q", axis=3, num_outputs=3, opset=18)),
    ("slice", layer("Slice", starts=[2], ends=[100], axes=[2], opset=9)),
    ("slice", layer("Slice", {"s": ints(-3), "e": ints(2**63 - 1), "a": ints(-1)})),
    ("slice", layer("Slice", {"s": ints(-1), "e": ints(-(2**63)), "a": ints(1), "t": ints(-2)})),
    ("slice", layer("Gather", {"i": ints(2, 3, 4)}, axis=1)),
    ("gather", layer("Gather", {"i": ints(4, 2)}, axis=1)),
    ("gather", layer("Gather", {"i": np.array([[0, 1], [2, 3]])}, axis=2)),
    ("reshape", layer("Reshape", {"s": ints(0, 2, -1, 10)})),
    ("flatten", layer("Flatten")),
    ("reshape", layer("Flatten", axis=2)),
    ("transpose", layer("Transpose", perm=[0, 2, 3, 1])),
    ("transpose", layer("Transpose")),
    ("squeeze", layer("Squeeze", axes=[2], shape=(1, 8, 1, 10), opset=11)),
    ("squeeze", layer("Squeeze", {"a": ints(-2)}, shape=(1, 8, 1, 10))),
    ("squeeze", layer("Squeeze", shape=(1, 8, 1, 10))),
    ("unsqueeze", layer("Unsqueeze", axes=[0, 3], opset=11)),
    ("unsqueeze", layer("Unsqueeze", {"a": ints(-1)})),
    ("pad", layer("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0], opset=9)),
    ("pad", layer("Pad", {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, mode="reflect")),
    ("pad", layer("Pad", {"p": ints(1, -1), "v": np.float32(1), "a": ints(3)}, opset=18)),
    ("upsample", layer("Upsample", {"s": np.float32([1, 1, 2, 2])}, opset=9)),
    ("upsample", layer("Upsample", scales=[1.0, 1.0, 2.0, 1.5], opset=7)),
    ("upsample", layer("Resize", {"s": np.float32([1, 1, 0.5, 2])}, opset=10)),
    ("upsample", layer("Resize", {"roi": np.float32([]), "s": np.float32([1, 1, 1.7, 0.3])}, opset=13)),
    ("upsample", layer("Resize", {"s": ints(1, 8, 7, 30)}, absent=2, mode="linear")),
    ("upsample", layer("Resize", {"s": ints(7, 30)}, absent=2, axes=[2, 3], opset=18)),
    ("resize", layer("Resize", {"s": ints(6, 6)}, absent=2, axes=[2, 3], opset=18,
                     keep_aspect_ratio_policy="not_larger")),
    ("resize", layer("Resize", {"s": np.float32([1, 2, 1, 1])}, absent=1)),
    ("pixelshuffle", layer("DepthToSpace", blocksize=2)),
    ("pixelunshuffle", layer("SpaceToDepth", blocksize=2)),
    ("expand", layer("Expand", {"s": ints(1, 8, 12, 10)}, shape=(1, 1, 12, 10))),
    ("tile", layer("Tile", {"r": ints(1, 1, 2, 2)})),
    ("lrn", layer("LRN", size=5)),
    ("argmax", layer("ArgMax", axis=1)),
]  # fmt: skip


def final_shapes(graph: nx.DiGraph) -> list[tuple[int, ...]]:
    """Output shapes of the operators that compute the model's outputs."""
    return [shape for name in graph.graph["outputs"] for shape in graph.nodes[name]["out_shapes"]]


def shapes_by_onnx(proto: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Shapes of the outputs from ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return [tuple(d.dim_value for d in o.type.tensor_type.shape.dim) for o in inferred.graph.output]


@pytest.mark.parametrize(
    ("op", "proto"), LAYERS, ids=[f"{p.graph.node[-1].op_type}-{i}" for i, (_, p) in enumerate(LAYERS)]
)
def test_operator_has_its_canonical_form_and_onnxs_inferred_shape(
    op: str, proto: onnx.ModelProto
) -> None:
    graph = read_onnx(proto)
    assert ops(graph) == ["tanh", op]
    expected = shapes_by_onnx(proto)
    # Only the model's outputs are compared, not by-products such as the states of an LSTM.
    assert final_shapes(graph)[: len(expected)] == expected


@pytest.mark.parametrize(
    "proto",
    [
        layer("Dropout", opset=9),
        layer("Dropout", {"ratio": np.float32(0.5)}),
        layer("Identity"),
        layer("Cast", to=FLOAT),
        layer("Reshape", {"s": ints(0, -1, 12, 10)}),
        layer("Flatten", shape=(1, 8)),
        layer("Slice", {"s": ints(0), "e": ints(2**31), "a": ints(1)}),
        layer("Pad", {"p": ints(*[0] * 8)}),
        layer("Transpose", perm=[0, 1, 2, 3]),
        layer("Expand", {"s": ints(1)}),
        layer("Resize", {"s": np.float32([1, 1, 1, 1])}, absent=1),
        layer("ReduceMean", noop_with_empty_axes=1, opset=18),
        layer("Concat", {"empty": weights(1, 0, 12, 10)}, axis=1),
        layer("Add", {"zeros": np.zeros((8, 12, 10), np.float32)}),
    ],
    ids=lambda proto: proto.graph.node[-1].op_type,
)
def test_operators_without_effect_are_removed(proto: onnx.ModelProto) -> None:
    assert ops(read_onnx(proto)) == ["tanh"]


def test_layers_have_the_attributes_that_predictors_need() -> None:
    proto = layer("Conv", {"w": weights(6, 4, 3, 1)}, group=2, dilations=[2, 1], pads=[0, 1, 2, 3])
    assert read_onnx(proto).nodes["y"]["attrs"] == {
        "kernel": (3, 1), "stride": (1, 1), "dilation": (2, 1), "padding": [(0, 2), (1, 3)], "groups": 2,
        "in_channels": 8, "out_channels": 6,
    }  # fmt: skip
    proto = layer("Gemm", {"w": weights(5, 8)}, shape=(1, 8), transB=1)
    assert read_onnx(proto).nodes["y"]["attrs"] == {"in_features": 8, "out_features": 5, "bias": False}


def test_scales_are_multiplied_in_single_precision_like_in_runtimes() -> None:
    """10 * 0.7 is 7 in single precision, as in the runtimes, but 6 in ONNX's own inference."""
    proto = layer("Resize", {"s": np.float32([1, 1, 1, 0.7])}, absent=1)
    assert final_shapes(read_onnx(proto)) == [(1, 8, 12, 7)]


def test_a_group_normalisation_keeps_its_shape() -> None:
    """ONNX defines it as a function and infers no shape."""
    graph = read_onnx(layer("GroupNormalization", {n: weights(8) for n in "ab"}, num_groups=2, opset=21))
    assert ops(graph) == ["tanh", "norm"]
    assert final_shapes(graph) == [IMAGE]


def test_a_slice_of_several_axes_cuts_each_of_them() -> None:
    graph = read_onnx(layer("Slice", {"s": ints(1, 0, 0), "e": ints(9, 99, 8), "a": ints(2, 1, 3)}))
    assert ops(graph) == ["tanh", "slice", "slice"]
    assert final_shapes(graph) == [(1, 8, 8, 8)]


def test_gathering_one_position_drops_its_dimension() -> None:
    graph = read_onnx(layer("Gather", {"i": np.array(-1)}, axis=2))
    assert ops(graph) == ["tanh", "slice", "squeeze"]
    assert final_shapes(graph) == [(1, 8, 10)]


def test_a_gemm_with_computed_operands_becomes_transpose_product_and_sum() -> None:
    nodes = [node("Relu", "x", "r"), node("Gemm", "r w r2", "y", transA=1), node("Relu", "b", "r2")]
    proto = model(nodes, {"w": weights(1, 5)}, {"x": (1, 8), "b": (1, 5)})
    graph = read_onnx(proto)
    assert sorted(ops(graph)) == ["add", "fc", "relu", "relu", "reshape"]
    assert final_shapes(graph) == [(8, 5)]


def test_the_product_of_two_computed_matrices_is_not_a_dense_layer() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")]
    graph = read_onnx(model(nodes))
    assert ops(graph) == ["transpose", "matmul"]
    assert final_shapes(graph) == [(1, 8, 12, 12)]


def test_a_convolution_with_computed_weights_is_not_one_with_weights() -> None:
    nodes = [node("Relu", "w", "v"), node("Conv", "x v", "y")]
    graph = read_onnx(model(nodes, None, {"x": IMAGE, "w": (1, 8, 3, 3)}))
    assert ops(graph) == ["relu", "dynamicconv"]
    assert final_shapes(graph) == [(1, 1, 10, 8)]


def test_operators_that_prepare_weights_are_folded() -> None:
    constants = {"q": np.ones((8, 3, 3, 6), np.int8), "scale": np.float32(0.1), "zero": np.int8(0)}
    nodes = [
        node("DequantizeLinear", "q scale zero", "d"),
        node("Transpose", "d", "w", perm=[3, 0, 1, 2]),
        node("Conv", "x w", "y"),
    ]
    graph = read_onnx(model(nodes, constants))
    assert ops(graph) == ["conv"]
    assert final_shapes(graph) == [(1, 6, 10, 8)]


def test_sparse_weights_count_by_their_shape() -> None:
    values = numpy_helper.from_array(weights(2), "w")
    proto = model([node("Conv", "x w", "y")])
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(ints(0, 3), "at"), [6, 8, 1, 1])
    )
    assert final_shapes(read_onnx(proto)) == [(1, 6, 12, 10)]


def test_sizes_and_filled_constants_are_folded_too() -> None:
    nodes = [
        node("Size", "x", "n"),
        node("ConstantOfShape", "one", "ones", value=numpy_helper.from_array(ints(1))),
        node("Constant", "", "axis", value_ints=[0]), node("Unsqueeze", "n axis", "n1"),
        node("Concat", "ones n1", "s", axis=0), node("Reshape", "x s", "y"),
    ]  # fmt: skip
    assert final_shapes(read_onnx(model(nodes, {"one": ints(1)}))) == [(1, 8 * 12 * 10)]


def test_large_weights_are_prepared_without_reading_their_values() -> None:
    tensor = TensorProto(name="q", data_type=FLOAT, dims=[512, 3, 3, 8])  # without any data
    proto = model([node("Transpose", "q", "w", perm=[0, 3, 1, 2]), node("Conv", "x w", "y")])
    proto.graph.initializer.append(tensor)
    assert final_shapes(read_onnx(proto)) == [(1, 512, 10, 8)]


@pytest.mark.parametrize("spelling", ["MatMul", "Conv", "ConvTranspose"])
def test_a_bias_added_after_a_layer_is_part_of_the_layer(spelling: str) -> None:
    weight, bias = {
        "MatMul": (weights(10, 5), weights(5)),
        "Conv": (weights(5, 8, 1, 1), weights(1, 5, 1, 1)),
        "ConvTranspose": (weights(8, 5, 1, 1), weights(5, 1, 1)),
    }[spelling]
    for operands in ("m b", "b m"):
        nodes = [node(spelling, "x w", "m"), node("Add", operands, "a"), node("Relu", "a", "y")]
        graph = read_onnx(model(nodes, {"w": weight, "b": bias}))
        assert len(ops(graph)) == 2
        assert "add" not in ops(graph)


def test_an_addition_that_is_not_a_bias_stays() -> None:
    constants = {
        "w": weights(5, 8, 1, 1),
        "three": np.float32([3]),
        "map": weights(12, 10),
        "b": weights(5, 1, 1),
    }
    for constant in ("three", "map"):
        nodes = [node("Conv", "x w", "m"), node("Add", f"m {constant}", "y")]
        assert ops(read_onnx(model(nodes, constants))) == ["conv", "add"]
    nodes = [node("Conv", "x w", "m"), node("Add", "m b", "a"), node("Mul", "m a", "y")]
    assert ops(read_onnx(model(nodes, constants))) == ["conv", "add", "mul"]


SIX = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32([1 / 6])}
HSIGMOIDS = {
    "operator": [node("HardSigmoid", "c", "g", alpha=1 / 6)],
    "clip-attributes-div": [
        node("Add", "c three", "a"), node("Clip", "a", "k", min=0.0, max=6.0), node("Div", "k six", "g")
    ],
    "clip-inputs-div": [
        node("Add", "three c", "a"), node("Clip", "a zero six", "k"), node("Div", "k six", "g")
    ],
    "clip-inputs-mul": [
        node("Add", "c three", "a"), node("Clip", "a zero six", "k"), node("Mul", "sixth k", "g")
    ],
    "constant-operator": [
        node("Add", "c three", "a"), node("Clip", "a zero six", "k"),
        node("Constant", "", "n", value_float=6.0),
        node("Div", "k n", "g"),
    ],
}  # fmt: skip
CONV = node("Conv", "x w", "c")


@pytest.mark.parametrize("spelling", HSIGMOIDS)
@pytest.mark.parametrize("order", ["c g", "g c"])
def test_every_form_of_h_swish_fuses_with_its_convolution(spelling: str, order: str) -> None:
    opset = 9 if spelling == "clip-attributes-div" else 13
    nodes = [CONV, *HSIGMOIDS[spelling], node("Mul", order, "y")]
    assert kernel_types(read_onnx(model(nodes, {"w": weights(6, 8, 1, 1)} | SIX, opset=opset))) == [
        "conv-hswish"
    ]


def test_h_swish_multiplied_before_it_is_divided_is_one_kernel_too() -> None:
    nodes = [CONV, node("Add", "c three", "a"), node("Clip", "a zero six", "k"), node("Mul", "c k", "m"),
             node("Div", "m six", "y")]  # fmt: skip
    assert kernel_types(read_onnx(model(nodes, {"w": weights(6, 8, 1, 1)} | SIX))) == ["conv-hswish"]
    assert kernel_types(read_onnx(layer("HardSwish"))) == ["tanh", "hswish"]


@pytest.mark.parametrize("spelling", [*HSIGMOIDS, "sigmoid"])
@pytest.mark.parametrize("pool", ["GlobalAveragePool", "ReduceMean"])
def test_every_form_of_squeeze_and_excite_is_one_kernel(spelling: str, pool: str) -> None:
    gate = HSIGMOIDS.get(spelling, [node("Sigmoid", "c", "g")])
    squeeze = node(pool, "x", "p", **({"axes": [2, 3]} if pool == "ReduceMean" else {}))
    nodes = [squeeze, node("Conv", "p down", "d"), node("Relu", "d", "r"), node("Conv", "r up", "c"),
             *gate, node("Mul", "g x", "y")]  # fmt: skip
    constants = {"down": weights(2, 8, 1, 1), "up": weights(8, 2, 1, 1)} | SIX
    opset = 9 if spelling == "clip-attributes-div" else 13
    assert kernel_types(read_onnx(model(nodes, constants, opset=opset))) == ["se"]


def test_activations_exported_as_several_operators_are_recognised() -> None:
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    erf = [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a")]
    spellings = {
        "swish": [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")],
        "mish": [node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "x t", "y")],
        "gelu": [*erf, node("Mul", "x a", "m"), node("Mul", "m half", "y")],
    }
    for op, nodes in spellings.items():
        assert ops(read_onnx(model(nodes, constants))) == [op]
    half_first = [*erf, node("Mul", "x half", "h"), node("Mul", "h a", "y")]
    assert ops(read_onnx(model(half_first, constants))) == ["gelu"]


def test_relu_and_relu6_written_as_maximum_and_minimum_are_recognised() -> None:
    constants = {"zero": np.float32(0), "six": np.float32([6])}
    nodes = [node("Max", "x zero", "m"), node("Min", "m six", "y")]
    assert ops(read_onnx(model(nodes[:1], constants, outputs=("m",)))) == ["relu"]
    assert ops(read_onnx(model(nodes, constants))) == ["relu6"]


def test_zero_padding_before_an_average_pool_becomes_its_padding() -> None:
    nodes = [
        node("Pad", "x", "p", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        node("AveragePool", "p", "y", kernel_shape=[3, 3]),
    ]
    graph = read_onnx(model(nodes, opset=9))
    assert ops(graph) == ["avgpool"]
    assert graph.nodes["y"]["attrs"]["padding"] == [(1, 1), (1, 1)]
    ones = model([node("Pad", "x", "p", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=1.0), nodes[1]], opset=9)
    assert ops(read_onnx(ones)) == ["pad", "avgpool"]


def shuffle(batch: str) -> list[onnx.NodeProto]:
    """A channel shuffle in two groups that takes all sizes except the channels from ``Shape``."""
    return [
        node("Shape", "x", "s"),
        node("Gather", "s i0", "n"), node("Gather", "s i2", "h"), node("Gather", "s i3", "w"),
        *[node("Unsqueeze", f"{size} axis", f"{size}1") for size in "nhw"],
        node("Concat", f"{batch} two four h1 w1", "before", axis=0),
        node("Concat", f"{batch} eight h1 w1", "after", axis=0),
        node("Reshape", "x before", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t after", "y"),
    ]  # fmt: skip


SHUFFLED = {
    "i0": np.array(0), "i2": np.array(2), "i3": np.array(3), "axis": ints(0), "two": ints(2), "four": ints(4),
    "eight": ints(8), "batch8": ints(8),
}  # fmt: skip


def test_a_channel_shuffle_with_computed_sizes_is_one_kernel() -> None:
    graph = read_onnx(model(shuffle("n1"), SHUFFLED, {"x": ["N", 8, "H", "W"]}), (1, 8, 6, 6))
    assert kernel_types(graph) == ["channelshuffle"]


def test_input_shape_overrides_another_exported_batch() -> None:
    proto = model(shuffle("batch8"), SHUFFLED, {"x": (8, 8, 6, 6)})
    with pytest.raises(ShapeError, match=r"'x'.*batch is 8.*pass batch 1"):
        read_onnx(proto)
    assert kernel_types(read_onnx(proto, (1, 8, 6, 6))) == ["channelshuffle"]


def test_flattening_and_resizing_to_computed_sizes_are_folded() -> None:
    nodes = [
        node("Shape", "x", "map", start=2),
        node("Constant", "", "two", value_ints=[2]),
        node("Mul", "map two", "twice"),
        node("Shape", "x", "lead", end=-2),
        node("Concat", "lead twice", "sizes", axis=0),
        node("Resize", "x - - sizes", "big"),
        node("Shape", "big", "s"),
        node("Constant", "", "zero", value=numpy_helper.from_array(np.array(0))),
        node("Gather", "s zero", "n"),
        node("Constant", "", "axes", value_ints=[0]),
        node("Unsqueeze", "n axes", "n1"),
        node("Constant", "", "rest", value_ints=[-1]),
        node("Concat", "n1 rest", "flat", axis=0),
        node("Reshape", "big flat", "y"),
    ]
    graph = read_onnx(model(nodes, None, {"x": ("batch", 3, 5, 7)}))
    assert [(d["op"], d["out_shapes"][0]) for _, d in graph.nodes(data=True)][1:] == [
        ("upsample", (1, 3, 10, 14)),
        ("reshape", (1, 420)),
    ]


def test_adjacent_slices_become_the_split_they_were_written_as() -> None:
    constants = {"zero": ints(0), "three": ints(3), "end": ints(2**63 - 1), "axis": ints(1)}
    nodes = [
        node("Slice", "x zero three axis", "a"), node("Slice", "x three end axis", "b"),
        node("Relu", "a", "c"), node("Concat", "b c", "y", axis=1),
    ]  # fmt: skip
    graph = read_onnx(model(nodes, constants))
    assert sorted(ops(graph)) == ["concat", "relu", "split"]
    assert graph.nodes["a.split"]["out_shapes"] == [(1, 3, 12, 10), (1, 5, 12, 10)]
    assert graph.nodes["y"]["inputs"] == [("a.split", 1), ("c", 0)]


def test_slices_that_leave_a_gap_stay_slices() -> None:
    constants = {"zero": ints(0), "three": ints(3), "four": ints(4), "end": ints(99), "axis": ints(1)}
    nodes = [
        node("Slice", "x zero three axis", "a"), node("Slice", "x four end axis", "b"),
        node("Concat", "b a", "y", axis=1),
    ]  # fmt: skip
    assert ops(read_onnx(model(nodes, constants))) == ["slice", "slice", "concat"]


def test_constants_become_scalars_shapes_or_zeros() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("Mul", "r zero", "none"),
        node("Add", "r none", "s"),
        node("Concat", "s pad", "y", axis=1),
    ]
    graph = read_onnx(model(nodes, {"zero": np.float32(0), "pad": np.zeros((1, 2, 12, 10), np.float32)}))
    assert sorted(ops(graph)) == ["concat", "relu"]
    assert final_shapes(graph) == [(1, 10, 12, 10)]


def test_zeros_shaped_like_a_tensor_are_dropped_from_sums() -> None:
    nodes = [node("Relu", "x", "r"), node("Shape", "x", "s"), node("ConstantOfShape", "s", "z"),
             node("Add", "r z", "y")]  # fmt: skip
    assert ops(read_onnx(model(nodes, None, {"x": (1, 8, 100, 100)}))) == ["relu"]


def test_expand_before_an_elementwise_operator_is_removed() -> None:
    nodes = [node("GlobalAveragePool", "x", "p"), node("Shape", "x", "s"), node("Expand", "p s", "e"),
             node("Mul", "x e", "y")]  # fmt: skip
    assert ops(read_onnx(model(nodes))) == ["globalavgpool", "mul"]


# Inputs


def test_a_symbolic_batch_is_1_and_declared_shapes_follow_it() -> None:
    info = helper.make_tensor_value_info("r", FLOAT, ["N", 8, 12, 10])
    proto = model([node("Relu", "x", "r"), node("Exp", "r", "y")], None, {"x": ["N", 8, 12, 10]},
                  value_info=[info])  # fmt: skip
    graph = read_onnx(proto)
    assert graph.nodes["x"]["out_shapes"] == [IMAGE]
    assert graph.nodes["r"]["declared"] == [IMAGE]


def test_a_symbol_has_the_same_size_in_all_inputs() -> None:
    """The state of a recurrent network has the batch second."""
    nodes = [node("Relu", "x", "r"), node("Relu", "state", "s")]
    proto = model(nodes, None, {"x": ["N", 1, 512], "state": [2, "N", 128]}, ("r", "s"))
    assert read_onnx(proto).nodes["state"]["out_shapes"] == [(2, 1, 128)]


@pytest.mark.parametrize(
    ("shape", "example"), [(["N", "d"], "(1, 128)"), ([1, 3, "h", "w"], "(1, 3, 224, 224)")]
)
def test_error_for_an_open_size_gives_an_example_that_fits(shape: list[Any], example: str) -> None:
    with pytest.raises(ReaderError, match=re.escape(f"for example input_shape={{'x': {example}}}")):
        read_onnx(model([node("Relu", "x", "y")], None, {"x": shape}))


@pytest.mark.parametrize("size", ["height", None, -1])
def test_an_unknown_map_size_needs_input_shape(size: Any) -> None:
    proto = model([node("Relu", "x", "y")], None, {"x": ["N", 3, size, 32]})
    with pytest.raises(ReaderError, match=r"input 'x' leaves dimension 2 open.*input_shape"):
        read_onnx(proto)
    assert final_shapes(read_onnx(proto, (1, 3, 16, 32))) == [(1, 3, 16, 32)]


def test_input_shape_overrides_the_declared_shape() -> None:
    info = helper.make_tensor_value_info("r", FLOAT, IMAGE)
    nodes = [node("Relu", "x", "r"), node("Relu", "r", "y")]
    graph = read_onnx(model(nodes, value_info=[info]), [1, 8, 20, 20])
    assert final_shapes(graph) == [(1, 8, 20, 20)]
    assert graph.graph["shape_mismatches"] == []


def test_an_input_without_a_shape_needs_one() -> None:
    proto = model([node("Relu", "x", "y")])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ReaderError, match="input 'x' has no shape; pass input_shape"):
        read_onnx(proto)
    assert final_shapes(read_onnx(proto, (1, 3, 4, 4))) == [(1, 3, 4, 4)]


def test_declared_shapes_are_ignored_for_an_input_of_another_rank() -> None:
    info = helper.make_tensor_value_info("r", FLOAT, IMAGE)
    graph = read_onnx(model([node("Relu", "x", "r"), node("Relu", "r", "y")], value_info=[info]), (1, 8, 20))
    assert final_shapes(graph) == [(1, 8, 20)]
    assert graph.graph["shape_mismatches"] == []


def test_input_shapes_are_matched_by_name() -> None:
    proto = model([node("Add", "x z", "y")], None, {"x": IMAGE, "z": ("N", 8, "H", "W")})
    with pytest.raises(ReaderError, match="'z' leaves dimension 2 open"):
        read_onnx(proto)
    assert ops(read_onnx(proto, {"z": IMAGE})) == ["add"]
    with pytest.raises(ReaderError, match="did you mean"):
        read_onnx(proto, {"zz": IMAGE})


def test_weights_listed_as_inputs_in_old_models_stay_weights() -> None:
    inputs = {"x": IMAGE, "w": (6, 8, 1, 1)}
    proto = model([node("Conv", "x w", "y")], {"w": weights(6, 8, 1, 1)}, inputs, opset=9, ir_version=3)
    graph = read_onnx(proto)
    assert list(graph) == ["x", "y"]
    assert ops(graph) == ["conv"]


def test_stale_shapes_in_the_model_are_reported() -> None:
    info = helper.make_tensor_value_info("r", FLOAT, (1, 8, 6, 6))
    proto = model([node("Relu", "x", "r"), node("Relu", "r", "y")], value_info=[info])
    assert read_onnx(proto).graph["shape_mismatches"] == [("r", [(1, 8, 6, 6)], [IMAGE])]


def test_external_data_is_not_read_and_the_proto_not_changed(tmp_path: Path) -> None:
    proto = model([node("Conv", "x w", "y")], {"w": weights(64, 8, 3, 3)})
    before = proto.SerializeToString()
    whole = read_onnx(proto)
    assert proto.SerializeToString() == before
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    (tmp_path / "m.bin").unlink()
    assert read_model(tmp_path / "m.onnx").nodes == whole.nodes


def test_error_names_sizes_stored_outside_the_model(tmp_path: Path) -> None:
    proto = model([node("Reshape", "x s", "y")], {"s": ints(1, -1)})
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    with pytest.raises(ReaderError, match=r"'y' .Reshape.*stored outside the model.*size_threshold"):
        read_onnx(str(tmp_path / "m.onnx"))


def test_reading_a_file_imports_no_torch(tmp_path: Path) -> None:
    onnx.save(model([node("Relu", "x", "y")]), tmp_path / "m.onnx")
    script = (
        "import sys; from nnmeter_nas.readers import read_model; read_model(sys.argv[1]);"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m.onnx")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"


# Names and order


def test_operators_keep_unique_names() -> None:
    nodes = [
        node("Tanh", "x", "a", name="first"), node("Tanh", "a", "b", name="twice"),
        node("Tanh", "b", "c", name="twice"), node("Tanh", "c", "y", name="x"),
    ]  # fmt: skip
    assert list(read_onnx(model(nodes))) == ["x", "first", "b", "c", "x_2"]


def test_operators_in_any_order_are_read() -> None:
    nodes = [node("Relu", "b", "y"), node("Sigmoid", "a", "b"), node("Tanh", "x", "a")]
    assert ops(read_onnx(model(nodes))) == ["tanh", "sigmoid", "relu"]


# Operators without a canonical form


def test_a_custom_operator_with_a_declared_shape_is_reported_and_the_rest_predicted() -> None:
    info = helper.make_tensor_value_info("m", FLOAT, ("N", 8, 6, 5))
    nodes = [node("Se", "x", "m", domain="my.ops"), node("Conv", "m w", "y")]
    proto = model(nodes, {"w": weights(6, 8, 1, 1)}, {"x": ("N", 8, 12, 10)},
                  domains=[helper.make_opsetid("my.ops", 1)], value_info=[info])  # fmt: skip
    graph = read_onnx(proto)
    assert ops(graph) == ["onnx_my.ops.se", "conv"]
    assert final_shapes(graph) == [(1, 6, 6, 5)]


def test_operators_after_a_data_dependent_shape_are_not_predicted() -> None:
    nodes = [node("NonZero", "x", "n"), node("Cast", "n", "c", to=FLOAT), node("Relu", "c", "y")]
    graph = read_onnx(model(nodes))
    assert ops(graph) == ["nonzero", "cast of unknown size", "relu of unknown size"]
    assert final_shapes(graph) == [()]


def test_constants_of_unknown_shape_are_not_operators() -> None:
    nodes = [node("NonZero", "many", "n"), node("Shape", "n", "s"), node("Cast", "s", "c", to=FLOAT),
             node("Expand", "c s", "e"), node("Add", "x e", "y")]  # fmt: skip
    explained = load_latency_predictor("cortexA76cpu_tflite21").explain(model(nodes, {"many": weights(5000)}))
    assert explained.unpredicted == {"y": "onnx_add"}


def test_a_maximum_of_one_tensor_is_read() -> None:
    assert ops(read_onnx(layer("Max"))) == ["tanh", "maximum"]


def test_microsofts_fused_convolutions_are_split() -> None:
    nodes = [
        node("FusedConv", "x w", "a", domain="com.microsoft", activation="Relu"),
        node("FusedConv", "x w b a", "y", domain="com.microsoft", activation="Clip",
             activation_params=[0.0, 6.0]),
    ]  # fmt: skip
    proto = model(nodes, {"w": weights(8, 8, 1, 1), "b": weights(8)},
                  domains=[helper.make_opsetid("com.microsoft", 1)])  # fmt: skip
    assert ops(read_onnx(proto)) == ["conv", "relu", "conv", "add", "relu6"]


def ssd() -> onnx.ModelProto:
    """A small detector as SSDs are exported: two heads, boxes decoded, non-maximum suppression, top k."""
    nodes = [
        node("Conv", "x w0", "c0", pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", "c0", "f0"),
        node("Conv", "f0 w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", "c1", "f1"),
    ]  # fmt: skip
    for i, head in ((i, head) for i in (0, 1) for head in ("boxes", "scores")):
        nodes += [
            node("Conv", f"f{i} {head}{i}", f"{head}_c{i}", pads=[1, 1, 1, 1]),
            node("Transpose", f"{head}_c{i}", f"{head}_t{i}", perm=[0, 2, 3, 1]),
            node("Reshape", f"{head}_t{i} {head}_size", f"{head}_r{i}"),
        ]
    nodes += [
        node("Concat", "boxes_r0 boxes_r1", "boxes", axis=1),
        node("Concat", "scores_r0 scores_r1", "logits", axis=1),
        node("Softmax", "logits", "p", axis=2),
        node("Transpose", "p", "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores most iou", "selected"),
        node("Gather", "selected box_column", "box_index", axis=1),
        node("Squeeze", "box_index axis1", "index"),
        node("Gather", "boxes index", "chosen", axis=1),
        node("ReduceMax", "scores", "best", axes=[1], keepdims=0),
        node("Gather", "best index", "chosen_scores", axis=1),
        node("Shape", "chosen_scores", "shape"),
        node("Gather", "shape one", "count"),
        node("Min", "count hundred", "k"),
        node("TopK", "chosen_scores k", "top_scores top_index", axis=1),
        node("Cast", "top_index", "labels", to=TensorProto.INT32),
        node("TopK", "best ten", "ten_scores ten_index", axis=1),
    ]
    constants = {
        "w0": weights(16, 3, 3, 3), "w1": weights(32, 16, 3, 3), "boxes0": weights(4, 16, 3, 3),
        "boxes1": weights(4, 32, 3, 3), "scores0": weights(5, 16, 3, 3), "scores1": weights(5, 32, 3, 3),
        "boxes_size": ints(0, -1, 4), "scores_size": ints(0, -1, 5), "most": ints(20),
        "iou": np.float32([0.5]), "box_column": ints(2), "axis1": ints(1), "one": ints(1),
        "hundred": ints(100), "ten": ints(10),
    }  # fmt: skip
    outputs = {"chosen": None, "top_scores": (1, 20), "labels": None, "ten_scores": None}
    return model(nodes, constants, {"x": (1, 3, 32, 32)}, outputs, opset=13)


def test_a_detector_is_read_and_its_head_is_reported() -> None:
    graph = read_onnx(ssd())
    found = {data["op"]: data["out_shapes"] for _, data in graph.nodes(data=True)}
    assert ops(graph).count("conv") == 6
    assert found["nonmaxsuppression"] == [()]
    assert found["topk"] == [(1, 10), (1, 10)]
    assert {"gather", "cast of unknown size"} <= set(found)
    assert graph.nodes["boxes"]["out_shapes"] == [(1, 16 * 16 + 8 * 8, 4)]
    assert kernel_types(graph).count("conv-relu") == 2
    explained = load_latency_predictor("cortexA76cpu_tflite21").explain(ssd())
    assert {"nonmaxsuppression", "gather", "topk"} <= set(explained.unpredicted.values())
    assert "transpose" in explained.estimated.values()
    assert explained.latency_ms > 0
    assert "nonmaxsuppression" in str(explained)


# Local functions and control flow


def function_model(*bodies: tuple[str, list[onnx.NodeProto]], calls: list[onnx.NodeProto]) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [helper.make_function("local", name, ["a"], ["b"], nodes, opsets, ["groups", "alpha"])
                 for name, nodes in bodies]  # fmt: skip
    return model(calls, {"w": weights(8, 1, 3, 3)}, functions=functions, domains=opsets[1:])


def test_local_functions_are_inlined() -> None:
    leaky = node("LeakyRelu", "c", "b")
    leaky.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    )
    body = [node("Softplus", "a", "c", name="soft"), leaky]
    proto = function_model(
        ("Act", body),
        ("Twice", [node("Act", "a", "m", domain="local"), node("Act", "m", "b", domain="local")]),
        calls=[node("Twice", "x", "t", domain="local", name="t1"),
               node("Act", "t", "y", domain="local", alpha=0.3)],
    )  # fmt: skip
    graph = read_onnx(proto)
    assert ops(graph) == ["softplus", "leakyrelu"] * 3
    assert "t1/m/soft" in graph


def test_call_attributes_and_defaults_reach_a_functions_operators() -> None:
    conv = node("Conv", "a k", "b")
    conv.attribute.append(
        onnx.AttributeProto(name="group", ref_attr_name="groups", type=onnx.AttributeProto.INT)
    )
    kernel = node("Constant", "", "k", value=numpy_helper.from_array(weights(8, 1, 3, 3)))
    proto = function_model(("C", [kernel, conv]), calls=[node("C", "x", "y", domain="local", groups=8)])
    assert ops(read_onnx(proto)) == ["dwconv"]
    del proto.graph.node[0].attribute[:]
    proto.functions[0].attribute_proto.append(helper.make_attribute("groups", 8))
    assert ops(read_onnx(proto)) == ["dwconv"]


def test_function_attributes_reach_operators_without_a_canonical_form_too() -> None:
    deep = node("DepthToSpace", "a", "b")
    reference = onnx.AttributeProto(name="blocksize", ref_attr_name="groups", type=onnx.AttributeProto.INT)
    deep.attribute.append(reference)
    proto = function_model(("D", [deep]), calls=[node("D", "x", "y", domain="local", groups=2)])
    assert final_shapes(read_onnx(proto)) == [(1, 2, 24, 20)]


def test_functions_that_recurse_or_grow_exponentially_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(name: str, inputs: str, outputs: str) -> onnx.NodeProto:
        return node(name, inputs, outputs, domain="local")

    proto = function_model(("F", [call("F", "a", "b")]), calls=[call("F", "x", "y")])
    with pytest.raises(ReaderError, match=r"'y/b'.*call each other recursively"):
        read_onnx(proto)
    doubling = [(f"F{i}", [call(f"F{i + 1}", "a", "m"), call(f"F{i + 1}", "m", "b")]) for i in range(25)]
    proto = function_model(*doubling, ("F25", [node("Relu", "a", "b")]), calls=[call("F0", "x", "y")])
    monkeypatch.setattr("nnmeter_nas.readers.onnx.model.MAX_OPERATORS", 2000)
    with pytest.raises(ReaderError, match="more than 2000 operators"):
        read_onnx(proto)


def branches(condition: list[onnx.NodeProto], **kwargs: Any) -> onnx.ModelProto:
    """An ``If`` like torch's export of a squeeze: squeeze the dimension if its size is 1, else do nothing."""

    def branch(op: str, **attrs: Any) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(op, FLOAT, None)
        return helper.make_graph([node(op, "x", op, name=op, **attrs)], op, [], [out])

    taken = {"then_branch": branch("Squeeze"), "else_branch": branch("Identity")}
    nodes = [*condition, node("If", "flag", "s", **taken),
             node("Relu", "s", "y")]  # fmt: skip
    return model(nodes, {"one": ints(1), "axis": ints(2)}, **kwargs)


SIZE_IS_1 = [
    node("Shape", "x", "shape"),
    node("Gather", "shape axis", "size"),
    node("Equal", "size one", "flag"),
]


@pytest.mark.parametrize(("height", "shape"), [(1, (8, 10)), (5, (1, 8, 5, 10))])
def test_a_branch_decided_by_shapes_is_inlined(height: int, shape: tuple[int, ...]) -> None:
    assert final_shapes(read_onnx(branches(SIZE_IS_1, inputs={"x": (1, 8, height, 10)}))) == [shape]


# Constant folding


def arrays(dtype: type, shape: tuple[int, ...], low: int = -4) -> st.SearchStrategy[np.ndarray]:
    size = int(np.prod(shape))
    numbers = st.lists(st.integers(low, 5), min_size=size, max_size=size)
    return numbers.map(lambda values: np.array(values, dtype).reshape(shape))


VECTOR, SCALAR = (4,), ()
FOLDED: list[tuple[str, list[Any], dict[str, Any]]] = [
    *[(op, [arrays(np.int64, VECTOR), arrays(np.int64, (2, 4))], {})
      for op in ("Add", "Sub", "Mul", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Min",
                 "Max")],
    *[(op, [arrays(np.int64, VECTOR), arrays(np.int64, VECTOR, 1)], {}) for op in ("Div", "Mod")],
    ("Mod", [arrays(np.int64, VECTOR), arrays(np.int64, VECTOR, 1)], {"fmod": 1}),
    ("Div", [arrays(np.float32, VECTOR), arrays(np.float32, VECTOR, 1)], {}),
    ("Pow", [arrays(np.float32, VECTOR), arrays(np.float32, SCALAR, 1)], {}),
    *[(op, [arrays(np.float32, VECTOR)], {})
      for op in ("Neg", "Abs", "Sign", "Floor", "Ceil", "Exp", "Identity")],
    *[(op, [arrays(np.float32, VECTOR, 1)], {}) for op in ("Sqrt", "Log", "Reciprocal")],
    ("Round", [arrays(np.float32, VECTOR).map(lambda a: a / 2)], {}),
    *[(op, [arrays(np.bool_, VECTOR, 0), arrays(np.bool_, VECTOR, 0)], {}) for op in ("And", "Or", "Xor")],
    ("Not", [arrays(np.bool_, VECTOR, 0)], {}),
    ("Sum", [arrays(np.float32, VECTOR)] * 3, {}),
    ("Cast", [arrays(np.float32, VECTOR)], {"to": INT64}),
    ("Where", [arrays(np.bool_, VECTOR, 0), arrays(np.int64, (3, 1)), arrays(np.int64, VECTOR)], {}),
    ("Range", [arrays(np.int64, SCALAR), arrays(np.int64, SCALAR), arrays(np.int64, SCALAR, 1)], {}),
    ("Gather", [arrays(np.int64, (3, 6)), arrays(np.int64, (2, 2))], {"axis": 1}),
    ("Concat", [arrays(np.int64, (2, 2)), arrays(np.int64, (2, 3))], {"axis": -1}),
    ("Slice", [arrays(np.int64, (6, 3)), arrays(np.int64, (1,)), arrays(np.int64, (1,)), st.just(ints(0)),
               st.sampled_from([ints(1), ints(2), ints(-1)])], {}),
    ("Squeeze", [arrays(np.int64, (1, 3, 1)), st.sampled_from([ints(0), ints(-1), ints(0, 2)])], {}),
    ("Unsqueeze", [arrays(np.int64, VECTOR), st.sampled_from([ints(0), ints(-1), ints(0, 2)])], {}),
    ("Reshape", [arrays(np.int64, (2, 6)), st.sampled_from([ints(0, -1), ints(3, 4), ints(-1)])], {}),
    ("Transpose", [arrays(np.int64, (2, 3, 1))], {"perm": [2, 0, 1]}),
    ("Flatten", [arrays(np.int64, (2, 3, 2))], {"axis": 2}),
    ("Expand", [arrays(np.int64, (3, 1)), st.sampled_from([ints(2, 1, 4), ints(4)])], {}),
    ("Tile", [arrays(np.int64, (2, 2)), st.just(ints(2, 3))], {}),
    ("Clip", [arrays(np.int64, VECTOR), st.just(np.array(-1)), st.just(np.array(2))], {}),
    ("NonZero", [arrays(np.int64, (3, 2), -1)], {}),
    *[(op, [arrays(np.int64, (2, 3)), st.just(ints(-1))], {"keepdims": keep}) for keep in (0, 1)
      for op in ("ReduceSum", "ReduceProd", "ReduceMin", "ReduceMax", "ReduceMean")],
    ("ScatterND", [arrays(np.int64, VECTOR), st.just(np.array([[2], [0]])), arrays(np.int64, (2,))], {}),
    ("CastLike", [arrays(np.float32, VECTOR), arrays(np.int64, SCALAR)], {}),
    ("Dropout", [arrays(np.float32, VECTOR)], {}),
]  # fmt: skip


@settings(max_examples=200)
@given(st.data())
def test_constants_are_folded_as_onnx_defines(data: st.DataObject) -> None:
    op, inputs, attrs = data.draw(st.sampled_from(FOLDED))
    values = [data.draw(strategy) for strategy in inputs]
    names = [f"i{i}" for i in range(len(values))]
    expected = ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(
                [helper.make_node(op, names, ["o"], **attrs)],
                "one",
                [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                 for n, v in zip(names, values, strict=True)],
                [helper.make_tensor_value_info("o", 0, None)],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
        )
    ).run(None, dict(zip(names, values, strict=True)))[0]  # fmt: skip
    result = fold(op, Arithmetic(values, attrs, 1))
    assert result is not None
    np.testing.assert_allclose(result[0], expected, rtol=1e-6)
    assert result[0].dtype == np.asarray(expected).dtype


def test_every_folding_is_compared_with_onnx() -> None:
    assert set(FOLDINGS) - {op for op, *_ in FOLDED} == {"Split"}


@pytest.mark.parametrize(("opset", "attrs"), [(18, {"num_outputs": 3}), (13, {})])
def test_folded_splits_have_onnxs_sizes(opset: int, attrs: dict[str, int]) -> None:
    result = fold("Split", Arithmetic([np.arange(6)], attrs, 3))
    assert [array.tolist() for array in result or []] == [[0, 1], [2, 3], [4, 5]]
    result = fold("Split", Arithmetic([np.arange(5), ints(4, 1)], {}, 2))
    assert [array.tolist() for array in result or []] == [[0, 1, 2, 3], [4]]


# Shapes of windows


@settings(max_examples=150)
@given(
    op=st.sampled_from(["Conv", "MaxPool", "AveragePool"]),
    size=st.integers(6, 40),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    auto_pad=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    ceil_mode=st.booleans(),
)
def test_windows_have_the_size_onnx_infers(
    op: str,
    size: int,
    kernel: int,
    stride: int,
    pads: tuple[int, int],
    dilation: int,
    auto_pad: str,
    ceil_mode: bool,
) -> None:
    attrs: dict[str, Any] = {"kernel_shape": [kernel], "strides": [stride], "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attrs["pads"] = [min(p, kernel // 2) for p in pads]
    if op != "AveragePool" and size > dilation * (kernel - 1):
        attrs["dilations"] = [dilation]
    if op != "Conv" and auto_pad == "NOTSET":
        attrs["ceil_mode"] = int(ceil_mode)
    constants = {"w": weights(4, 2, kernel)} if op == "Conv" else {}
    proto = layer(op, constants, NEWEST, (1, 2, size), **attrs)
    assert final_shapes(read_onnx(proto)) == shapes_by_onnx(proto)


def test_error_for_a_missing_onnx_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'nnmeter_nas\[onnx\]'"):
        read_onnx("model.onnx")


def test_graph_errors_name_the_operator() -> None:
    with pytest.raises(GraphError, match="'y'"):
        read_onnx(layer("Conv", {"w": weights(6, 9, 1, 1)}))
