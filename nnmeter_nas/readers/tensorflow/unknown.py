"""Operators of a TensorFlow graph whose output shape no rule tells, and those that read it.

They stay in the model graph, marked. A shape that the graph declares makes what follows known again, and so
does a reshape to constant sizes, and the weights of a dense layer behind a global pool.
"""

from __future__ import annotations

import math
from typing import Any

from ...graph.model_graph import add_note, add_op
from ...graph.shapes import infer_operator
from ...graph.unknown import GIVEN, is_unknown, mark_unknown
from ...ops import NAMES, OPERATORS, VIEW_OPS, Shape
from .constants import MAX_ELEMENTS, static_shape
from .nodes import CONTROL_FLOW, TfNode
from .operators import TfCall, TfValue, layout

#: Where operators declare the shapes of their outputs: any, and control flow.
_DECLARED_IN = ("_output_shapes", "output_shapes")
_ADD_SHAPES = (
    "the graph does not tell the shape of every operator's output; export it with "
    "as_graph_def(add_shapes=True) to have the rest predicted"
)


def declared_shapes(node: TfNode) -> list[Shape] | None:
    """The output shapes that the graph declares for ``node``, if all sizes are known; an open batch is 1."""
    listed = next((found for key in _DECLARED_IN if (found := node.value(key, "list"))), None)
    shapes = [] if listed is None else [static_shape(shape) for shape in listed.shape]
    told = [(1, *shape[1:]) if shape[:1] == (-1,) else shape for shape in shapes if shape is not None]
    return told if told and len(told) == len(shapes) and all(min(s, default=1) > 0 for s in told) else None


def unknown(call: TfCall, declared: list[Shape] | None) -> list[TfValue]:
    """Add ``call``, which has no canonical form or reads a tensor of unknown shape.

    Args:
        call: the operator; shapes of its operands may be unknown.
        declared: the output shapes that the graph declares.
    """
    operands = [tensor for tensor in call.inputs if tensor.operand is not None]
    op, attrs = _canonical(call)
    shape = _reshaped(call) if declared is None and op == "reshape" else None
    declared = [shape] if shape else declared
    if op in VIEW_OPS:
        operands = operands[:1]
    is_source = _is_source(call)
    if is_source and call.node.op in CONTROL_FLOW:
        mark_unknown(attrs, "shape" if declared else "nothing")
    elif is_source and declared is None:
        mark_unknown(attrs, "batch")
    if is_source and declared is None:
        add_note(call.graph, _ADD_SHAPES)
    orders = [layout(len(shape), call.channels_first) for shape in declared or ()]
    shapes = [tuple(s[axis] for axis in order) for s, order in zip(declared or (), orders, strict=True)]
    name = call.node.name
    add_op(call.graph, name, op, [t.operand for t in operands if t.operand], attrs, shapes or None)
    infer_operator(call.graph, name)
    if is_unknown(call.graph, (name, 0)):
        return [TfValue(None, (), (name, 0))]
    found: list[Shape] = call.graph.nodes[name]["out_shapes"]
    orders = [layout(len(shape), call.channels_first) for shape in found]
    return [
        TfValue(tuple(shape[order.index(axis)] for axis in range(len(shape))), order, (name, slot))
        for slot, (shape, order) in enumerate(zip(found, orders, strict=True))
    ]


def _is_source(call: TfCall) -> bool:
    """Whether it reads no computed tensor of unknown shape, so that it is unknown itself."""
    unsized = [tensor for tensor in call.inputs if tensor.shape is None]
    return not unsized or any(tensor.constant for tensor in unsized)


def _canonical(call: TfCall) -> tuple[str, dict[str, Any]]:
    """The operator's name in the model graph, and what of its attributes tells of sizes."""
    node, names = call.node, NAMES["tensorflow"]
    if _is_source(call):
        op = node.op.lower()
        return (f"tf_{op}" if op in OPERATORS else op), {}
    if node.op in ("Shape", "ShapeN", "Size", "Rank"):
        return GIVEN, {}
    if node.op in ("BiasAdd", "IdentityN", "EnsureShape", "StopGradient", "CheckNumerics"):
        return "identity", {}
    others = [tensor for tensor in call.inputs[1:] if tensor.constant and tensor.shape is not None]
    if node.op == "Mean" and others and others[0].value is not None:
        axes = sorted(others[0].value.reshape(-1).tolist())
        return ("globalavgpool" if axes in ([1, 2], [2, 3]) else "mean"), {}
    if node.op in ("MatMul", "_FusedMatMul") and others and len(others[0].sizes) == 2:
        inner, outer = reversed(others[0].sizes) if node.flag("transpose_b") else others[0].sizes
        return "fc", {"in_features": inner, "out_features": outer, "bias": False}
    if node.op == "Reshape" and others and others[0].value is not None and others[0].sizes == (2,):
        return ("flatten" if int(others[0].value[1]) == -1 else "reshape"), {}
    if node.op in ("Conv2D", "DepthwiseConv2dNative"):
        return "conv", {}
    return (names[node.op].name if node.op in names else node.op.lower()), {}


def _reshaped(call: TfCall) -> Shape | None:
    """The constant sizes to which a reshape of an unknown tensor leads."""
    target = call.inputs[1].value if len(call.inputs) > 1 else None
    if target is None or target.size == 0 or (target < 1).any():
        return None
    shape = tuple(int(size) for size in target.reshape(-1))
    return shape if math.prod(shape) <= MAX_ELEMENTS else None
