"""Formulas of activations, as operators of a model graph, and as what torch computes."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
import torch.nn.functional as F

from graphs import SHAPE
from nnmeter_nas.graph.model_graph import add_op

_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow",
}  # fmt: skip
_LIMITS = {"max": "maximum", "min": "minimum"}
#: What formulas call, in torch.
CALLS: dict[str, Callable[..., Any]] = {
    "max": lambda x, low: torch.clamp(x, min=low), "min": lambda x, high: torch.clamp(x, max=high),
    "clip": torch.clamp, "relu": torch.relu, "relu6": F.relu6, "exp": torch.exp, "log": torch.log,
    "log1p": torch.log1p, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "hsigmoid": F.hardsigmoid,
    "softplus": F.softplus, "erf": torch.erf, "erfc": torch.erfc, "inf": math.inf,
}  # fmt: skip


def add_formula(graph: nx.DiGraph, prefix: str, source: str, formula: str) -> list[str]:
    """Add what ``formula`` computes of ``x``, which is ``source``; the names of its operators, in order."""
    added: list[str] = []

    def emit(op: str, operands: list[str], attrs: dict[str, Any]) -> str:
        added.append(add_op(graph, f"{prefix}.{len(added)}", op, operands, attrs, [SHAPE]))
        return added[-1]

    def visit(node: ast.expr) -> str | float:
        match node:
            case ast.Name(id="x"):
                return source
            case ast.Name(id="inf"):
                return math.inf
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.UnaryOp(operand=operand):
                inner = visit(operand)
                return -inner if isinstance(inner, float) else emit("neg", [inner], {})
            case ast.BinOp(left=left, op=op, right=right):
                operands = [visit(left), visit(right)]
                numbers = [value for value in operands if isinstance(value, float)]
                attrs: dict[str, Any] = {"const": numbers[0]} if numbers else {}
                if isinstance(operands[0], float) and not isinstance(op, ast.Add | ast.Mult):
                    attrs["const_first"] = True
                return emit(_OPERATORS[type(op)], [o for o in operands if isinstance(o, str)], attrs)
            case ast.Call(func=ast.Name(id=called), args=[argument, *others]):
                inner = visit(argument)
                assert isinstance(inner, str)
                found = [visit(other) for other in others]
                if called in _LIMITS:
                    return emit(_LIMITS[called], [inner], {"const": found[0]})
                limits = zip(("min", "max"), found, strict=False)
                return emit(called, [inner], {k: v for k, v in limits if v not in (math.inf, -math.inf)})
        raise AssertionError(ast.unparse(node))

    visit(ast.parse(formula, mode="eval").body)
    return added
