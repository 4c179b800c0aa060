"""Join views and transposes that follow one another; remove those that cancel."""

from __future__ import annotations

import networkx as nx

from ..editing import drop_unread, read_once, replace
from ._rule import VIEWS, rule

SPELLINGS = (
    "x.view(1, 8, 64).view(1, 2, 4, 64)",
    "x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)",
    "x.mean((2, 3)).permute(1, 0)",
    "torch.stack([x]).sum(0)",
)


@rule(*VIEWS, needs=VIEWS, makes={"reshape"})
def join_views(graph: nx.DiGraph, name: str) -> bool:
    """Make a view of a view read the original tensor."""
    data = graph.nodes[name]
    before = data["inputs"][0][0]
    if graph.nodes[before]["op"] not in VIEWS:
        return False
    replace(graph, name, "reshape", graph.nodes[before]["inputs"], {"shape": data["out_shapes"][0]})
    drop_unread(graph, [before])
    return True


@rule("transpose", needs={"transpose"})
def join_transposes(graph: nx.DiGraph, name: str) -> bool:
    """Join two permutations into one; the first may have other readers only if the two cancel."""
    data = graph.nodes[name]
    before = data["inputs"][0][0]
    first = graph.nodes[before]
    if first["op"] != "transpose":
        return False
    rank = len(data["out_shapes"][0])
    perm = tuple(first["attrs"]["perm"][axis % rank] % rank for axis in data["attrs"]["perm"])
    if perm != tuple(range(rank)) and not read_once(graph, before):
        return False
    replace(graph, name, "transpose", first["inputs"], {"perm": perm})
    drop_unread(graph, [before])
    return True


@rule("transpose", makes={"reshape"})
def view_instead_of_transpose(graph: nx.DiGraph, name: str) -> bool:
    """Make a transpose a view if it keeps the order of all axes longer than 1: it moves no data."""
    data = graph.nodes[name]
    shape, rank = data["in_shapes"][0], len(data["in_shapes"][0])
    longer = [axis % rank for axis in data["attrs"]["perm"] if shape[axis] > 1]
    if longer != sorted(longer):
        return False
    replace(graph, name, "reshape", data["inputs"], {"shape": data["out_shapes"][0]})
    return True


@rule("sum", "mean", "max", "min", "prod", makes={"reshape"})
def view_instead_of_reduction(graph: nx.DiGraph, name: str) -> bool:
    """Make a reduction a view if it reduces axes of one position alone, as a sum over a list of one."""
    data = graph.nodes[name]
    shape = data["in_shapes"][0]
    if any(shape[axis] != 1 for axis in data["attrs"]["axes"]):
        return False
    replace(graph, name, "reshape", data["inputs"], {"shape": data["out_shapes"][0]})
    return True
