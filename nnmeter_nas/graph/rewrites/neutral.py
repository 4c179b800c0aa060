"""Remove operators that change nothing: ``x + 0``, ``x * 1``, a transpose that keeps the order, and the like.

Python's ``sum()`` starts with ``0 + x``, and code that handles several cases may multiply by 1 in some.
"""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..editing import bypass, drop_unread
from ._rule import VIEWS, rule

SPELLINGS = ("x + 0", "x - 0", "x * 1", "x / 1", "x ** 1")
#: Element-wise operator -> the constant with which it changes nothing.
_NUMBERS = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}
#: Operators that change nothing if they keep the shape.
_SHAPERS = VIEWS | {"expand", "broadcastto", "expandas", "expand_as", "tile", "upsample"}


@rule(*_NUMBERS, *_SHAPERS, "pad", "transpose", "slice", "concat", "split", "channelshuffle")
def remove_neutral(graph: nx.DiGraph, name: str) -> bool:
    """Make its readers read its operand."""
    data = graph.nodes[name]
    if len(data["out_shapes"]) != 1 or data["out_shapes"][0] != data["in_shapes"][0] or not _is_neutral(data):
        return False
    operands = data["inputs"]
    bypass(graph, name, operands[0])
    drop_unread(graph, [producer for producer, _ in operands[1:]])
    return True


def _is_neutral(data: dict[str, Any]) -> bool:
    """Whether an operator that keeps the shape keeps the values."""
    op, attrs = data["op"], data["attrs"]
    if op in _SHAPERS:
        return True
    if len(data["inputs"]) > 1:
        return False
    if op in _NUMBERS:
        plain = "const_shape" not in attrs and not attrs.get("const_first")
        # A sum or product that lost its other operands has no number; any other operator must have one.
        number = attrs.get("const", _NUMBERS[op] if op in ("add", "mul") else None)
        return plain and number == _NUMBERS[op]
    if op == "transpose":
        return list(attrs["perm"]) == list(range(len(attrs["perm"])))
    if op == "pad":
        return not any(map(any, attrs["padding"]))
    if op == "slice":
        return attrs.get("step") in (None, 1)
    if op == "channelshuffle":
        return attrs["groups"] in (1, data["in_shapes"][0][1])
    return True
