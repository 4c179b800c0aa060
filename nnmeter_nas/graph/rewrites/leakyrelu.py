"""The leaky ReLU as the larger one of x and a part of x."""

from __future__ import annotations

import networkx as nx

from ..editing import read_once, replace
from ._rule import rule

SPELLINGS = ("torch.maximum(x, 0.1 * x)", "torch.maximum(x / 10, x)")


@rule("maximum", needs={"mul"}, makes={"leakyrelu"})
def join_slopes(graph: nx.DiGraph, name: str) -> bool:
    """Replace the maximum and the product, whose number is the slope below zero."""
    operands = graph.nodes[name]["inputs"]
    for source, (part, _) in (operands, operands[::-1]) if len(operands) == 2 else ():
        data = graph.nodes[part]
        is_product = data["op"] == "mul" and data["inputs"] == [source] and data["attrs"].keys() == {"const"}
        if is_product and 0 < data["attrs"]["const"] < 1 and read_once(graph, part):
            replace(graph, name, "leakyrelu", [source], gone=[part])
            return True
    return False
