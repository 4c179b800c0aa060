"""Sums in one spelling: of two tensors at a time, of all axes at once, and as means if they are scaled."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import networkx as nx
import numpy as np

from ..editing import bypass, drop_unread, insert, replace, set_operands, sole_source
from ..shapes import infer_operator, operand_shape
from ._rule import VIEWS, rule
from .concats import concat_axis

SPELLINGS = (
    "torch.stack([x, y]).sum(0)",
    "torch.stack([x, y, z], -1).sum(-1)",
    "torch.stack([x, y], 2).mean(2)",
    "x.sum(3).sum(2)",
    "x.sum(2, keepdim=True).sum(3)",
    "x.sum(1) / 8",
    "x.sum(1).view(1, 1, 8, 8) * 0.125",
)
_TOLERANCE = 1e-3


@rule("add")
def add_in_pairs(graph: nx.DiGraph, name: str) -> bool:
    """Add more than two tensors one after the other."""
    operands = graph.nodes[name]["inputs"]
    if len(operands) <= 2:
        return False
    first, *others, last = operands
    for number, operand in enumerate(others):
        shapes = [operand_shape(graph, name, added) for added in (first, operand)]
        total = insert(graph, f"{name}.{number}", "add", first, {}, [tuple(np.broadcast_shapes(*shapes))])
        set_operands(graph, total, [first, operand])
        first = (total, 0)
    set_operands(graph, name, [first, last])
    return True


@rule("sum", "mean", needs={"concat"}, makes={"add", "mul", "reshape"})
def add_stacked(graph: nx.DiGraph, name: str) -> bool:
    """Add tensors instead of stacking them and reducing the new axis."""
    data, stack = graph.nodes[name], sole_source(graph, name, {"concat"})
    if stack is None or data["attrs"]["axes"] != (concat_axis(graph.nodes[stack]),):
        return False
    operands = graph.nodes[stack]["inputs"]
    pieces = [graph.nodes[producer] for producer, _ in operands]
    shape, seen = pieces[0]["in_shapes"], pieces[0]["out_shapes"]
    alike = all(p["op"] in VIEWS and p["in_shapes"] == shape and p["out_shapes"] == seen for p in pieces)
    if not alike or seen[0][concat_axis(graph.nodes[stack])] != 1:
        return False
    replace(graph, stack, "add", [piece["inputs"][0] for piece in pieces])
    graph.nodes[stack].update(out_shapes=list(shape), declared=None)
    drop_unread(graph, [view for view, _ in operands])
    total = stack
    if data["op"] == "mean":
        total = insert(graph, f"{name}.mean", "mul", (stack, 0), {"const": 1 / len(pieces)}, list(shape))
    replace(graph, name, "reshape", [(total, 0)], {"shape": data["out_shapes"][0]})
    return True


@rule("sum", needs={"sum"}, makes={"reshape"})
def join_sums(graph: nx.DiGraph, name: str) -> bool:
    """Sum all axes at once."""
    before = sole_source(graph, name, {"sum"})
    if before is None:
        return False
    reduce_at_once(graph, name, before, "sum", joined_axes(graph, name, before))
    return True


@rule("mul", needs={"sum"}, makes={"mean", "globalavgpool"})
def mean_instead_of_sum(graph: nx.DiGraph, name: str) -> bool:
    """Make a mean of a sum that is divided by the number of its summands."""
    data = graph.nodes[name]
    before = step = sole_source(graph, name, VIEWS | {"sum"})
    while step and graph.nodes[step]["op"] in VIEWS:
        step = sole_source(graph, step, VIEWS | {"sum"})
    if before is None or step is None or data["attrs"].keys() != {"const"}:
        return False
    (shape,), (out,) = graph.nodes[step]["in_shapes"], graph.nodes[step]["out_shapes"]
    if not math.isclose(data["attrs"]["const"] * math.prod(shape), math.prod(out), rel_tol=_TOLERANCE):
        return False
    graph.nodes[step]["op"] = "mean"
    infer_operator(graph, step)
    bypass(graph, name, (before, 0))
    return True


def joined_axes(graph: nx.DiGraph, name: str, before: str) -> set[int]:
    """Axes of the operand of the reduction ``before`` that it and the reduction ``name`` of it reduce."""
    first, second = graph.nodes[before], graph.nodes[name]
    rank = len(first["in_shapes"][0])
    gone = {axis % rank for axis in first["attrs"]["axes"]}
    # For each axis that the second reduction reads, the matching axis of the first one's operand.
    left = [axis for axis in range(rank) if first["attrs"].get("keepdims") or axis not in gone]
    return gone | {left[axis] for axis in second["attrs"].get("axes", range(2, len(left)))}


def reduce_at_once(graph: nx.DiGraph, name: str, before: str, op: str, axes: Collection[int]) -> None:
    """Make ``name`` the reduction ``op`` over ``axes`` of the operand of ``before``, or a view of it."""
    source, shape = graph.nodes[before]["inputs"][0], graph.nodes[before]["in_shapes"][0]
    out = graph.nodes[name]["out_shapes"][0]
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    left = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    attrs: dict[str, Any] = {"axes": tuple(sorted(axes)), "keepdims": out != left}
    if out in (kept, left):
        replace(graph, name, op, [source], attrs, [before])
        infer_operator(graph, name)
        return
    replace(graph, before, op, [source], attrs)
    graph.nodes[before]["declared"] = None
    infer_operator(graph, before)
    replace(graph, name, "reshape", [(before, 0)], {"shape": out})
