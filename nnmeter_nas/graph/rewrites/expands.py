"""Drop an expand before an operator that broadcasts anyway."""

from __future__ import annotations

import networkx as nx
import numpy as np

from ..editing import drop_unread, set_operands
from ..shapes import operand_shape
from ._rule import ELEMENTWISE, rule

SPELLINGS = ("x * gate.expand_as(x)", "x * gate.expand(1, 8, 8, 8)", "x + broadcast_to(gate, (1, 8, 8, 8))")
_EXPANDS = frozenset({"expand", "expandas", "expand_as", "broadcastto"})


@rule(*ELEMENTWISE, "pow", "maximum", "minimum", needs=_EXPANDS)
def leave_out_expands(graph: nx.DiGraph, name: str) -> bool:
    """Read the operands as they were before the expand, if the result has the same shape."""
    data = graph.nodes[name]
    operands = data["inputs"]
    nodes = graph.nodes
    sources = [nodes[o[0]]["inputs"][0] if nodes[o[0]]["op"] in _EXPANDS else o for o in operands]
    if sources == operands:
        return False
    shapes = [operand_shape(graph, name, source) for source in sources]
    if "const_shape" in data["attrs"]:
        shapes.append(data["attrs"]["const_shape"])
    if np.broadcast_shapes(*shapes) != data["out_shapes"][0]:
        return False
    set_operands(graph, name, sources)
    drop_unread(graph, [producer for producer, _ in operands])
    return True
