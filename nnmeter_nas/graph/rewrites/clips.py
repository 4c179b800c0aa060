"""Make one clip of limits, written as clips, as a maximum or minimum with a number, or one after the other.

Limits of 0 and 6 make ``relu6``, and a lower limit of 0 makes ``relu``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx

from ..editing import replace, sole_source
from ._rule import rule

SPELLINGS = {
    "relu": ("max(x, 0)", "clip(x, 0, inf)", "max(max(x, -1), 0)", "relu(relu(x))"),
    "relu6": (
        "min(max(x, 0), 6)",
        "max(min(x, 6), 0)",
        "clip(x, 0, 6)",
        "min(relu(x), 6)",
        "relu(min(x, 6))",
        "relu6(relu(x))",
        "relu(relu6(x))",
    ),
    "clip": ("min(max(x, -1), 1)", "clip(clip(x, -1, inf), -2, 1)", "min(relu(x), 1)", "max(relu6(x), 1)"),
}
_ACTIVATIONS: dict[tuple[float, float], str] = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}
_LIMITS_OF = {op: limits for limits, op in _ACTIVATIONS.items()}
_CLIPS = frozenset({"clip", "maximum", "minimum"})
_LIMITED = _CLIPS | _LIMITS_OF.keys()


@rule(*_LIMITED, makes={"relu", "relu6", "clip"})
def join_clips(graph: nx.DiGraph, name: str) -> bool:
    """Make one operator of limits and the limits right before it."""
    data = graph.nodes[name]
    limits = _limits(data)
    if limits is None:
        return False
    source, gone = data["inputs"][0], []
    before = sole_source(graph, name, _LIMITED)
    inner = _limits(graph.nodes[before]) if before else None
    if before and inner:
        limits = (_within(inner[0], limits), _within(inner[1], limits))
        source, gone = graph.nodes[before]["inputs"][0], [before]
    op = _ACTIVATIONS.get(limits, "clip")
    if op == data["op"] and not gone:
        return False
    attrs = {key: limit for key, limit in zip(("min", "max"), limits, strict=True) if math.isfinite(limit)}
    replace(graph, name, op, [source], attrs if op == "clip" else {}, gone)
    return True


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _limits(data: Mapping[str, Any]) -> tuple[float, float] | None:
    """Lower and upper limit of an operator with one operand; None if it has none or does not state them."""
    op, attrs = data["op"], data["attrs"]
    if op in _LIMITS_OF:
        return _LIMITS_OF[op]
    if op == "clip":
        low, high = attrs.get("min"), attrs.get("max")
        if low is None and high is None:
            return None
        return -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if len(data["inputs"]) != 1 or "const" not in attrs or "const_shape" in attrs:
        return None
    return (attrs["const"], math.inf) if op == "maximum" else (-math.inf, attrs["const"])
