"""Shape inference over a model graph, one operator at a time, in NCHW (or NCL, N..., like the input)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import networkx as nx

from ..errors import ShapeError
from ..ops import OPERATORS, Shape, are_sizes
from .unknown import infer_unknown, is_unknown

__all__ = ["Shape", "infer_operator", "infer_shapes", "operand_shape"]


def infer_shapes(graph: nx.DiGraph, order: Iterable[str], inferred: Container[str] = ()) -> None:
    """Fill ``in_shapes`` and ``out_shapes`` of every node of a model graph, in place.

    ``order`` lists all nodes, producers first; the nodes in ``inferred`` have their shapes already.
    Shapes that an outside format declared are used only where no rule exists. Elsewhere a differing shape is
    recorded in ``graph.graph["shape_mismatches"]``.

    Raises:
        ShapeError: as :func:`infer_operator`.
    """
    mismatches = graph.graph["shape_mismatches"] = []
    nodes = dict(graph.nodes(data=True))
    for name in order:
        if name not in inferred:
            infer_operator(graph, name)
        declared, found = nodes[name]["declared"], nodes[name]["out_shapes"]
        if declared and declared != found and (claimed := [tuple(s) for s in declared]) != found:
            mismatches.append((name, claimed, found))


def infer_operator(graph: nx.DiGraph, name: str) -> None:
    """Fill ``in_shapes`` and ``out_shapes`` of one node; its producers must have theirs already.

    A convolution with as many groups as input channels becomes a ``dwconv``; an adaptive pool becomes a
    plain or global pool. Shapes that nothing tells are unknown, see :mod:`nnmeter_nas.graph.unknown`.

    Raises:
        ShapeError: batch other than 1, missing or contradictory shapes; names the operator.
    """
    data = graph.nodes[name]
    data["in_shapes"] = [operand_shape(graph, name, operand) for operand in data["inputs"]]
    try:
        if infer_unknown(graph, data):
            return
        data["out_shapes"] = OPERATORS[data["op"]].shape(data["in_shapes"], data["attrs"])
    except ShapeError as error:
        raise ShapeError(str(error), name) from None
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ShapeError(
            f"attributes {data['attrs']} do not fit input shapes {data['in_shapes']} of "
            f"{data['op']!r} ({type(error).__name__}: {error})", name
        ) from error
    if not all(map(are_sizes, data["out_shapes"])):
        raise ShapeError(
            f"{data['op']!r} on {data['in_shapes']} with {data['attrs']} leaves an empty tensor "
            f"{data['out_shapes']}", name
        )
    _specialise(data)


def operand_shape(graph: nx.DiGraph, consumer: str, operand: tuple[str, int]) -> Shape:
    """Shape that ``operand`` has for ``consumer``; a ShapeError if the producer has no such output."""
    producer, slot = operand
    shapes = graph.nodes[producer]["out_shapes"]
    if not 0 <= slot < len(shapes):
        if is_unknown(graph, operand):
            return ()
        raise ShapeError(f"its operand {producer!r} has no output {slot}", consumer)
    return shapes[slot]


def _specialise(data: dict[str, Any]) -> None:
    """Rename an operator to the more specific one that its shapes call for."""
    attrs = data["attrs"]
    if data["op"] == "conv" and 1 < attrs.get("groups", 1) == data["in_shapes"][0][1]:
        data["op"] = "dwconv"
    elif data["op"] in ("adaptiveavgpool", "adaptivemaxpool"):
        spatial, out = data["in_shapes"][0][2:], data["out_shapes"][0][2:]
        kind = data["op"][len("adaptive"):]
        if all(o == 1 for o in out):
            data["op"] = "globalavgpool" if kind == "avgpool" else kind
        elif all(i % o == 0 for i, o in zip(spatial, out, strict=True)):
            data["op"] = kind
        if data["op"] == kind:
            window = tuple(i // o for i, o in zip(spatial, out, strict=True))
            attrs.update(kernel=window, stride=window, padding="valid")
    elif data["op"] == "avgpool" and _covers_map(data):
        data["op"] = "globalavgpool"
    elif data["op"] == "mean" and set(attrs["axes"]) == set(range(2, len(data["in_shapes"][0]))):
        data["op"] = "globalavgpool"


def _covers_map(data: dict[str, Any]) -> bool:
    """Whether the window of an average pool covers its whole, unpadded, input map."""
    shape, attrs = data["in_shapes"][0], data["attrs"]
    return tuple(attrs["kernel"]) == shape[2:] and all(d == 1 for d in data["out_shapes"][0][2:])
