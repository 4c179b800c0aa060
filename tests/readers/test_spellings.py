"""One network, one latency: in every format, and however its blocks are spelled."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costs_of_graphs import cost
from formulas import add_formula
from nnmeter_nas import read_model
from nnmeter_nas.graph.model_graph import add_input, new_graph
from nnmeter_nas.graph.rewrites import clips, gelu, hsigmoid, hswish, mish, sigmoid, swish
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from recorded import nni_ir_of
from spelt_networks import BLOCKS, network
from tf_graphs import TfBuilder

SHAPE = (1, 8, 8, 8)
Chosen = list[tuple[str, int]]


def onnx_of(module: torch.nn.Module, **options: Any) -> onnx.ModelProto:
    """The module as ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.get("dynamo"):
            return torch.onnx.export(module, (torch.zeros(SHAPE),), verbose=False, **options).model_proto
        buffer = io.BytesIO()
        torch.onnx.export(module, (torch.zeros(SHAPE),), buffer, do_constant_folding=False, **options)
    return onnx.load_from_string(buffer.getvalue())


def plain(chosen: Chosen) -> Chosen:
    """The same blocks, as they are spelled first."""
    return [(block, 0) for block, _ in chosen]


def of_torch(chosen: Chosen, folder: Path) -> Any:
    """What a network costs, read from torch."""
    return cost(read_model(network(chosen, folder), input_shape=SHAPE))


EACH = [(block, number) for block, spellings in BLOCKS.items() for number in range(1, len(spellings))]
EVERY = [(block, number) for block, spellings in BLOCKS.items() for number in range(len(spellings))]


@pytest.mark.parametrize("chosen", EACH, ids=lambda chosen: f"{chosen[0]} {chosen[1]}")
def test_a_spelling_costs_what_the_plain_one_does(chosen: tuple[str, int], tmp_path: Path) -> None:
    assert of_torch([chosen], tmp_path) == of_torch(plain([chosen]), tmp_path)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("chosen", EVERY, ids=lambda chosen: f"{chosen[0]} {chosen[1]}")
def test_an_export_costs_what_the_plain_network_does(
    chosen: tuple[str, int], opset: int, tmp_path: Path
) -> None:
    if "F.channel_shuffle" in BLOCKS[chosen[0]][chosen[1]]:
        pytest.skip("the exporter has no channel shuffle")
    if opset < 14 and BLOCKS[chosen[0]][chosen[1]].startswith("F.hardswish"):
        opset = 14  # the first that has one
    exported = read_model(onnx_of(network([chosen], tmp_path), opset_version=opset, dynamo=False))
    assert cost(exported) == of_torch(plain([chosen]), tmp_path)


#: Operators of model graphs in TensorFlow, where formulas have them.
TENSORFLOW = {
    "add": "AddV2", "sub": "Sub", "mul": "Mul", "div": "RealDiv", "pow": "Pow", "neg": "Neg",
    "maximum": "Maximum", "minimum": "Minimum", "relu": "Relu", "relu6": "Relu6", "exp": "Exp", "log": "Log",
    "log1p": "Log1p", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus", "erf": "Erf",
    "erfc": "Erfc",
}  # fmt: skip
FORMULAS = [
    (op, formula)
    for module in (clips, gelu, hsigmoid, hswish, mish, sigmoid, swish)
    for op, formulas in module.SPELLINGS.items()
    for formula in formulas
    if "clip" not in formula and "hsigmoid" not in formula
]


@pytest.mark.parametrize(("op", "formula"), FORMULAS)
def test_a_formula_in_tensorflow_is_one_operator(op: str, formula: str) -> None:
    graph, b = new_graph(), TfBuilder((1, 8, 8, 8))
    add_input(graph, "input", SHAPE)
    for name in add_formula(graph, "f", "input", formula):
        data = graph.nodes[name]
        operands = [producer for producer, _ in data["inputs"]]
        if "const" in data["attrs"]:
            number = b.const(f"{name}/const", data["attrs"]["const"])
            operands.insert(0 if data["attrs"].get("const_first") else 1, number)
        b.add(name, TENSORFLOW[data["op"]], operands)
    assert [kind for _, kind in read_model(b.graph_def, "pb").nodes(data="op")] == ["input", op]


@pytest.mark.parametrize("chosen", EVERY, ids=lambda chosen: f"{chosen[0]} {chosen[1]}")
def test_graph_ir_costs_what_the_plain_network_does(chosen: tuple[str, int], tmp_path: Path) -> None:
    pytest.importorskip("nni.retiarii")
    if "self." in BLOCKS[chosen[0]][chosen[1]]:
        pytest.skip("the graph IR does not tell the shapes of weights, so that these may be of any")
    ir = nni_ir_of(network([chosen], tmp_path, nni=True), SHAPE)
    assert cost(read_model(ir, "nni-ir", SHAPE)) == of_torch(plain([chosen]), tmp_path)


@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(EVERY), min_size=3, max_size=6))
def test_a_random_network_costs_the_same_in_every_format(tmp_path: Path, chosen: Chosen) -> None:
    wanted = of_torch(plain(chosen), tmp_path)
    module = network(chosen, tmp_path)
    graph = read_model(module, input_shape=SHAPE)
    assert cost(graph) == wanted
    assert cost(read_model(to_nnmeter_ir(graph), "nnmeter-ir")) == wanted
    if ("shuffle", 0) not in chosen:  # which the exporter does not have
        assert cost(read_model(onnx_of(module, opset_version=16, dynamo=False))) == wanted
