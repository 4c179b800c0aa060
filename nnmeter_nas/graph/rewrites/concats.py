"""Join concats of concats along one axis, and drop a split whose pieces are all joined again in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx

from ..editing import bypass, drop_unread, set_operands
from ._rule import rule

SPELLINGS = ("cat([cat([x, y]), z])", "cat(x.chunk(2, 1), 1)")


@rule("concat", needs={"concat"})
def join_concats(graph: nx.DiGraph, name: str) -> bool:
    """Read the operands of inner concats directly, as exporters and converters do."""
    data = graph.nodes[name]
    axis, pieces, gone = concat_axis(data), [], set()
    for operand in data["inputs"]:
        inner = graph.nodes[operand[0]]
        alone = graph.out_degree(operand[0]) == 1 and operand[0] not in graph.graph["outputs"]
        if inner["op"] == "concat" and alone and concat_axis(inner) == axis:
            pieces += inner["inputs"]
            gone.add(operand[0])
        else:
            pieces.append(operand)
    if not gone:
        return False
    set_operands(graph, name, pieces)
    graph.remove_nodes_from(gone)
    return True


@rule("concat", needs={"split"})
def join_split(graph: nx.DiGraph, name: str) -> bool:
    """Replace a concat of all pieces of a split by the tensor that was split."""
    data = graph.nodes[name]
    producer = data["inputs"][0][0]
    split = graph.nodes[producer]
    whole = [(producer, slot) for slot in range(len(split["out_shapes"]))]
    if split["op"] != "split" or data["inputs"] != whole:
        return False
    if split["attrs"].get("axis", 1) % len(split["in_shapes"][0]) != concat_axis(data):
        return False
    bypass(graph, name, split["inputs"][0])
    drop_unread(graph, [producer])
    return True


def concat_axis(data: Mapping[str, Any]) -> int:
    """The axis of a concat, counted from the front."""
    return int(data["attrs"].get("axis", 1) % len(data["out_shapes"][0]))
