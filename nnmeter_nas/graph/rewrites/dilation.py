"""Dilated convolutions of TensorFlow: blocks of the map move to the batch, and back after the convolution."""

from __future__ import annotations

import networkx as nx

from ..editing import replace, sole_source
from ._rule import rule

SPELLINGS = ("batch_to_space(conv2d(space_to_batch(x, 2)), 2)",)
_CONVOLUTIONS = frozenset({"conv", "dwconv"})


@rule("batchtospacend", needs={"spacetobatchnd"}, makes=_CONVOLUTIONS)
def join_dilation(graph: nx.DiGraph, name: str) -> bool:
    """Turn the block size into dilation. The padding is the added values that are not cut off again."""
    conv = sole_source(graph, name, _CONVOLUTIONS)
    before = sole_source(graph, conv, {"spacetobatchnd"}) if conv else None
    if conv is None or before is None:
        return False
    attrs, blocks, back = (graph.nodes[step]["attrs"] for step in (conv, before, name))
    plain = {*attrs["stride"], *attrs["dilation"]} == {1} and attrs["padding"] == "valid"
    whole_map = len(blocks["block"]) == len(attrs["kernel"])
    if not plain or not whole_map or blocks["block"] != back["block"]:
        return False
    pairs = zip(blocks["pairs"], back["pairs"], strict=True)
    padding = [(padded[0] - cropped[0], padded[1] - cropped[1]) for padded, cropped in pairs]
    if min(map(min, padding)) < 0:
        return False
    dilated = {**attrs, "dilation": blocks["block"], "padding": padding}
    op, source = graph.nodes[conv]["op"], graph.nodes[before]["inputs"]
    replace(graph, name, op, source, dilated, [before, conv])
    graph.nodes[name]["declared"] = None
    return True
