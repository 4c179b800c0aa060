"""The TFLite writer: its files compute what the ONNX files of the same networks compute."""

from __future__ import annotations

import sys
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")

import onnxruntime
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.errors import MissingPackageError, ReaderError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, input_names, new_graph
from nnmeter_nas.readers.onnx.writer import to_onnx
from nnmeter_nas.readers.tflite.writer import to_tflite

Floats = npt.NDArray[np.float32]
MAP, TOKENS = (1, 8, 10, 12), (1, 6, 16)
ONES = {"kernel": (1, 1), "stride": (1, 1)}


def chain(shape: tuple[int, ...], *steps: tuple[str, dict[str, Any]]) -> nx.DiGraph:
    """A network of operators one after another."""
    graph = new_graph()
    last = add_input(graph, "x", shape)
    for i, (op, attrs) in enumerate(steps):
        last = add_op(graph, f"{op}{i}", op, [last], attrs)
    return finish(graph)


def by_tflite(graph: nx.DiGraph, inputs: dict[str, Floats]) -> Floats:
    """Result of the TFLite file; feature maps go in and come out with their channels last."""
    interpreter = Interpreter(model_content=to_tflite(graph), num_threads=1)
    interpreter.allocate_tensors()
    for declared in interpreter.get_input_details():
        values = inputs[declared["name"]]
        if tuple(declared["shape"]) != values.shape:
            values = values.transpose(0, 2, 3, 1)
        interpreter.set_tensor(declared["index"], values)
    interpreter.invoke()
    [declared] = interpreter.get_output_details()
    result: Floats = interpreter.get_tensor(declared["index"])
    wanted = graph.nodes[graph.graph["outputs"][0]]["out_shapes"][0] if graph.graph["outputs"] else None
    if result.ndim == 4 and result.shape != wanted:
        result = result.transpose(0, 3, 1, 2)
    return result


def by_onnx(graph: nx.DiGraph, inputs: dict[str, Floats]) -> Floats:
    """Result of the ONNX file."""
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    [result] = session.run(None, inputs)
    return np.asarray(result)


def check(graph: nx.DiGraph) -> None:
    """Both files of a network compute the same."""
    random = np.random.default_rng(0)
    inputs = {
        name: random.standard_normal(graph.nodes[name]["out_shapes"][0]).astype(np.float32)
        for name in input_names(graph)
    }
    ours, theirs = by_tflite(graph, inputs), by_onnx(graph, inputs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * float(np.abs(theirs).max()), rtol=1e-4)


def operators(graph: nx.DiGraph) -> list[str]:
    """Names of the operators of the file, in order."""
    model = schema.ModelT.InitFromPackedBuf(to_tflite(graph), 0)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    return [names[model.operatorCodes[one.opcodeIndex].builtinCode] for one in model.subgraphs[0].operators]


# Networks without pixel shuffles and without pools that TFLite shifts; they hold all other blocks.
@pytest.mark.parametrize("seed", [1, 3, 58, 66, 71, 80])
def test_a_network_computes_what_its_onnx_file_computes(seed: int) -> None:
    check(random_network(seed))


CONV = {"out_channels": 12, "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "bias": True}
STEPS_FIRST: tuple[str, dict[str, Any]] = ("transpose", {"perm": (1, 0, 2)})
POOL = {"kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
ALONE: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
    "conv": (MAP, "conv", CONV),
    "conv, stride 2": (MAP, "conv", {**CONV, "stride": (2, 2)}),
    "conv, same": (MAP, "conv", {**CONV, "stride": (2, 2), "padding": "same"}),
    "conv, valid": (MAP, "conv", {**CONV, "padding": "valid", "bias": False}),
    "conv, one side": (MAP, "conv", {**CONV, "padding": ((2, 0), (0, 1))}),
    "conv, dilated": (MAP, "conv", {**CONV, "dilation": (2, 2), "padding": ((2, 2), (2, 2))}),
    "conv, 1x5": (MAP, "conv", {**CONV, "kernel": (1, 5), "padding": ((0, 0), (2, 2))}),
    "conv, groups": (MAP, "conv", {**CONV, "groups": 4}),
    "dwconv": (MAP, "conv", {**CONV, "out_channels": 8, "groups": 8}),
    "dwconv, two each": (MAP, "conv", {**CONV, "out_channels": 16, "groups": 8, "stride": (2, 2)}),
    "convtranspose": (
        MAP, "convtranspose", {"out_channels": 6, "kernel": (2, 2), "stride": (2, 2), "bias": True},
    ),
    "fc": ((1, 24), "fc", {"out_features": 10}),
    "fc of tokens": (TOKENS, "fc", {"out_features": 10, "bias": False}),
    "matmul": (TOKENS, "matmul", {"const_shape": (16, 5)}),
    "bn": (MAP, "bn", {}),
    "norm": (TOKENS, "norm", {}),
    "relu6": (MAP, "relu6", {}),
    "hswish": (MAP, "hswish", {}),
    "swish": (MAP, "swish", {}),
    "gelu": (MAP, "gelu", {}),
    "sigmoid": (MAP, "sigmoid", {}),
    "hsigmoid": (MAP, "hsigmoid", {}),
    "leakyrelu": (MAP, "leakyrelu", {}),
    "tanh": (TOKENS, "tanh", {}),
    "softmax": (TOKENS, "softmax", {"axis": -1}),
    "softmax of channels": (MAP, "softmax", {"axis": 1}),
    "maxpool": (MAP, "maxpool", POOL),
    "maxpool, valid": (MAP, "maxpool", {"kernel": (2, 2), "stride": (2, 2)}),
    "avgpool": (MAP, "avgpool", POOL),
    "globalavgpool": (MAP, "globalavgpool", {}),
    "mean": (MAP, "mean", {"axes": (1,), "keepdims": True}),
    "max of rows": (MAP, "max", {"axes": (2,), "keepdims": False}),
    "mul": (MAP, "mul", {"const": 0.3}),
    "mul by channels": (MAP, "mul", {"const_shape": (8, 1, 1)}),
    "from a constant": (TOKENS, "sub", {"const": 1.0, "const_first": True}),
    "flatten": (MAP, "flatten", {}),
    "reshape": (MAP, "reshape", {"shape": (1, 8, 120)}),
    "transpose": (TOKENS, "transpose", {"perm": (0, 2, 1)}),
    "transpose of a map": (MAP, "transpose", {"perm": (0, 2, 1, 3)}),
    "channelshuffle": (MAP, "channelshuffle", {"groups": 2}),
    "upsample": (MAP, "upsample", {"scale": (2.0, 2.0)}),
    "pad": (MAP, "pad", {"padding": ((0, 0), (0, 0), (1, 2), (3, 0))}),
}  # fmt: skip


@pytest.mark.parametrize("what", ALONE)
def test_an_operator_computes_what_it_does_in_onnx(what: str) -> None:
    shape, op, attrs = ALONE[what]
    check(chain(shape, (op, attrs)))


def test_operators_of_several_tensors() -> None:
    graph = new_graph()
    add_op(graph, "cut", "split", [add_input(graph, "x", MAP)], {"axis": 1, "sections": [2, 6]})
    add_op(graph, "wide", "conv", [("cut", 0)], {**CONV, "out_channels": 6})
    add_op(graph, "sum", "add", ["wide", ("cut", 1)])
    add_op(graph, "all", "concat", [("cut", 0), "sum", add_input(graph, "y", MAP)], {"axis": 1})
    add_op(graph, "gate", "globalavgpool", ["all"])
    add_op(graph, "gated", "mul", ["all", "gate"])
    check(finish(graph))


@pytest.mark.parametrize("bias", [False, True])
def test_a_recurrent_layer_keeps_its_gates_apart(bias: bool) -> None:
    check(chain(TOKENS, STEPS_FIRST, ("lstm", {"hidden": 12, "bias": bias}), STEPS_FIRST))


def test_tokens_become_a_map_and_a_map_tokens() -> None:
    to_tokens = [("reshape", {"shape": (1, 8, 120)}), ("transpose", {"perm": (0, 2, 1)}), ("norm", {})]
    to_map = [("transpose", {"perm": (0, 2, 1)}), ("reshape", {"shape": MAP}), ("conv", CONV)]
    first = ("conv", {**CONV, "out_channels": 8})
    graph = chain(MAP, first, *to_tokens, ("fc", {"out_features": 8}), *to_map)
    check(graph)
    assert "TRANSPOSE" not in operators(graph), "channels are last all the way"


def test_a_pixel_shuffle_takes_channels_in_the_order_of_tensorflow() -> None:
    graph = chain(MAP, ("pixelshuffle", {"factor": 2}))
    x = np.random.default_rng(0).standard_normal(MAP).astype(np.float32)
    blocks = x.reshape(1, 2, 2, 2, 10, 12).transpose(0, 3, 4, 1, 5, 2)
    np.testing.assert_array_equal(by_tflite(graph, {"x": x}), blocks.reshape(1, 2, 20, 24))


def test_a_pool_that_is_padded_in_another_way_reads_as_many_windows() -> None:
    graph = chain(MAP, ("maxpool", {**POOL, "stride": (2, 2)}))
    assert by_tflite(graph, {"x": np.zeros(MAP, np.float32)}).shape == (1, 8, 5, 6)
    assert operators(graph) == ["MAX_POOL_2D"]


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([("conv", CONV), ("bn", {}), ("relu", {})], ["CONV_2D"]),
        ([("conv", CONV), ("bn", {}), ("hswish", {})], ["CONV_2D", "HARD_SWISH"]),
        ([("conv", CONV), ("relu6", {}), ("bn", {})], ["CONV_2D", "MUL", "ADD"]),
        ([("bn", {}), ("relu", {})], ["MUL", "ADD"]),
        ([("hswish", {}), ("relu", {})], ["HARD_SWISH", "RELU"]),
    ],
)
def test_what_follows_is_part_of_the_operator_where_tflite_can_say_so(
    steps: list[tuple[str, dict[str, Any]]], found: list[str]
) -> None:
    graph = chain(MAP, *steps)
    assert operators(graph) == found
    check(graph)


def test_what_somebody_else_reads_stays_apart() -> None:
    graph = new_graph()
    add_op(graph, "conv", "conv", [add_input(graph, "x", MAP)], CONV)
    add_op(graph, "relu", "relu", ["conv"])
    add_op(graph, "sum", "add", ["relu", "conv"])
    assert operators(finish(graph)) == ["CONV_2D", "RELU", "ADD"]
    check(graph)


def test_what_cannot_be_written_is_named() -> None:
    with pytest.raises(ReaderError, match="'lrn0': an operator 'lrn' cannot be written to TFLite"):
        to_tflite(chain(MAP, ("lrn", {"size": 5})))
    line = chain((1, 8, 16), ("conv", {"out_channels": 8, "kernel": (3,), "stride": (1,)}))
    with pytest.raises(ReaderError, match=r"'conv0': an operator 'conv' of the shape \(1, 8, 16\) cannot"):
        to_tflite(line)
    both = chain(TOKENS, STEPS_FIRST, ("lstm", {"hidden": 8, "directions": 2}))
    with pytest.raises(ReaderError, match="'lstm1': an operator 'lstm' of two directions"):
        to_tflite(both)
    state = new_graph()
    steps = add_op(state, "steps", "transpose", [add_input(state, "x", TOKENS)], {"perm": (1, 0, 2)})
    add_op(state, "lstm", "lstm", [steps], {"hidden": 8})
    add_op(state, "relu", "relu", [("lstm", 1)])
    with pytest.raises(ReaderError, match="'relu' reads a result of 'lstm' that TFLite does not tell"):
        to_tflite(finish(state))


def test_a_seed_decides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_network(5)
    assert to_tflite(graph) == to_tflite(graph)
    assert to_tflite(graph) != to_tflite(graph, seed=1)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(MissingPackageError, match=r"nnmeter_nas\[litert\]"):
        to_tflite(graph)
