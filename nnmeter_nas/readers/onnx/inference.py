"""Infer the shapes of single operators with ONNX itself, for operators without a shape rule of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.shapes import Shape
from .values import Value

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, TypeProto

#: Operators whose inference can take unbounded time or memory, because an attribute sets the amount.
_UNBOUNDED = frozenset({"Split", "SplitToSequence"})


def inferred_types(
    node: NodeProto, attrs: Mapping[str, Any], inputs: Sequence[Value | None], opset: int
) -> dict[str, tuple[Shape | None, int]]:
    """Infer shape and element type of each output of ``node``, by name. A shape that depends on data is None.

    Returns an empty dict if ONNX does not define the operator, or if its inputs and attributes contradict
    each other.
    """
    from onnx import checker, defs, helper, shape_inference

    if node.op_type in _UNBOUNDED:
        return {}
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    try:
        schema = defs.get_schema(node.op_type, min(opset, defs.onnx_opset_version()), "")
        if any(attribute.ref_attr_name for attribute in node.attribute):
            node = helper.make_node(node.op_type, node.input, node.output, **attrs)
        found = shape_inference.infer_node_outputs(
            schema,
            node,
            {name: _type(value) for name, value in given.items()},
            {name: tensor for name, value in given.items() if (tensor := _tensor(name, value))},
        )
    # ONNX's own code says so in many ways if it cannot tell; then the shape stays unknown, and is said to be.
    except (
        defs.SchemaError,
        shape_inference.InferenceError,
        checker.ValidationError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return {}
    return {name: (static_shape(proto, {}), proto.tensor_type.elem_type) for name, proto in found.items()}


def _type(value: Value) -> TypeProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_type_proto(value.elem_type or TensorProto.FLOAT, value.shape)


def _tensor(name: str, value: Value) -> TensorProto | None:
    """Convert a small constant to ONNX's message; None for other values."""
    from onnx import numpy_helper

    numbers = value.numbers()
    return None if numbers is None else numpy_helper.from_array(numbers, name)


def static_shape(proto: TypeProto, symbols: Mapping[str, int]) -> Shape | None:
    """Return the shape of a declared type, or None if any size is unknown or zero.

    Args:
        proto: the type.
        symbols: known sizes of symbolic dimensions, by name.
    """
    if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return None
    sizes = [
        symbols.get(dim.dim_param, 0) if dim.HasField("dim_param") else dim.dim_value
        for dim in proto.tensor_type.shape.dim
    ]
    return tuple(sizes) if all(size > 0 for size in sizes) else None
