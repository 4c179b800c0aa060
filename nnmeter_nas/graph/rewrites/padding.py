"""Turn values added around a map before a sliding window into the window's own padding, if that is equal.

Convolutions and average pools pad with zeros. A max pool pads with a value below all others; that equals
padding with zeros if no value is negative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx

from ...errors import ShapeError
from ...ops import OPERATORS
from ..editing import replace, sole_source
from ._rule import VIEWS, rule

SPELLINGS = (
    "conv2d(pad(x, (1, 1, 1, 1)))",
    "conv2d(pad(x, (0, 1, 0, 1)), padding=1)",
    "avg_pool2d(pad(x, (1, 1, 1, 1)), 3, 2)",
    "max_pool2d(pad(relu(x), (1, 1, 1, 1)), 3, 2)",
    "max_pool2d(pad(x, (1, 1, 1, 1), value=-inf), 3, 2)",
)
#: Operators whose results are never negative, for any input.
_NOT_NEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hsigmoid", "softmax", "softplus", "exp", "abs"})
#: Operators that return only values that they read, or a part of these.
_PICKS = VIEWS | {"maxpool", "transpose", "slice", "split", "concat", "channelshuffle"}
#: Less than any value in a network.
_LOWEST = -1e30
_SPATIAL = 2


@rule("conv", "dwconv", "avgpool", "maxpool", needs={"pad"})
def fold_padding(graph: nx.DiGraph, name: str) -> bool:
    """Let the window pad, and remove the pad operator."""
    pad = sole_source(graph, name, {"pad"})
    if pad is None:
        return False
    data, attrs = graph.nodes[name], graph.nodes[pad]["attrs"]
    pairs, own = attrs["padding"], data["attrs"].get("padding", "valid")
    spatial = [(0, 0)] * (len(pairs) - _SPATIAL) if own == "valid" else own
    if own == "same" or any(map(any, pairs[:_SPATIAL])) or min(map(min, pairs)) < 0:
        return False
    alike = _pads_alike(graph, pad, data, any(map(any, spatial)))
    if attrs.get("mode", "constant") != "constant" or not alike:
        return False
    both = zip(pairs[_SPATIAL:], spatial, strict=True)
    merged = [(b + before, a + after) for (b, a), (before, after) in both]
    window = {**data["attrs"], "padding": merged}
    try:
        shapes = OPERATORS[data["op"]].shape([graph.nodes[pad]["in_shapes"][0]], dict(window))
    except ShapeError:
        return False
    if shapes != data["out_shapes"]:  # a pool that rounds up drops windows that start in its own padding
        return False
    replace(graph, name, data["op"], graph.nodes[pad]["inputs"], window, [pad])
    return True


def _pads_alike(graph: nx.DiGraph, pad: str, window: Mapping[str, Any], pads_itself: bool) -> bool:
    """Whether the padded values are those that ``window`` itself would pad with."""
    value = graph.nodes[pad]["attrs"].get("value") or 0.0
    if window["op"] == "maxpool":
        lowest = value <= _LOWEST
        return lowest or (value == 0 and not pads_itself and _is_never_negative(graph, graph.nodes[pad]))
    return value == 0 and not (window["op"] == "avgpool" and pads_itself)


def _is_never_negative(graph: nx.DiGraph, data: Mapping[str, Any]) -> bool:
    """Whether all values that ``data`` reads are zero or more."""
    seen: set[str] = set()
    stack = [producer for producer, _ in data["inputs"]]
    while stack:
        name = stack.pop()
        before = graph.nodes[name]
        if name in seen or before["op"] in _NOT_NEGATIVE:
            continue
        floor = before["attrs"].get("min", -math.inf) if before["op"] == "clip" else -math.inf
        if before["op"] not in _PICKS and floor < 0:
            return False
        seen.add(name)
        stack += [producer for producer, _ in before["inputs"]] if before["op"] in _PICKS else []
    return True
