"""What ONNX itself knows of single operators, for operators that we do not declare: shapes, and parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...graph.shapes import Shape
from .values import Value

if TYPE_CHECKING:
    from onnx import FunctionProto, NodeProto, TensorProto, TypeProto

#: Operators whose inference can take unbounded time or memory, because an attribute sets the amount.
_UNBOUNDED = frozenset({"Split", "SplitToSequence"})
_LOOPS = frozenset({"Loop", "Scan"})


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
        schema = _schema(node.op_type, opset)
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


def _schema(op: str, opset: int) -> Any:  # its type lacks what it tells of functions
    from onnx import defs

    return defs.get_schema(op, min(opset, defs.onnx_opset_version()), "")


def function_body(
    node: NodeProto, inputs: Sequence[Value | None], opset: int
) -> tuple[FunctionProto, dict[str, Any]] | None:
    """Return the function by which ONNX defines ``node``, and the defaults of its attributes.

    None if ONNX defines it otherwise, or by a loop.
    """
    from onnx import FunctionProto, TypeProto, defs, helper

    try:
        schema = _schema(node.op_type, opset)
    except defs.SchemaError:
        return None
    plain, by_types = schema.function_opset_versions, schema.context_dependent_function_opset_versions
    versions = [version for version in plain or by_types if version <= max(opset, schema.since_version)]
    if not versions:
        return None
    if plain:
        content = schema.get_function_with_opset_version(max(versions))
    else:
        types = [TypeProto() if value is None else _type(value) for value in inputs]
        content = schema.get_context_dependent_function_with_opset_version(
            max(versions), node.SerializeToString(), [proto.SerializeToString() for proto in types]
        )
    body = FunctionProto.FromString(content)
    if not body.node or any(inner.op_type in _LOOPS for inner in body.node):
        return None
    del body.output[len(node.output) :]  # the body need not make what nobody asks for
    defaults = {
        name: helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }
    return body, defaults


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
