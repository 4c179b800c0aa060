"""Mish, x * tanh(softplus(x)), and the softplus in it.

The newer ONNX exporter writes torch's softplus as ``where(x > 20, x, softplus(x))``: above 20 both are the
same.
"""

from __future__ import annotations

import networkx as nx

from ..editing import read_once, replace
from ._expressions import formulas
from ._rule import rule

SPELLINGS = {
    "softplus": ("log(1 + exp(x))", "log1p(exp(x))"),
    "mish": ("x * tanh(softplus(x))",),
}


@rule("where", needs={"softplus"}, makes={"softplus"})
def bounded_softplus(graph: nx.DiGraph, name: str) -> bool:
    """Replace ``where(x > number, x, softplus(x))`` by ``softplus(x)``."""
    operands = graph.nodes[name]["inputs"]
    if len(operands) != 3:
        return False
    (condition, _), source, (inner, _) = operands
    compared, softened = graph.nodes[condition], graph.nodes[inner]
    is_bound = compared["op"] == "greater" and "const" in compared["attrs"] and compared["inputs"] == [source]
    is_softened = softened["op"] == "softplus" and softened["inputs"] == [source]
    if not is_bound or not is_softened or not read_once(graph, condition) or not read_once(graph, inner):
        return False
    replace(graph, name, "softplus", [source], gone={condition, inner})
    return True


RULES = (bounded_softplus, *formulas(SPELLINGS))
