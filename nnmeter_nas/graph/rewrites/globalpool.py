"""Means over the whole map in several steps: one axis after the other, or over a flattened map.

Shape inference already makes a global pool of a mean over the whole map and of a pool with one window.
"""

from __future__ import annotations

import math

import networkx as nx

from ..editing import read_once, replace
from ._rule import VIEWS, rule

SPELLINGS = (
    "x.mean(3).mean(2)",
    "x.mean(2).mean(2)",
    "x.mean(3, keepdim=True).mean(2, keepdim=True)",
    "x.mean(2, keepdim=True).mean(3)",
    "x.mean(3).mean(2, keepdim=True)",
    "x.flatten(2).mean(2)",
    "x.view(1, 8, 64).mean(-1, keepdim=True)",
)
#: Number of axes of a feature map before its spatial axes.
_LEAD = 2


@rule("mean", "globalavgpool", needs={"mean"}, makes={"globalavgpool", "reshape"})
def join_means(graph: nx.DiGraph, name: str) -> bool:
    """Join two means that together cover the whole map."""
    data = graph.nodes[name]
    before = data["inputs"][0][0]
    first = graph.nodes[before]
    if first["op"] != "mean" or not read_once(graph, before):
        return False
    rank = len(first["in_shapes"][0])
    gone = {axis % rank for axis in first["attrs"]["axes"]}
    # For each axis that the second mean reads, the matching axis of the map.
    left = [axis for axis in range(rank) if first["attrs"].get("keepdims") or axis not in gone]
    second = data["attrs"].get("axes", range(_LEAD, len(left)))
    if rank <= _LEAD or gone | {left[axis] for axis in second} != set(range(_LEAD, rank)):
        return False
    _pool(graph, name, before)
    return True


@rule("mean", "globalavgpool", needs=VIEWS, makes={"globalavgpool", "reshape"})
def pool_flattened_map(graph: nx.DiGraph, name: str) -> bool:
    """Make a global pool of a mean over the last axis, where a view made one axis of the map."""
    data = graph.nodes[name]
    before = data["inputs"][0][0]
    view = graph.nodes[before]
    if view["op"] not in VIEWS or not read_once(graph, before):
        return False
    (seen,), (shape,) = view["in_shapes"], view["out_shapes"]
    axes = {axis % len(shape) for axis in data["attrs"].get("axes", range(_LEAD, len(shape)))}
    flattens = len(seen) > len(shape) == _LEAD + 1 and shape == (*seen[:_LEAD], math.prod(seen[_LEAD:]))
    if not flattens or axes != {_LEAD}:
        return False
    _pool(graph, name, before)
    return True


def _pool(graph: nx.DiGraph, name: str, before: str) -> None:
    """Make ``name`` the global pool of the operand of ``before``, or a view of that pool."""
    source = graph.nodes[before]["inputs"][0]
    shape, out = graph.nodes[before]["in_shapes"][0], graph.nodes[name]["out_shapes"][0]
    kept = (*shape[:_LEAD], *(1 for _ in shape[_LEAD:]))
    if out in (kept, shape[:_LEAD]):
        replace(graph, name, "globalavgpool", [source], {"keepdims": out == kept}, [before])
        return
    replace(graph, before, "globalavgpool", [source], {"keepdims": True})
    graph.nodes[before].update(out_shapes=[kept], declared=None)
    replace(graph, name, "reshape", [(before, 0)], {"shape": out})
