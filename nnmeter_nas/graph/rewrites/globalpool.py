"""Means over the whole map in several steps: one axis after the other, or over a flattened map.

Shape inference already makes a global pool of a mean over the whole map and of a pool with one window.
"""

from __future__ import annotations

import math

import networkx as nx

from ..editing import read_once
from ._rule import VIEWS, rule
from .sums import joined_axes, reduce_at_once

SPELLINGS = (
    "x.mean(3).mean(2)",
    "x.mean(2).mean(2)",
    "x.mean(3, keepdim=True).mean(2, keepdim=True)",
    "x.mean(2, keepdim=True).mean(3)",
    "x.mean(3).mean(2, keepdim=True)",
    "x.flatten(2).mean(2)",
    "x.view(1, 8, 64).mean(-1, keepdim=True)",
    "x.sum((2, 3)) / 64",
    "x.sum(3).sum(2) * 0.015625",
    "x.sum(3, keepdim=True).sum(2) / (8 * 8)",
    "(x.sum(3) / 8).sum(2) / 8",
    "x.flatten(2).sum(2) / 64",
)
#: Number of axes of a feature map before its spatial axes.
_LEAD = 2


@rule("mean", "globalavgpool", needs={"mean"}, makes={"globalavgpool", "reshape"})
def join_means(graph: nx.DiGraph, name: str) -> bool:
    """Join two means that together cover the whole map."""
    before = graph.nodes[name]["inputs"][0][0]
    first = graph.nodes[before]
    if first["op"] != "mean" or not read_once(graph, before):
        return False
    rank = len(first["in_shapes"][0])
    axes = joined_axes(graph, name, before)
    if rank <= _LEAD or axes != set(range(_LEAD, rank)):
        return False
    reduce_at_once(graph, name, before, "mean", axes)
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
    reduce_at_once(graph, name, before, "mean", range(_LEAD, len(seen)))
    return True
