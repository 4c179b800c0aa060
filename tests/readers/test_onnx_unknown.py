"""An ONNX operator of unknown output shape takes as little as possible of what follows along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.predictor import Explanation, LatencyPredictor, LatencyWarning
from nnmeter_nas.readers.onnx.control_flow import MAX_UNROLLED
from nnmeter_nas.readers.onnx.model import read_onnx
from onnx_models import FLOAT, IMAGE, INT64, ints, layer, model, node, ops, weights

DOMAINS = [helper.make_opsetid("my.ops", 1), helper.make_opsetid("com.microsoft", 1)]


@pytest.fixture(scope="module")
def cpu() -> LatencyPredictor:
    return load_latency_predictor("cortexA76cpu_tflite21")


def odd(inputs: str, outputs: str) -> onnx.NodeProto:
    """An operator that only its author knows."""
    return node("Odd", inputs, outputs, domain="my.ops")


def told(**shapes: Sequence[Any]) -> list[onnx.ValueInfoProto]:
    """Shapes that a file declares for tensors inside it."""
    return [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()]


def predicted(found: Explanation) -> list[str]:
    """Types of the kernels that have a latency."""
    nodes = found.kernel_graph.nodes(data=True)
    return [data["kernel"].type for _, data in nodes if data["latency_ms"] is not None]


def assert_said(found: Explanation) -> None:
    """What is not predicted is listed, and its share is not told as a number."""
    assert found.unpredicted
    assert math.isnan(found.unpredicted_share)
    [line] = [line for line in found.remarks() if line.startswith("not predicted")]
    assert line.endswith("their share of the work is unknown")


CONV = {
    "w": weights(8, 8, 3, 3), "v": weights(8, 8, 3, 3), "head": weights(8, 5), "squeezed": weights(4, 8, 1, 1)
}  # fmt: skip


# What follows


def test_what_follows_keeps_its_name_and_is_listed(cpu: LatencyPredictor) -> None:
    nodes = [node("Conv", "x w", "c"), odd("c", "o"), node("Conv", "o v", "d", pads=[1, 1, 1, 1]),
             node("Relu", "d", "y")]  # fmt: skip
    found = cpu.explain(model(nodes, CONV, domains=DOMAINS))
    assert found.unpredicted == {
        "o": "onnx_my.ops.odd", "d": "conv of unknown size", "y": "relu of unknown size",
    }  # fmt: skip
    assert predicted(found) == ["conv"]
    assert_said(found)


@pytest.mark.parametrize("declared", ["o", "d", "r"])
def test_the_rest_is_predicted_from_the_first_shape_that_the_file_declares(
    cpu: LatencyPredictor, declared: str
) -> None:
    nodes = [odd("x", "o"), node("Conv", "o w", "d", pads=[1, 1, 1, 1]), node("Relu", "d", "r"),
             node("Conv", "r v", "y", pads=[1, 1, 1, 1])]  # fmt: skip
    found = cpu.explain(model(nodes, CONV, domains=DOMAINS, value_info=told(**{declared: (1, 8, 6, 5)})))
    assert predicted(found)[-1] == "conv"
    assert found.kernel_graph.nodes["y"]["kernel"].in_shapes == [(1, 8, 6, 5)]
    if declared == "o":
        assert not found.unpredicted
    else:
        assert_said(found)


def test_a_reshape_to_constant_sizes_makes_the_rest_known(cpu: LatencyPredictor) -> None:
    nodes = [odd("x", "o"), node("Reshape", "o size", "m"), node("Conv", "m w", "y")]
    found = cpu.explain(model(nodes, {**CONV, "size": ints(1, 8, 6, 6)}, domains=DOMAINS))
    assert found.unpredicted == {"o": "onnx_my.ops.odd"}, "a view was counted"
    assert predicted(found) == ["conv"]
    assert_said(found)


FLATTEN = {
    "flatten": [node("Flatten", "p", "f")],
    "reshape": [node("Reshape", "p row", "f")],
    "squeeze": [node("Squeeze", "p spatial", "f")],
    "computed reshape": [
        node("Shape", "p", "s"), node("Gather", "s first", "n"), node("Concat", "n rest", "size", axis=0),
        node("Reshape", "p size", "f"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("view", FLATTEN)
@pytest.mark.parametrize("pool", ["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"])
def test_a_dense_layer_after_a_global_pool_is_predicted(
    cpu: LatencyPredictor, view: str, pool: str
) -> None:
    axes = {"axes": [2, 3]} if pool == "ReduceMean" else {}
    constants = {**CONV, "row": ints(0, -1), "spatial": ints(2, 3), "first": ints(0), "rest": ints(-1)}
    nodes = [odd("x", "o"), node(pool, "o", "p", **axes), *FLATTEN[view], node("Relu", "f", "r"),
             node("Gemm", "r head", "g"), node("Softmax", "g", "y")]  # fmt: skip
    found = cpu.explain(model(nodes, constants, domains=DOMAINS))
    assert set(found.unpredicted) == {"o", "p", "r"}
    kernel = found.kernel_graph.nodes["g"]["kernel"]
    assert (kernel.in_shapes, kernel.out_shapes) == ([(1, 8)], [(1, 5)])
    assert predicted(found) == ["fc", "softmax"]
    assert_said(found)


def test_the_rows_that_data_selects_are_not_taken_for_one(cpu: LatencyPredictor) -> None:
    nodes = [node("NonZero", "x", "n"), node("Cast", "n", "c", to=FLOAT),
             node("Flatten", "c", "f"), node("Gemm", "f head", "y")]  # fmt: skip
    graph = read_onnx(model(nodes, CONV))
    assert ops(graph)[-1] == "fc of unknown size"


def test_squeeze_and_excite_on_an_unknown_map_is_known_where_it_is_a_row(cpu: LatencyPredictor) -> None:
    nodes = [odd("x", "o"), node("GlobalAveragePool", "o", "p"), node("Conv", "p squeezed", "s"),
             node("Relu", "s", "r"), node("Mul", "o r", "y")]  # fmt: skip
    graph = read_onnx(model(nodes, CONV, domains=DOMAINS))
    assert graph.nodes["s"]["in_shapes"] == [(1, 8, 1, 1)]
    assert graph.nodes["r"]["op"] == "relu"
    assert graph.nodes["y"]["op"] == "mul of unknown size"


def test_a_sum_with_a_known_map_has_its_shape(cpu: LatencyPredictor) -> None:
    nodes = [odd("x", "o"), node("Add", "x o", "a"), node("Conv", "a w", "y")]
    found = cpu.explain(model(nodes, CONV, domains=DOMAINS))
    assert found.unpredicted == {"o": "onnx_my.ops.odd"}
    assert predicted(found) == ["add", "conv"]


def test_an_unknown_shape_at_another_input_shape_is_told_with_its_cause(cpu: LatencyPredictor) -> None:
    nodes = [odd("x", "o"), node("Conv", "o w", "y")]
    proto = model(nodes, CONV, domains=DOMAINS, value_info=told(o=IMAGE))
    assert not cpu.explain(proto).notes
    other = cpu.explain(proto, input_shape=(1, 8, 24, 20))
    assert_said(other)
    assert "pass the shape it was exported with" in other.notes[0]
    with pytest.raises(Exception, match="nothing of the model is predicted"):
        cpu.predict(proto, input_shape=(1, 8, 24, 20))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_unknown_operator_in_a_chain_costs_no_known_kernel_its_latency(data: st.DataObject) -> None:
    """A chain of layers with an unknown operator somewhere, and shapes declared for some of them."""
    cpu = load_latency_predictor("cortexA76cpu_tflite21")
    layers = st.sampled_from(["Conv", "Relu", "Sigmoid", "MaxPool"])
    kinds = data.draw(st.lists(layers, min_size=2, max_size=6))
    at = data.draw(st.integers(0, len(kinds)))
    kinds.insert(at, "Odd")
    tells = data.draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
    extra = {"Conv": {"pads": [1, 1, 1, 1]}, "MaxPool": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}}
    nodes, names = [], ["x", *(f"t{i}" for i in range(len(kinds)))]
    for i, kind in enumerate(kinds):
        inputs = f"{names[i]} w" if kind == "Conv" else names[i]
        nodes.append(odd(inputs, names[i + 1]) if kind == "Odd"
                     else node(kind, inputs, names[i + 1], **extra.get(kind, {})))  # fmt: skip
    declared = {name: IMAGE for name, tell in zip(names[1:], tells, strict=True) if tell}
    proto = model(nodes, CONV, outputs=[names[-1]], domains=DOMAINS, value_info=told(**declared))
    found = cpu.explain(proto)
    # Unknown are the operator and what follows it, up to and with the first whose shape the file tells.
    first = next((i for i in range(at, len(kinds)) if tells[i]), len(kinds))
    unknown = set() if tells[at] else set(names[at + 1 : first + 2])
    assert set(found.unpredicted) == unknown
    assert math.isnan(found.unpredicted_share) == bool(unknown)


def test_indices_of_a_pool_have_its_shape(cpu: LatencyPredictor) -> None:
    window: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [node("MaxPool", "x", "p i", **window), node("MaxUnpool", "p i", "u", **window),
             node("Conv", "u w", "y")]  # fmt: skip
    found = cpu.explain(model(nodes, CONV))
    assert predicted(found) == ["maxpool", "maxunpool", "conv"]
    assert found.kernel_graph.nodes["y"]["kernel"].in_shapes == [IMAGE]


# Operators that ONNX defines by others


def test_an_operator_that_onnx_defines_by_others_is_read_as_these(cpu: LatencyPredictor) -> None:
    nodes = [node("Conv", "x w", "c"), node("MeanVarianceNormalization", "c", "m"), node("Conv", "m v", "y")]
    found = cpu.explain(model(nodes, CONV))
    assert not found.unpredicted
    assert predicted(found).count("conv") == 2
    assert {"mean", "sqrt", "div"} <= set(predicted(found))
    assert found.kernel_graph.nodes["y"]["kernel"].in_shapes == [(1, 8, 10, 8)]


def test_a_cast_like_another_tensor_is_a_cast_or_nothing(cpu: LatencyPredictor) -> None:
    nodes = [node("Relu", "x", "r"), node("CastLike", "r like", "c"), node("Tanh", "c", "y")]
    assert ops(read_onnx(model(nodes, {"like": np.zeros(1, np.float16)}))) == ["relu", "cast", "tanh"]
    assert ops(read_onnx(model(nodes, {"like": np.zeros(1, np.float32)}))) == ["relu", "tanh"]
    assert ops(read_onnx(model(nodes, domains=[], inputs={"x": IMAGE, "like": (1,)}))) == ["relu", "tanh"]


@pytest.mark.parametrize(
    ("op", "parts"), [("ReduceL2", ["sum", "sqrt"]), ("ReduceLogSum", ["sum", "log"])]
)
def test_every_part_of_such_an_operator_is_priced(cpu: LatencyPredictor, op: str, parts: list[str]) -> None:
    proto = layer(op, opset=18)
    assert ops(read_onnx(proto))[-2:] == parts
    assert not cpu.explain(proto).unpredicted


def test_attention_is_read_as_its_products(cpu: LatencyPredictor) -> None:
    shape = (1, 4, 16, 8)
    proto = model([node("Attention", "q k v", "y")], {}, {"q": shape, "k": shape, "v": shape}, opset=24)
    proto.ir_version = 11
    found = cpu.explain(proto)
    assert predicted(found).count("matmul") == 2
    assert "softmax" in predicted(found)
    assert not found.unpredicted


# Operators of onnxruntime

SEQUENCE = (1, 6, 8)
#: An operator of onnxruntime, more constants, and the operators of ONNX that it stands for.
MICROSOFT = {
    "a product with a transposed matrix": (
        node("FusedMatMul", "a b", "y", transB=1, alpha=0.5), {},
        [node("Transpose", "b", "t", perm=[0, 2, 1]), node("MatMul", "a t", "p"), node("Mul", "p half", "y")],
    ),
    "a product with weights": (
        node("FusedMatMul", "a matrix", "y", transB=1, alpha=0.5), {"matrix": weights(5, 8)},
        [node("MatMul", "a turned", "y")],
    ),
    "a dense layer": (
        node("FusedGemm", "row turned bias5", "y", activation="Relu"), {},
        [node("Gemm", "row turned bias5", "g"), node("Relu", "g", "y")],
    ),
    "a norm of a sum": (
        node("SkipLayerNormalization", "a b gain gain bias", "y"), {},
        [node("Add", "a b", "s"), node("Add", "s bias", "t"), node("LayerNormalization", "t gain gain", "y")],
    ),
    "a simplified norm of a sum": (
        node("SkipSimplifiedLayerNormalization", "a b gain", "y"), {},
        [node("Add", "a b", "s"), node("LayerNormalization", "s gain", "y")],
    ),
    "a simplified norm": (
        node("SimplifiedLayerNormalization", "a gain", "y"), {}, [node("LayerNormalization", "a gain", "y")],
    ),
    "a group norm": (
        node("GroupNorm", "a gain gain", "y", groups=2, activation=1), {},
        [node("LayerNormalization", "a gain gain", "n"), node("Sigmoid", "n", "s"), node("Mul", "n s", "y")],
    ),
    "a gate": (
        node("BiasSplitGelu", "a bias", "y"), {},
        [node("Add", "a bias", "s"), node("Split", "s", "l r", axis=2), node("Gelu", "r", "g"),
         node("Mul", "l g", "y")],
    ),
    "sums": (
        node("BiasAdd", "a bias b", "y"), {}, [node("Add", "a bias", "s"), node("Add", "s b", "y")],
    ),
    "a softmax": (
        node("BiasSoftmax", "a b", "y"), {}, [node("Add", "a b", "s"), node("Softmax", "s", "y")],
    ),
    "a convolution with channels last": (
        node("NhwcFusedConv", "last w", "y", pads=[1, 1, 1, 1], kernel_shape=[3, 3], activation="Relu"), {},
        [node("Transpose", "last", "f", perm=[0, 3, 1, 2]), node("Conv", "f w", "c", pads=[1, 1, 1, 1]),
         node("Transpose", "c", "l", perm=[0, 2, 3, 1]), node("Relu", "l", "y")],
    ),
    "attention": (
        node("Attention", "a qkv bias24", "y", num_heads=2), {},
        [node("MatMul", "a qkv", "d"), node("Add", "d bias24", "s"), node("Split", "s", "q_ k_ v_", axis=2),
         *[node("Reshape", f"{n}_ heads", f"{n}h") for n in "qkv"],
         node("Transpose", "qh", "qt", perm=[0, 2, 1, 3]), node("Transpose", "kh", "kt", perm=[0, 2, 3, 1]),
         node("Transpose", "vh", "vt", perm=[0, 2, 1, 3]), node("Mul", "qt half", "qs"),
         node("Mul", "kt half", "ks"), node("MatMul", "qs ks", "n"), node("Softmax", "n", "o"),
         node("MatMul", "o vt", "z"),
         node("Transpose", "z", "zt", perm=[0, 2, 1, 3]), node("Reshape", "zt rest", "y")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MICROSOFT)
def test_an_operator_of_onnxruntime_costs_what_it_stands_for(cpu: LatencyPredictor, name: str) -> None:
    fused, extra, parts = MICROSOFT[name]
    constants = {
        **CONV, **extra, "half": np.float32(0.5), "turned": weights(8, 5), "bias5": weights(5),
        "gain": weights(8), "bias": weights(8), "qkv": weights(8, 24), "bias24": weights(24),
        "heads": ints(1, 6, 2, 4), "rest": ints(1, 6, 8),
    }  # fmt: skip
    inputs = {"a": SEQUENCE, "b": SEQUENCE, "row": (1, 8), "last": (1, 9, 7, 8)}
    fused.domain = "" if name == "a simplified norm" else "com.microsoft"
    end = node("Sigmoid", "y", "end")
    one, several = (
        cpu.explain(model([*nodes, end], constants, inputs, ["end"], opset, domains=DOMAINS))
        for nodes, opset in (([fused], 17), (parts, 20 if name == "a gate" else 17))
    )
    assert not one.unpredicted
    assert sorted(predicted(one)) == sorted(predicted(several))
    assert one.latency_ms == pytest.approx(several.latency_ms)


def test_multi_head_attention_keeps_the_length_of_its_query(cpu: LatencyPredictor) -> None:
    inputs = {"q": (1, 6, 8), "k": (1, 9, 8), "v": (1, 9, 16)}
    attend = node("MultiHeadAttention", "q k v", "y", domain="com.microsoft", num_heads=2)
    graph = read_onnx(model([attend], {}, inputs, domains=DOMAINS))
    assert [d["out_shapes"] for _, d in graph.nodes(data=True) if d["op"] == "matmul"] == [
        [(1, 2, 6, 9)], [(1, 2, 6, 8)],
    ]  # fmt: skip
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 6, 16)]


def test_embeddings_and_the_sum_before_a_norm_are_read(cpu: LatencyPredictor) -> None:
    tables = {"words": weights(50, 8), "places": weights(12, 8), "gain": weights(8)}
    nodes = [
        node("EmbedLayerNormalization", "ids - words places - gain gain", "e m", domain="com.microsoft"),
        node("SkipLayerNormalization", "e e gain gain", "n - - s", domain="com.microsoft"),
        node("Add", "n s", "y"),
    ]  # fmt: skip
    found = cpu.explain(model(nodes, tables, {"ids": (1, 6)}, domains=DOMAINS))
    assert sorted(predicted(found)) == ["add", "add", "add", "gather", "norm", "norm"]
    assert not found.unpredicted


# Control flow


def graph(nodes: list[onnx.NodeProto], outputs: str, inputs: Sequence[Any] = (), **shapes: Any) -> Any:
    """A graph inside an operator; ``shapes`` are those that it declares for its outputs."""
    types = {"i": (TensorProto.INT64, ()), "go": (TensorProto.BOOL, ()), "on": (TensorProto.BOOL, ())}
    infos = [helper.make_tensor_value_info(n, *types.get(n, (FLOAT, shapes.get(n)))) for n in outputs.split()]
    given = [helper.make_tensor_value_info(n, *types.get(n, (FLOAT, None))) for n in inputs]
    return helper.make_graph(nodes, "inside", given, infos)


#: A truth value that depends on the input.
DATA = [node("ReduceMax", "x", "max", keepdims=0), node("Cast", "max", "flag", to=TensorProto.BOOL)]
BODY = [node("Conv", "h w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("Identity", "go", "on")]


def choice(cheap: list[onnx.NodeProto], dear: list[onnx.NodeProto], swap: bool = False) -> onnx.ModelProto:
    """An ``If`` on data with two branches, and a convolution after it."""
    names = ("else_branch", "then_branch") if swap else ("then_branch", "else_branch")
    branches = {name: graph(nodes, out) for name, nodes, out in
                zip(names, (cheap, dear), ("cheap", "dear"), strict=True)}  # fmt: skip
    return model([*DATA, node("If", "flag", "s", name="if", **branches), node("Conv", "s v", "y")], CONV)


@pytest.mark.parametrize("swap", [False, True])
def test_of_a_choice_on_data_the_costlier_branch_counts_and_a_note_says_so(
    cpu: LatencyPredictor, swap: bool
) -> None:
    dear = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "dear")]
    proto = choice([node("Relu", "x", "cheap")], dear, swap)
    found = cpu.explain(proto)
    assert not found.unpredicted
    assert sorted(predicted(found)) == ["cast", "conv", "conv-relu", "max"], "the condition is not free"
    with pytest.warns(LatencyWarning) as caught:
        load_latency_predictor("adreno640gpu_tflite21").predict(proto)
    said = f"'if' (If) runs one of two branches, as data decides; its {'then' if swap else 'else'}_branch"
    assert sum(said in str(warning.message) for warning in caught) == 1


def test_a_choice_of_constants_is_as_cheap_as_its_condition(cpu: LatencyPredictor) -> None:
    ones, twos = (node("Constant", "", out, value_floats=[v]) for out, v in (("cheap", 1.0), ("dear", 2.0)))
    branches = {"then_branch": graph([ones], "cheap"), "else_branch": graph([twos], "dear")}
    nodes = [*DATA, node("If", "flag", "s", **branches), node("Mul", "x s", "y")]
    assert predicted(cpu.explain(model(nodes))) == ["max", "cast", "mul"]


@pytest.mark.parametrize("declared", [None, (1, 8, 6, 5)])
def test_a_choice_of_different_shapes_is_unknown(cpu: LatencyPredictor, declared: Any) -> None:
    proto = choice([node("Squeeze", "x", "cheap")], [node("Relu", "x", "dear")])
    if declared:
        proto.graph.value_info.extend(told(s=declared))
    found = cpu.explain(proto)
    assert found.unpredicted == {"if": "if"} | ({} if declared else {"y": "conv of unknown size"})
    assert predicted(found)[-1] == ("conv" if declared else "cast")
    assert_said(found)
    assert "'if'" in found.notes[0]


def loop(trips: Any, body: list[onnx.NodeProto] = BODY, **shapes: Any) -> onnx.ModelProto:
    """A loop over a convolution, and another convolution after it."""
    inner = graph(body, "on r", ("i", "go", "h"), **shapes)
    nodes = [node("Loop", "trips yes x", "s", name="loop", body=inner), node("Conv", "s v", "y")]
    constants = {**CONV, "yes": np.array(True)}
    if trips is None:
        nodes = [node("ReduceMax", "x", "max", keepdims=0), node("Cast", "max", "trips", to=7), *nodes]
    else:
        constants["trips"] = np.array(trips)
    return model(nodes, constants)


def test_a_loop_of_fixed_length_is_its_steps(cpu: LatencyPredictor) -> None:
    found = cpu.explain(loop(3))
    assert predicted(found) == ["conv-relu"] * 3 + ["conv"]
    assert not found.notes


def test_what_is_unknown_in_a_loop_is_said_once(cpu: LatencyPredictor) -> None:
    inner = loop(None).graph
    body = [*(n for n in inner.node if n.name == "loop"), node("Identity", "go", "on")]
    body[0].input[2], body[0].output[0] = "h", "r"
    outer = loop(3, body)
    outer.graph.node.insert(0, node("ReduceMax", "x", "max", keepdims=0))
    outer.graph.node.insert(1, node("Cast", "max", "most", to=INT64))
    outer.graph.node[2].attribute[0].g.node[0].input[0] = "most"
    found = cpu.explain(outer)
    assert list(found.unpredicted.values()) == ["loop"] * 3 + ["conv of unknown size"]
    assert len(found.notes) == 1


@pytest.mark.parametrize("trips", [None, MAX_UNROLLED, 10**9])
@pytest.mark.parametrize("told_by", [None, "file", "body"])
def test_a_loop_of_unknown_length_takes_only_what_has_no_shape(
    cpu: LatencyPredictor, trips: Any, told_by: Any
) -> None:
    proto = loop(trips, **({"r": IMAGE} if told_by == "body" else {}))
    if told_by == "file":
        proto.graph.value_info.extend(told(s=IMAGE))
    found = cpu.explain(proto)
    assert found.unpredicted == {"loop": "loop"} | ({} if told_by else {"y": "conv of unknown size"})
    assert ("conv" in predicted(found)) == bool(told_by)
    assert "loop" not in found.estimated
    assert_said(found)
    assert "'loop' (Loop) runs as often as data decides" in found.notes[0]


def test_a_loop_that_data_ends_is_unknown(cpu: LatencyPredictor) -> None:
    ends = [*BODY[:2], node("ReduceMax", "r", "most", keepdims=0), node("Cast", "most", "on", to=9)]
    graph = read_onnx(loop(3, ends))
    assert ops(graph) == ["loop", "conv of unknown size"], "steps that do not count stay"


def test_a_scan_is_a_step_for_each_slice(cpu: LatencyPredictor) -> None:
    step = [node("MatMul", "part head", "z"), node("Add", "state z", "next"), node("Relu", "next", "seen")]
    body = graph(step, "next seen", ("state", "part"))
    nodes = [node("Relu", "start", "first"), node("Scan", "first x", "last seq", body=body, num_scan_inputs=1,
             scan_input_axes=[1]), node("Softmax", "seq", "y")]  # fmt: skip
    inputs = {"x": (1, 6, 8), "start": (1, 5)}
    found = cpu.explain(model(nodes, {"head": weights(8, 5)}, inputs, ["y", "last"]))
    assert predicted(found).count("fc") == 6
    assert found.kernel_graph.nodes["y"]["kernel"].in_shapes == [(6, 1, 5)]
    assert not found.unpredicted


def test_a_step_that_cannot_be_read_leaves_the_loop_unknown(cpu: LatencyPredictor) -> None:
    shrinks = [node("Conv", "h w", "r"), node("Identity", "go", "on")]
    assert cpu.explain(loop(2, shrinks)).latency_ms > 0
    graph = read_onnx(loop(9, shrinks))  # the map is empty after the fifth step
    assert ops(graph) == ["loop", "conv of unknown size"]
