"""One spelling of arithmetic: no quotients by constants, no squares, larger operands first.

A network computes the same whether it divides by 6 or multiplies by 1/6, and whether a number scales a map or
the gate that the map is multiplied with.
"""

from __future__ import annotations

import math

import networkx as nx

from ..editing import replace, set_operands, sole_source
from ._rule import rule

SPELLINGS = ("x / 4", "relu(x) / scale", "gate * x", "gate + x", "x ** 2", "x * gate / 4", "gate * x * 0.25")


@rule("div", makes={"mul"})
def multiply_by_inverse(graph: nx.DiGraph, name: str) -> bool:
    """Multiply by the inverse of a constant instead of dividing by it."""
    data = graph.nodes[name]
    attrs = data["attrs"]
    if len(data["inputs"]) != 1 or attrs.get("const_first") or not ({"const", "const_shape"} & attrs.keys()):
        return False
    if "const" in attrs:
        if not attrs["const"]:
            return False
        attrs = {**attrs, "const": 1 / attrs["const"]}
    replace(graph, name, "mul", data["inputs"], attrs)
    return True


@rule("pow", makes={"mul"})
def multiply_by_itself(graph: nx.DiGraph, name: str) -> bool:
    """Multiply a tensor by itself instead of squaring it."""
    data = graph.nodes[name]
    if data["attrs"] != {"const": 2.0} or len(data["inputs"]) != 1:
        return False
    replace(graph, name, "mul", data["inputs"] * 2)
    return True


@rule("add", "mul", "maximum", "minimum")
def larger_operand_first(graph: nx.DiGraph, name: str) -> bool:
    """Swap two operands of different sizes, if the second one is the larger."""
    data = graph.nodes[name]
    sizes = [math.prod(shape) for shape in data["in_shapes"]]
    if len(sizes) != 2 or sizes[0] >= sizes[1] or "alpha" in data["attrs"]:
        return False
    set_operands(graph, name, data["inputs"][::-1])
    return True


@rule("mul", needs={"mul"})
def scale_smaller_operand(graph: nx.DiGraph, name: str) -> bool:
    """Multiply the smaller operand of a product by a number, instead of the product."""
    product = sole_source(graph, name, {"mul"})
    if product is None or graph.nodes[name]["attrs"].keys() != {"const"}:
        return False
    data, out = graph.nodes[product], graph.nodes[name]["out_shapes"][0]
    if len(data["inputs"]) != 2 or data["attrs"]:
        return False
    (larger, smaller), (_, shape) = data["inputs"], data["in_shapes"]
    if math.prod(shape) >= math.prod(out):
        return False
    replace(graph, product, "mul", [smaller], graph.nodes[name]["attrs"])
    graph.nodes[product].update(out_shapes=[shape], declared=None)
    replace(graph, name, "mul", [larger, (product, 0)])
    return True
