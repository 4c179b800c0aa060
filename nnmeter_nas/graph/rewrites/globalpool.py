"""Means and maxima over the whole map, also in several steps: one axis after the other, or a flattened map.

Shape inference already makes a global pool of a mean over the whole map and of a pool with one window.
"""

from __future__ import annotations

import math

import networkx as nx

from ..editing import insert, read_once, replace, sole_source
from ..shapes import infer_operator
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
    "x.amax((2, 3))",
    "x.amax(3).amax(2)",
    "x.amax(2, keepdim=True).amax(3, keepdim=True)",
    "x.max(3)[0].max(2)[0]",
    "x.flatten(2).amax(2)",
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


@rule("max", needs={"max"}, makes={"reshape"})
def join_maxima(graph: nx.DiGraph, name: str) -> bool:
    """Take the maximum over all axes at once."""
    before = sole_source(graph, name, {"max"})
    if before is None:
        return False
    reduce_at_once(graph, name, before, "max", joined_axes(graph, name, before))
    return True


@rule("max", makes={"maxpool", "squeeze"})
def pool_largest(graph: nx.DiGraph, name: str) -> bool:
    """Make a pool of a maximum over the whole map, and a view of that if the map's axes are dropped."""
    data = graph.nodes[name]
    shape, axes = data["in_shapes"][0], data["attrs"]["axes"]
    if len(shape) <= _LEAD or axes != tuple(range(_LEAD, len(shape))):
        return False
    source, pool, attrs = data["inputs"][0], name, {"output_size": (1,) * len(axes)}
    if data["attrs"].get("keepdims"):
        replace(graph, name, "adaptivemaxpool", [source], attrs)
    else:
        pooled = (*shape[:_LEAD], *attrs["output_size"])
        pool = insert(graph, f"{name}.pool", "adaptivemaxpool", source, attrs, [pooled])
        replace(graph, name, "squeeze", [(pool, 0)], {"axes": axes})
    infer_operator(graph, pool)
    return True


@rule("mean", "globalavgpool", "max", needs=VIEWS, makes={"globalavgpool", "reshape"})
def pool_flattened_map(graph: nx.DiGraph, name: str) -> bool:
    """Make a global pool of a reduction of the last axis, where a view made one axis of the map."""
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
    reduce_at_once(graph, name, before, "max" if data["op"] == "max" else "mean", range(_LEAD, len(seen)))
    return True
