"""Make one channel shuffle: split channels into groups, swap groups and members, and join again.

The batch axis has size 1 and may be in any place, for example where it is merged with the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import networkx as nx

from ..editing import insert, read_once, replace, set_operands, sole_source
from ..shapes import Shape
from ._rule import VIEWS, rule
from .concats import concat_axis

SPELLINGS = (
    "x.view(1, 2, 4, 8, 8).transpose(1, 2).reshape(1, 8, 8, 8)",
    "x.view(1, 2, 4, 64).permute(0, 2, 1, 3).reshape(1, 8, 8, 8)",
    "x.reshape(4, 2, 64).permute(1, 0, 2).reshape(2, -1, 4, 8, 8)",
    "torch.stack([x, y], 2).flatten(1, 2)",
)
_CHANNELS, _FIRST_OF_MAP = 1, 2


@rule(*VIEWS, needs={"transpose"}, makes={"channelshuffle"})
def join_shuffle(graph: nx.DiGraph, name: str) -> bool:
    """Join a view, a transpose and a view; the last shape may differ from the input of the first view."""
    swap = sole_source(graph, name, {"transpose"})
    split = sole_source(graph, swap, VIEWS) if swap else None
    if swap is None or split is None:
        return False
    seen, middle = graph.nodes[split]["in_shapes"][0], graph.nodes[split]["out_shapes"][0]
    perm, out = graph.nodes[swap]["attrs"]["perm"], graph.nodes[name]["out_shapes"][0]
    # The shuffled tensor may itself be a view, or be reshaped afterwards.
    found = [(shape, groups) for shape in (seen, out) if (groups := _groups(shape, middle, perm))]
    if not found:
        return False
    shape, groups = found[0]
    source, gone, attrs = graph.nodes[split]["inputs"], [split], {"groups": groups}
    if shape != seen:
        graph.nodes[split].update(op="reshape", attrs={"shape": shape}, out_shapes=[shape], declared=None)
        source, gone = [(split, 0)], []
    if out == shape:
        replace(graph, name, "channelshuffle", source, attrs, [*gone, swap])
        return True
    replace(graph, swap, "channelshuffle", source, attrs, gone)
    graph.nodes[swap].update(out_shapes=[shape], declared=None)
    replace(graph, name, "reshape", [(swap, 0)], {"shape": out})
    return True


def _groups(shape: Shape, split: Shape, perm: Sequence[int]) -> int | None:
    """Number of groups that the channels are split into and shuffled; None if this is no shuffle."""
    longer = [axis for axis, size in enumerate(split) if size > 1]
    if len(shape) <= _FIRST_OF_MAP or shape[0] != 1 or len(longer) < 2:
        return None
    groups, members = longer[:2]
    moved = [axis % len(split) for axis in perm if split[axis] > 1]
    swapped = moved == [members, groups, *longer[2:]]
    return split[groups] if swapped and split[groups] * split[members] == shape[_CHANNELS] else None


@rule("reshape", "flatten", needs={"concat"}, makes={"channelshuffle"})
def join_stack(graph: nx.DiGraph, name: str) -> bool:
    """Turn tensors stacked after their channels and then joined into a concat and a shuffle."""
    stack = sole_source(graph, name, {"concat"})
    if stack is None:
        return False
    data, out = graph.nodes[stack], graph.nodes[name]["out_shapes"][0]
    views = [producer for producer, _ in data["inputs"]]
    count, (batch, channels, *rest) = len(views), data["in_shapes"][0]
    stacks = concat_axis(data) == _FIRST_OF_MAP and rest[:1] == [1]
    if not stacks or out != (batch, count * channels, *rest[1:]):
        return False
    single = (batch, channels, *rest[1:])
    if len(set(views)) < count or not all(
        graph.nodes[v]["op"] in VIEWS and graph.nodes[v]["in_shapes"] == [single] and read_once(graph, v)
        for v in views
    ):
        return False
    set_operands(graph, stack, [graph.nodes[view]["inputs"][0] for view in views])
    data.update(attrs={"axis": _CHANNELS}, out_shapes=[out], declared=None)
    graph.remove_nodes_from(views)
    replace(graph, name, "channelshuffle", [(stack, 0)], {"groups": count})
    return True


@rule("split", needs=VIEWS, makes={"reshape"})
def split_channels(graph: nx.DiGraph, name: str) -> bool:
    """Cut the channels instead of a view of them, if pieces of the view are pieces of the channels."""
    view = sole_source(graph, name, VIEWS)
    if view is None:
        return False
    shape, seen = graph.nodes[view]["in_shapes"][0], graph.nodes[view]["out_shapes"][0]
    data = graph.nodes[name]
    axis = data["attrs"].get("axis", 1) % len(seen)
    pieces = [piece[axis] for piece in data["out_shapes"]]
    leads = math.prod(seen[:axis]) == 1 == math.prod(shape[:_CHANNELS]) and len(shape) > _FIRST_OF_MAP
    if not leads or shape[_CHANNELS] % seen[axis]:
        return False
    sections = [piece * (shape[_CHANNELS] // seen[axis]) for piece in pieces]
    old = data["out_shapes"]
    attrs = {"axis": _CHANNELS, "sections": sections}
    replace(graph, name, "split", graph.nodes[view]["inputs"], attrs, [view])
    data.update(out_shapes=[(*shape[:_CHANNELS], size, *shape[_FIRST_OF_MAP:]) for size in sections])
    data.update(declared=None)
    for consumer in list(graph.successors(name)):
        for slot, (producer, piece) in enumerate(graph.nodes[consumer]["inputs"]):
            if producer == name:
                operand, attrs = (name, piece), {"shape": old[piece]}
                view = insert(graph, f"{consumer}.view", "reshape", operand, attrs, [old[piece]])
                inputs = [*graph.nodes[consumer]["inputs"]]
                inputs[slot] = (view, 0)
                set_operands(graph, consumer, inputs)
    return True
