"""Move channels to blocks of the map, or back, where it is written as a view, a transpose and a view."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from ..editing import replace, sole_source
from ..shapes import Shape
from ._rule import VIEWS, rule

SPELLINGS = (
    "x.view(1, 2, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(1, 2, 16, 16)",
    "x.view(1, 2, 2, 2, 8, 8).permute(0, 3, 4, 1, 5, 2).reshape(1, 2, 16, 16)",
    "x.view(1, 8, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 32, 4, 4)",
)
#: Order of the axes of blocks in the transpose, by where the channels stand among the split axes.
_CHANNELS_FIRST: Shape = (0, 1, 4, 2, 5, 3)
_CHANNELS_LAST: Shape = (0, 3, 4, 1, 5, 2)
_BACK: Shape = (0, 1, 3, 5, 2, 4)


@rule(*VIEWS, needs={"transpose"}, makes={"pixelshuffle", "pixelunshuffle"})
def join_pixel_shuffle(graph: nx.DiGraph, name: str) -> bool:
    """Replace the three steps by one operator."""
    swap = sole_source(graph, name, {"transpose"})
    split = sole_source(graph, swap, VIEWS) if swap else None
    if swap is None or split is None:
        return False
    before, middle = graph.nodes[split]["in_shapes"][0], graph.nodes[split]["out_shapes"][0]
    perm, out = graph.nodes[swap]["attrs"]["perm"], graph.nodes[name]["out_shapes"][0]
    found = _shuffle(before, middle, perm, out)
    if found is None:
        return False
    op, block = found
    replace(graph, name, op, graph.nodes[split]["inputs"], {"factor": block}, [split, swap])
    return True


def _shuffle(before: Shape, middle: Shape, perm: Sequence[int], out: Shape) -> tuple[str, int] | None:
    """The operator that the steps make of a map of shape ``before``, and the block size; None if neither."""
    if len(before) != 4 or len(middle) != 6 or len(out) != 4:
        return None
    batch, channels, height, width = before
    if tuple(perm) == _BACK:
        block = middle[3]
        blocks = (batch, channels, height // block, block, width // block, block)
        together = (batch, channels * block**2, height // block, width // block)
        return ("pixelunshuffle", block) if (middle, out) == (blocks, together) else None
    block, inner = middle[2], channels // middle[2] ** 2
    parts = {_CHANNELS_FIRST: (inner, block, block), _CHANNELS_LAST: (block, block, inner)}.get(tuple(perm))
    together = (batch, inner, height * block, width * block)
    fits = parts is not None and (middle, out) == ((batch, *parts, height, width), together)
    return ("pixelshuffle", block) if fits else None
