"""The logistic function, written with an exponential or a hyperbolic tangent, or as a divisor."""

from __future__ import annotations

import networkx as nx

from ..editing import replace
from ._expressions import formulas, inner_matches, parse
from ._rule import rule

SPELLINGS = {
    "sigmoid": (
        "1 / (1 + exp(-x))",
        "0.5 * (tanh(0.5 * x) + 1)",
        "0.5 * tanh(x / 2) + 0.5",
    ),
}
_INVERSE = parse("1 + exp(-x)")


@rule("div", needs={"exp"}, makes={"sigmoid", "mul"})
def multiply_by_sigmoid(graph: nx.DiGraph, name: str) -> bool:
    """Replace ``y / (1 + exp(-x))`` by ``y * sigmoid(x)``."""
    operands = list(graph.nodes[name]["inputs"])
    for match in inner_matches(graph, _INVERSE, operands[1]) if len(operands) == 2 else ():
        inverse = operands[1][0]
        replace(graph, inverse, "sigmoid", [match.names["x"]], gone=match.members - {inverse})
        replace(graph, name, "mul", operands)
        return True
    return False


RULES = (multiply_by_sigmoid, *formulas(SPELLINGS))
