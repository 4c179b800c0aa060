"""Operators of unknown work: what a model graph knows of them and of what follows them.

A custom operator whose output no rule and no file describes has outputs of unknown shape, written as ``()``.
What reads them is unknown too, until a shape is known again: the model declares it, or the weights of a layer
or the other operand of a sum tell it. Such operators carry the attribute ``unknown_work``. No figure rests on
them. Its value says what is known all the same:

* ``"shape"``: the shapes, but not the work, as for a loop that runs as often as the data wants;
* ``"row"``: there is one row, as after a global pool, but its length is unknown;
* ``"batch"``: that the batch is still the model's, as after most custom operators;
* ``"nothing"``: not even the batch, as of the boxes that a detector selects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import networkx as nx

from ..ops import OPERATORS, ROLES, VIEW_OPS, Shape, are_sizes, broadcast

Known = Literal["shape", "row", "batch", "nothing"]

#: Attribute of operators of unknown work.
UNKNOWN_WORK = "unknown_work"
#: A view whose shapes only the model tells.
GIVEN = "given"
#: Operators that leave one row per item of the batch.
_MAKE_ROWS = frozenset({"globalavgpool", "flatten"})
_ADAPTIVE_POOLS = frozenset({"adaptiveavgpool", "adaptivemaxpool"})
#: Shape rules of operators whose result has the rows of their operands. A view of a row that only its own
#: length shapes is taken for a row.
_KEEP_ROWS = frozenset(
    OPERATORS[op].shape for op in ("relu", "neg", "add", "bn", "identity", "squeeze", "reshape")
)


def mark_unknown(attrs: dict[str, Any], known: Known) -> None:
    """Mark the operator with ``attrs`` as one of unknown work."""
    attrs[UNKNOWN_WORK] = known


def is_unknown(graph: nx.DiGraph, operand: tuple[str, int]) -> bool:
    """Whether the shape of ``operand`` is unknown."""
    return _known_of(graph, operand) is not None


def _known_of(graph: nx.DiGraph, operand: tuple[str, int]) -> Known | None:
    """What is known of the unknown shape of ``operand``; None if the shape is known."""
    producer, slot = operand
    data = graph.nodes[producer]
    known: Known | None = data["attrs"].get(UNKNOWN_WORK)
    shapes = data["out_shapes"]
    return known if known and (slot >= len(shapes) or shapes[slot] == ()) else None


def infer_unknown(graph: nx.DiGraph, data: dict[str, Any]) -> bool:
    """Fill ``out_shapes`` of an operator that has no shape rule, or that reads a tensor of unknown shape.

    Its shapes are those that the model declares, or else unknown. Returns False if they follow from its shape
    rule all the same; then its ``in_shapes`` are those that it must have.
    """
    unknown = [_known_of(graph, operand) for operand in data["inputs"]]
    if data["op"] in OPERATORS and (not any(unknown) or _sizes_follow(data, unknown)):
        return False
    declared, attrs = data["declared"], data["attrs"]
    if declared and all(map(are_sizes, declared)):
        data["out_shapes"] = [tuple(shape) for shape in declared]
        known: Known = "shape"
    else:
        data["out_shapes"] = [() for _ in declared or [()]]
        known = _known_after(data["op"], attrs, unknown)
    if any(unknown) or known != "shape":
        attrs.setdefault(UNKNOWN_WORK, known)
    if data["op"] in VIEW_OPS or ROLES.get(data["op"]) == "identity":
        data["op"] = GIVEN
        attrs["shapes"] = data["out_shapes"]
    elif data["op"] in OPERATORS and data["op"] not in ROLES:
        # No rewrite and no fusion rule may take it for an operator whose sizes are known.
        data["op"] += " of unknown size"
    return True


def _sizes_follow(data: dict[str, Any], unknown: Sequence[Known | None]) -> bool:
    """Whether what else is known fixes the shapes of unknown operands; then fill these in.

    The weights of a layer tell the length of a row. The shape of a sum is that of an operand that no other
    can enlarge.
    """
    op, attrs = data["op"], data["attrs"]
    if unknown == ["row"] and op == "fc" and "in_features" in attrs:
        data["in_shapes"] = [(1, attrs["in_features"])]
        return True
    if unknown == ["row"] and op in ("conv", "dwconv") and "in_channels" in attrs:
        data["in_shapes"] = [(1, attrs["in_channels"], *(1 for _ in attrs["kernel"]))]
        return True
    if op in OPERATORS and OPERATORS[op].shape is OPERATORS["add"].shape and "nothing" not in unknown:
        known = [shape for shape, of in zip(data["in_shapes"], unknown, strict=True) if of is None]
        shape: Shape = broadcast(known) if known else ()
        if len(shape) > 1 and 1 not in shape[1:]:
            data["in_shapes"] = [
                shape if of else own for own, of in zip(data["in_shapes"], unknown, strict=True)
            ]
            return True
    return False


def _known_after(op: str, attrs: dict[str, Any], unknown: Sequence[Known | None]) -> Known:
    """What is known of the unknown outputs of ``op``, by what is known of its operands."""
    if "nothing" in unknown:
        return "nothing"
    keeps = op in OPERATORS and OPERATORS[op].shape in _KEEP_ROWS and {*unknown} == {"row"}
    pooled = attrs.get("output_size")
    is_global = op in _ADAPTIVE_POOLS and (pooled == 1 or (isinstance(pooled, Sequence) and {*pooled} == {1}))
    return "row" if op in _MAKE_ROWS or is_global or keeps else "batch"
