"""Read nn-Meter IR, a dict or JSON file of TensorFlow-style nodes in NHWC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import networkx as nx

from ...errors import GraphError, NnMeterNasError, ReaderError
from ...graph.model_graph import add_input, add_op, finish, new_graph
from ...ops import NAMES, OPERATORS, Shape
from ..inputs import InputShape, note_dropped_shapes, shapes_by_input
from ..nhwc import MAP_RANK, axis_to_nchw, perm_to_nchw, to_nchw
from .onnx_dialect import from_onnx_dialect, is_onnx_dialect

#: Operators whose attributes this reader translates. Of others that need some, the IR does not tell them.
_TRANSLATED = frozenset(
    {
        *("conv", "maxpool", "avgpool", "fc", "concat", "split", "mean", "reshape", "transpose", "clip"),
        *("pixelshuffle", "pixelunshuffle"),
    }
)
_INPUT_TYPES = ("Placeholder", "Input")
#: Types whose output does not depend on the input's values.
_CONSTANT_TYPES = ("Const", "Shape")
#: Errors that JSON of another format can raise: an attribute is missing, of the wrong type or out of range.
_ATTRIBUTE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration)


def read_nnmeter_ir(
    model: Mapping[str, Any] | str | PathLike[str], input_shape: InputShape | None = None
) -> nx.DiGraph:
    """Read nn-Meter IR into a model graph.

    Shapes are inferred. The file's own shapes are used only where nothing better is known (the width of
    a dense layer, the target of a reshape). Operands that the file names but does not contain are weights
    and are left out.

    Args:
        model: the IR as a dict, or the path of a JSON file. Its shapes are NHWC.
        input_shape: NCHW shape that overrides the placeholder's. For several inputs, a list of shapes or
            a dict by input name.

    Raises:
        ReaderError: the file is not JSON or not nn-Meter IR.
        GraphError, ShapeError: the model's graph is malformed.
    """
    name, nodes = _load(model)
    if is_onnx_dialect(nodes):
        try:
            nodes = from_onnx_dialect(nodes)
        except _ATTRIBUTE_ERRORS as error:
            raise ReaderError(
                f"{name} is nn-Meter IR made from ONNX, but damaged ({type(error).__name__}: {error}); "
                "convert it again, or pass the ONNX file itself"
            ) from error
    graph = new_graph(name)
    constants = _constants(nodes)
    inputs = [n for n, record in nodes.items() if _type(n, record) in _INPUT_TYPES]
    shapes = shapes_by_input(input_shape, inputs)
    as_declared = all(_own_shape(nodes[n]) in (None, shape) for n, shape in shapes.items())
    for node, record in nodes.items():
        kind = _type(node, record)
        if node in constants:
            continue
        try:
            if kind in _INPUT_TYPES:
                add_input(graph, node, shapes.get(node) or _input_shape(node, record))
            else:
                _add_operator(graph, node, kind, nodes, constants, as_declared)
        except NnMeterNasError:
            raise
        except _ATTRIBUTE_ERRORS as error:
            raise ReaderError(
                f"operator {node!r} ({kind}): attribute {error} is missing or malformed "
                f"({type(error).__name__})"
            ) from error
    finish(graph)
    if not as_declared:
        note_dropped_shapes(graph)
    return graph


def _add_operator(
    graph: nx.DiGraph,
    node: str,
    kind: str,
    nodes: Mapping[str, Any],
    constants: set[str],
    as_declared: bool,
) -> None:
    """Add ``node`` with its computed operands. Constant operands become attributes.

    The shape that the file declares holds only for inputs ``as_declared``.
    """
    record = nodes[node]
    inbounds = _inbounds(node, record)
    found = [operand for operand in (_operand(i, nodes) for i in inbounds) if operand is not None]
    operands = [operand for operand in found if operand[0] not in constants]
    if not operands:
        raise GraphError(f"none of its operands {inbounds} is computed in the graph", node)
    op = _operator(kind)
    attrs = _attrs(op, record, [_constant(nodes[name]) for name, _ in found if name in constants])
    if op in ("sub", "div") and found[0][0] in constants:
        attrs["const_first"] = True
    declared = _declared(record) if as_declared and op != "split" else None
    add_op(graph, node, op, operands, attrs, declared)


def is_known(kind: str) -> bool:
    """Whether anything here says what operator a node of type ``kind`` is."""
    return _operator(kind) in OPERATORS


def _operator(kind: str) -> str:
    """Canonical name of the operator of a node of type ``kind``; a name of the IR's own if it has none."""
    operator = NAMES["nnmeter"].get(kind) or OPERATORS.get(kind.lower())
    if operator is None:
        return kind.lower()
    # A depthwise convolution is told by its shapes, as in every format.
    op = "conv" if operator.name == "dwconv" else operator.name
    if operator.attrs is None and op not in _TRANSLATED:
        return kind.lower() if kind.lower() not in OPERATORS else f"ir_{kind.lower()}"
    return op


def _constants(nodes: Mapping[str, Any]) -> set[str]:
    """Return the names of constants and of nodes computed only from constants and static shapes."""
    constants = {n for n, record in nodes.items() if _type(n, record) in _CONSTANT_TYPES}
    sources = {
        n: [operand[0] if operand else None for operand in (_operand(i, nodes) for i in _inbounds(n, record))]
        for n, record in nodes.items()
    }
    while folded := {n for n, s in sources.items() if s and n not in constants and constants.issuperset(s)}:
        constants |= folded
    return constants


def _inbounds(node: str, record: Mapping[str, Any]) -> list[str]:
    inbounds = record.get("inbounds") or []
    if not isinstance(inbounds, list) or not all(isinstance(i, str) for i in inbounds):
        raise ReaderError(f"operator {node!r}: inbounds {inbounds!r} is not a list of names")
    return inbounds


def _operand(inbound: str, nodes: Mapping[str, Any]) -> tuple[str, int] | None:
    """Split an inbound, ``name`` or ``name:slot``, into producer and output slot; None if it is missing."""
    if inbound in nodes:
        return inbound, 0
    name, _, slot = inbound.rpartition(":")
    return (name, int(slot)) if name in nodes and slot.isdecimal() else None


def _load(model: Mapping[str, Any] | str | PathLike[str]) -> tuple[str, Mapping[str, Any]]:
    """Return the display name and the nodes of an IR given as a dict or path."""
    name = "nn-Meter IR"
    if isinstance(model, (str, PathLike)):
        path = Path(model)
        try:
            model = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ReaderError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise ReaderError(f"{path} is not valid JSON: {error}") from error
        name = path.name
    if not isinstance(model, Mapping) or not all(
        isinstance(n, str) and isinstance(record, Mapping) for n, record in model.items()
    ):
        raise ReaderError(f"{name} is not nn-Meter IR: expected an object that maps node names to nodes")
    return name, model


def _type(node: str, record: Mapping[str, Any]) -> str:
    try:
        return str(record["attr"]["type"])
    except (KeyError, TypeError):
        raise ReaderError(f"operator {node!r} has no type; is this nn-Meter IR?") from None


def _own_shape(record: Mapping[str, Any]) -> Shape | None:
    """The shape that the file declares for an input, if it does."""
    try:
        return _input_shape("", record)
    except (NnMeterNasError, *_ATTRIBUTE_ERRORS):
        return None


def _input_shape(node: str, record: Mapping[str, Any]) -> Shape:
    shapes = record["attr"].get("output_shape") or [record["attr"].get("attr", {}).get("shape")]
    if not shapes[0]:
        raise ReaderError(f"input {node!r} has no shape; pass input_shape")
    batch, *rest = shapes[0]
    return to_nchw([1 if batch == -1 else batch, *rest])


def _declared(record: Mapping[str, Any]) -> list[Shape] | None:
    shapes = record["attr"].get("output_shape")
    if not shapes or not all(shapes):
        return None
    return [to_nchw([1 if d == -1 else d for d in shape[:1]] + list(shape[1:])) for shape in shapes]


def _constant(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that a constant operand adds to its consumer."""
    attrs = record["attr"].get("attr") or {}
    shape, values = attrs.get("tensor_shape") or [], attrs.get("constant") or []
    if len(values) == 1 or (not shape and values):
        return {"const": float(values[0])}
    return {"const_shape": tuple(shape)} if len(shape) else {}


def _padding(attrs: Mapping[str, Any]) -> Any:
    """Return ``padding`` ("same" or "valid"), or else pairs of ``pads`` (top, left, bottom, right)."""
    padding = attrs.get("padding")
    if isinstance(padding, str):
        return padding.lower()
    top, left, bottom, right = attrs["pads"]
    return [(top, bottom), (left, right)]


def _attrs(op: str, record: Mapping[str, Any], consts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the canonical attributes of one node."""
    attrs, body = record["attr"].get("attr") or {}, record["attr"]
    if op == "conv":
        *kernel, in_channels, width = attrs["weight_shape"]
        depthwise = body["type"] == "DepthwiseConv2dNative"
        return {
            "kernel": tuple(kernel),
            "stride": tuple(attrs["strides"][-2:]),
            "padding": _padding(attrs),
            "dilation": tuple(attrs.get("dilations") or (1, 1))[-2:],
            "in_channels": in_channels if depthwise else in_channels * attrs.get("group", 1),
            "out_channels": in_channels * width if depthwise else width,
            "groups": in_channels if depthwise else attrs.get("group", 1),
        }
    if op in ("maxpool", "avgpool"):
        kernel = attrs["ksize"] if "ksize" in attrs else attrs["kernel_shape"]
        return {
            "kernel": tuple(kernel),
            "stride": tuple(attrs["strides"]),
            "padding": _padding(attrs),
            "ceil_mode": bool(attrs.get("ceil_mode", False)),
        }
    if op == "fc":
        return {"out_features": int(body["output_shape"][0][-1])}
    rank = len((body.get("input_shape") or [[]])[0])
    if op == "concat":
        return {"axis": axis_to_nchw(attrs.get("axis", rank - 1), rank)}
    if op == "split":
        return {"axis": axis_to_nchw(attrs.get("axis", rank - 1), rank), "sections": attrs["num_split"]}
    if op == "mean":
        # A mean over axes 1 and 2 is a global pool, even where the file has the wrong rank for its operand.
        axes = attrs["reduction_indices"]
        rank = max(rank, MAP_RANK if set(axes) == {1, 2} else rank)
        keepdims = len(body["output_shape"][0]) == rank
        return {"axes": tuple(axis_to_nchw(a, rank) for a in axes), "keepdims": keepdims}
    if op == "reshape":
        return {"shape": to_nchw(attrs.get("shape") or body["output_shape"][0])}
    if op in ("pixelshuffle", "pixelunshuffle"):
        sizes = body["input_shape"][0][1], body["output_shape"][0][1]
        return {"factor": attrs.get("block_size") or max(sizes) // min(sizes)}
    if op == "transpose":
        return {"perm": _permutation(attrs.get("perm"), body)}
    operator = OPERATORS.get(op)
    if operator is None:
        return {}
    if operator.operands is None:
        found = {key: value for const in consts for key, value in const.items()}
        rank = len(body["output_shape"][0]) if "const_shape" in found else 0
        if rank >= MAP_RANK:
            missing = (1,) * (rank - len(found["const_shape"]))
            found["const_shape"] = to_nchw(missing + found["const_shape"])
        return found
    return {key: attrs[key] for key in operator.attrs or () if key in attrs}


def _permutation(perm: Sequence[int] | None, body: Mapping[str, Any]) -> Shape:
    """Return a transpose's permutation in NCHW. Without ``perm``, derive it from the node's shapes."""
    before, after = list(body["input_shape"][0]), list(body["output_shape"][0])
    if perm is None:
        perm = _moved_axes(before, after)
    return perm_to_nchw(perm)


def _moved_axes(before: list[int], after: list[int]) -> list[int]:
    """Return a permutation that turns ``before`` into ``after``, preferring a swap of the last two axes."""
    last = len(before) - 1
    if after == [*before[:-2], before[-1], before[-2]]:
        return [*range(last - 1), last, last - 1]
    remaining = list(range(len(before)))
    perm = []
    for size in after:
        axis = next(a for a in remaining if before[a] == size)
        remaining.remove(axis)
        perm.append(axis)
    return perm
