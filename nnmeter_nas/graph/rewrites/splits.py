"""Slices that together cover a tensor: a split if adjacent, a shuffle and a split if they interleave.

Newer ONNX opsets export ``chunk`` as slices. ``x[:, ::2]`` and ``x[:, 1::2]`` are a shuffle of ShuffleNet:
even channels first, then odd ones.
"""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..editing import Operand, bypass, insert
from ._rule import rule

SPELLINGS = ("x[:, :4], x[:, 4:]", "x[:, ::2], x[:, 1::2]", "x[:, 0::4], x[:, 1::4], x[:, 2::4], x[:, 3::4]")
#: The channel axis, which a shuffle works on.
_CHANNELS = 1


@rule("slice", makes={"split", "channelshuffle"})
def join_slices(graph: nx.DiGraph, name: str) -> bool:
    """Make one split of all slices along one axis of the tensor that ``name`` slices."""
    data = graph.nodes[name]
    source, axis = data["inputs"][0], _axis(data)
    size = data["in_shapes"][0][axis]
    pieces = []
    for other in graph.successors(source[0]):
        sliced = graph.nodes[other]
        if sliced["op"] == "slice" and sliced["inputs"] == [source] and _axis(sliced) == axis:
            attrs = sliced["attrs"]
            cut = slice(attrs.get("start"), attrs.get("stop"), attrs.get("step"))
            pieces.append((range(*cut.indices(size)), other))
    pieces.sort(key=lambda piece: piece[0].start)
    cuts, names = [cut for cut, _ in pieces], [other for _, other in pieces]
    if len(cuts) < 2:
        return False
    if all(cut.step == 1 for cut in cuts) and [i for cut in cuts for i in cut] == list(range(size)):
        _split(graph, source, axis, names, [len(cut) for cut in cuts])
        return True
    step = len(cuts)
    if axis == _CHANNELS and size % step == 0 and cuts == [range(i, size, step) for i in range(step)]:
        shape, attrs = data["in_shapes"][0], {"groups": size // step}
        shuffled = insert(graph, f"{names[0]}.shuffle", "channelshuffle", source, attrs, [shape])
        _split(graph, (shuffled, 0), axis, names, [size // step] * step)
        return True
    return False


def _axis(data: dict[str, Any]) -> int:
    return int(data["attrs"]["axis"] % len(data["in_shapes"][0]))


def _split(graph: nx.DiGraph, source: Operand, axis: int, names: list[str], sections: list[int]) -> None:
    """Make the readers of the slices ``names`` read the pieces of one split."""
    shapes = [graph.nodes[name]["out_shapes"][0] for name in names]
    attrs = {"axis": axis, "sections": sections}
    split = insert(graph, f"{names[0]}.split", "split", source, attrs, shapes)
    for slot, name in enumerate(names):
        bypass(graph, name, (split, slot))
