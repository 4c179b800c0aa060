"""Rewrites: every listed spelling becomes one operator, and what only looks like one does not."""

from __future__ import annotations

import ast
from typing import Any

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from costs_of_graphs import cost
from formulas import CALLS, add_formula
from graphs import SHAPE, graph_of
from nnmeter_nas import read_model
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from nnmeter_nas.graph.rewrites import (
    arithmetic,
    batchnorm,
    channelshuffle,
    clips,
    concats,
    expands,
    gelu,
    globalpool,
    hsigmoid,
    hswish,
    leakyrelu,
    mish,
    neutral,
    norms,
    padding,
    pixelshuffle,
    sigmoid,
    splits,
    sums,
    swish,
    views,
)

FORMULAS = [
    (op, formula)
    for module in (clips, gelu, hsigmoid, hswish, mish, sigmoid, swish)
    for op, formulas in module.SPELLINGS.items()
    for formula in formulas
]


def of_formula(formula: str, reader: int | None = None) -> nx.DiGraph:
    """A finished graph of a formula behind a tanh; one of its operators may have another reader."""
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    names = add_formula(graph, "f", add_op(graph, "entry", "tanh", ["x"]), formula)
    outputs = [names[-1]]
    if reader is not None:
        outputs.append(add_op(graph, "reader", "tanh", [names[reader]]))
    set_outputs(graph, outputs)
    return finish(graph)


def ops(graph: nx.DiGraph) -> list[str]:
    """Operators of a graph but for the input, sorted."""
    return sorted(op for _, op in graph.nodes(data="op") if op != "input")


@pytest.mark.parametrize(("op", "formula"), FORMULAS)
def test_formula_becomes_one_operator_with_the_name_of_its_last(op: str, formula: str) -> None:
    graph = of_formula(formula)
    assert ops(graph) == sorted(["tanh", op])
    [name] = graph.graph["outputs"]
    assert graph.nodes[name]["op"] == op
    assert graph.nodes[name]["inputs"] == [("entry", 0)]
    assert graph.nodes[name]["in_shapes"] == graph.nodes[name]["out_shapes"] == [SHAPE]


class Turned(ast.NodeTransformer):
    """Turns round the operands of sums and products, and divides as a product with the inverse."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """The same value, written otherwise."""
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Add | ast.Mult):
            return ast.BinOp(right, node.op, left)
        if isinstance(node.op, ast.Div) and isinstance(right, ast.Constant):
            return ast.BinOp(ast.Constant(1 / right.value), ast.Mult(), left)
        return ast.BinOp(left, node.op, right)


@pytest.mark.parametrize(("op", "formula"), FORMULAS)
def test_operands_may_come_in_any_order_and_divisors_as_factors(op: str, formula: str) -> None:
    turned = ast.unparse(Turned().visit(ast.parse(formula, mode="eval")))
    assert ops(of_formula(turned)) == sorted(["tanh", op])


NUMBERS = [
    (op, formula, index)
    for op, formula in FORMULAS
    if op not in ("clip", "relu", "relu6") and "1.702" not in formula
    for index, _ in enumerate(n for n in ast.walk(ast.parse(formula)) if isinstance(n, ast.Constant))
]


@pytest.mark.parametrize(("op", "formula", "index"), NUMBERS)
def test_formula_with_another_number_is_another(op: str, formula: str, index: int) -> None:
    tree = ast.parse(formula, mode="eval")
    number = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)][index]
    number.value = number.value + 1 if isinstance(number.value, int) else number.value * 1.1
    assert op not in ops(of_formula(ast.unparse(tree)))


@pytest.mark.parametrize(("op", "formula"), [f for f in FORMULAS if f[0] not in ("relu", "relu6", "clip")])
def test_formula_that_is_read_in_the_middle_stays(op: str, formula: str) -> None:
    count = len(of_parts(formula))
    for middle in range(count - 1):
        graph = of_formula(formula, middle)
        assert all(not (data["op"] == op and data["inputs"] == [("entry", 0)])
                   for name, data in graph.nodes(data=True) if name == f"f.{count - 1}")  # fmt: skip


def of_parts(formula: str) -> list[str]:
    """Names of the operators that a formula is made of."""
    graph = new_graph()
    return add_formula(graph, "f", add_input(graph, "x", SHAPE), formula)


#: What each structural spelling is, by the module that lists it.
STRUCTURES: dict[Any, dict[str, str]] = {
    neutral: dict.fromkeys(neutral.SPELLINGS, "x"),
    views: {
        views.SPELLINGS[0]: "x.view(1, 2, 4, 64)",
        views.SPELLINGS[1]: "x",
        views.SPELLINGS[2]: "x.mean((2, 3))",
        views.SPELLINGS[3]: "x",
    },
    expands: {
        expands.SPELLINGS[0]: "x * gate",
        expands.SPELLINGS[1]: "x * gate",
        expands.SPELLINGS[2]: "x + gate",
    },
    arithmetic: {
        arithmetic.SPELLINGS[0]: "x * 0.25",
        arithmetic.SPELLINGS[1]: "relu(x) * scale",
        arithmetic.SPELLINGS[2]: "x * gate",
        arithmetic.SPELLINGS[3]: "x + gate",
        arithmetic.SPELLINGS[4]: "x * x",
        **dict.fromkeys(arithmetic.SPELLINGS[5:], "x * (gate * 0.25)"),
    },
    concats: {concats.SPELLINGS[0]: "cat([x, y, z])", concats.SPELLINGS[1]: "x"},
    splits: {
        splits.SPELLINGS[0]: "x.chunk(2, 1)",
        splits.SPELLINGS[1]: "F.channel_shuffle(x, 4).chunk(2, 1)",
        splits.SPELLINGS[2]: "F.channel_shuffle(x, 2).chunk(4, 1)",
    },
    leakyrelu: dict.fromkeys(leakyrelu.SPELLINGS, "F.leaky_relu(x, 0.1)"),
    sums: {
        sums.SPELLINGS[0]: "x + y",
        sums.SPELLINGS[1]: "x + y + z",
        sums.SPELLINGS[2]: "(x + y) * 0.5",
        **dict.fromkeys(sums.SPELLINGS[3:5], "x.sum((2, 3))"),
        **dict.fromkeys(sums.SPELLINGS[5:], "x.mean(1)"),
    },
    globalpool: {
        **dict.fromkeys(globalpool.SPELLINGS[:12], "x.mean((2, 3))"),
        **dict.fromkeys(globalpool.SPELLINGS[12:], "F.adaptive_max_pool2d(x, 1)"),
    },
    norms: {
        **dict.fromkeys(norms.SPELLINGS[:4], "F.group_norm(x, 2)"),
        norms.SPELLINGS[4]: "F.layer_norm(x, [8])",
    },
    channelshuffle: {
        channelshuffle.SPELLINGS[0]: "F.channel_shuffle(x, 2)",
        channelshuffle.SPELLINGS[1]: "F.channel_shuffle(x, 2)",
        channelshuffle.SPELLINGS[2]: "F.channel_shuffle(x, 4)",
        channelshuffle.SPELLINGS[3]: "F.channel_shuffle(cat([x, y]), 2)",
    },
    padding: {
        padding.SPELLINGS[0]: "F.conv2d(x, w, padding=1)",
        padding.SPELLINGS[2]: "F.avg_pool2d(x, 3, 2, 1)",
        padding.SPELLINGS[3]: "F.max_pool2d(relu(x), 3, 2, 1)",
        padding.SPELLINGS[4]: "F.max_pool2d(x, 3, 2, 1)",
    },
    batchnorm: {
        batchnorm.SPELLINGS[0]: "conv(x)",
        **dict.fromkeys(batchnorm.SPELLINGS[1:4], "bn(conv(x))"),
        **dict.fromkeys(batchnorm.SPELLINGS[4:6], "bn(relu(x))"),
        batchnorm.SPELLINGS[6]: "fc(x)",
    },
}
PAIRS = [pair for pairs in STRUCTURES.values() for pair in pairs.items()]


class Written(nn.Module):
    """Computes an expression of ``x``, and of tensors that are computed from it."""

    def __init__(self, expression: str) -> None:
        super().__init__()
        self.expression = expression
        self.w = nn.Parameter(torch.zeros(8, 8, 3, 3))
        self.conv, self.bn = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 8, bias=False)
        parts = (nn.Parameter(torch.ones(8, 1, 1)) for _ in range(4))
        self.scale, self.bias, self.mean, self.deviation = parts

    def forward(self, image: torch.Tensor) -> Any:
        """Of the tanh of the image."""
        x = torch.tanh(image)
        names = {
            **CALLS, **vars(self), **self._modules, **self._parameters, "F": F, "torch": torch, "x": x,
            "y": torch.exp(x), "z": torch.sqrt(x), "gate": torch.sigmoid(x).amax((2, 3), keepdim=True),
            "cat": lambda tensors, dim=1: torch.cat(tensors, dim), "broadcast_to": torch.broadcast_to,
            "pad": F.pad, "avg_pool2d": F.avg_pool2d, "max_pool2d": F.max_pool2d,
            "conv2d": lambda x, padding=0: F.conv2d(x, self.w, padding=padding),
        }  # fmt: skip
        if "fc" in self.expression:
            names |= {"x": x.flatten(2).mT, "bias": torch.nn.Parameter(torch.zeros(8))}
        return eval(self.expression, names)


@pytest.mark.parametrize(("spelling", "wanted"), PAIRS)
def test_spelling_costs_what_it_is(spelling: str, wanted: str) -> None:
    found, expected = (read_model(Written(text).eval(), input_shape=SHAPE) for text in (spelling, wanted))
    assert cost(found) == cost(expected)


@pytest.mark.parametrize("gate", ["torch.amax(x, (2, 3), True)", "x"])
def test_a_divisor_that_is_the_inverse_of_a_sigmoid_multiplies(gate: str) -> None:
    found = read_model(Written(f"y / (1 + exp(-{gate}))").eval(), input_shape=SHAPE)
    assert cost(found) == cost(read_model(Written(f"y * sigmoid({gate})").eval(), input_shape=SHAPE))


def test_a_sum_of_many_is_one_of_pairs() -> None:
    three = [("y", "exp", ["x"]), ("z", "tanh", ["x"]), ("sum", "add", ["x", "y", "z"])]
    pairs = [*three[:2], ("pair", "add", ["x", "y"]), ("sum", "add", ["pair", "z"])]
    assert cost(graph_of(*three, outputs=["sum"])) == cost(graph_of(*pairs, outputs=["sum"]))


@pytest.mark.parametrize("spelling", pixelshuffle.SPELLINGS)
def test_pixel_shuffles_are_one_operator(spelling: str) -> None:
    graph = read_model(Written(spelling).eval(), input_shape=SHAPE)
    assert ops(graph) == sorted(["pixelunshuffle" if "32" in spelling else "pixelshuffle", "tanh"])


NEAR = {
    "max_pool2d(pad(x, (1, 1, 1, 1)), 3, 2)": "pad",
    "max_pool2d(pad(relu(x), (1, 1, 1, 1), value=1.0), 3, 2)": "pad",
    "conv2d(pad(x, (1, 1, 1, 1), value=1.0))": "pad",
    "conv2d(pad(x, (1, 1, 1, 1), mode='reflect'))": "pad",
    "conv2d(pad(x, (-1, 1, 0, 0)))": "pad",
    "1 / x": "div",
    "0 - x": "sub",
    "1 ** x * 1": "pow",
    "conv(x) + 3": "add",
    "relu(x) * scale": "mul",
    "relu(x) * 2 + 1": "add",
    "x.mean(2).mean(1)": "mean",
    "x.view(1, 2, 4, 8, 8).transpose(2, 3).reshape(1, 8, 8, 8)": "transpose",
    "x[:, ::2]": "slice",
    "cat([x[:, :3], x[:, 4:]])": "slice",
    "cat(x.chunk(2, 1)[::-1])": "concat",
    "torch.stack([x, y], 3).flatten(2, 3)": "concat",
    "x.flip(1)": "flip",
    "1 / (2 + exp(-x))": "exp",
    "y / (1 + exp(x))": "exp",
    "x.sum((2, 3)) / 63": "sum",
    "x.sum((1, 2, 3)).sum()": "sum",
    "torch.stack([x, y], 1).sum(2)": "concat",
    "cat([x, y]).sum(1)": "concat",
    "x / exp(y)": "div",
    "torch.maximum(x, x * 2)": "maximum",
    "torch.maximum(x, y * 0.1)": "maximum",
    "torch.minimum(x, x * 0.1)": "minimum",
    "2 ** x": "pow",
    "x.amax((1, 2))": "max",
    "x.amax(3)": "max",
    "F.instance_norm(x.view(1, 2, 256)).view(1, 4, 128)": "reshape",
    "F.group_norm(x, 2) * 3": "mul",
    "F.group_norm(x, 2) * gate": "mul",
    "y + F.group_norm(x, 2)": "add",
}


@pytest.mark.parametrize(("expression", "stays"), NEAR.items())
def test_what_only_looks_alike_stays(expression: str, stays: str) -> None:
    assert stays in ops(read_model(Written(expression).eval(), input_shape=SHAPE))


def test_an_operator_between_that_the_model_hands_out_stays() -> None:
    graph = graph_of(("gate", "sigmoid", ["x"]), ("y", "mul", ["x", "gate"]), outputs=["gate", "y"])
    assert ops(graph) == ["mul", "sigmoid"]


def test_an_output_that_does_nothing_hands_out_what_it_reads() -> None:
    graph = graph_of(("act", "relu", ["x"]), ("sum", "add", ["act"], {"const": 0.0}), outputs=["sum"])
    assert graph.graph["outputs"] == ["act"]
