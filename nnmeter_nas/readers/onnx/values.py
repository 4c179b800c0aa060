"""Values of tensors and attributes in an ONNX graph. A tensor is computed, a weight, or a small constant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ReaderError
from ...graph.editing import Operand
from ...graph.shapes import Shape

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto, SparseTensorProto, TensorProto

Array = npt.NDArray[Any]

#: Larger constants are weights: the reader uses their shape and never their values.
MAX_ELEMENTS = 1024
#: Limit on the number of dimensions of a tensor; it is NumPy's.
MAX_RANK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor of an ONNX graph.

    Attributes:
        shape: its shape; None if it depends on data.
        elem_type: ONNX's number for the element type.
        operand: producer and output slot in the model graph; None for weights and constants.
        tensor: the initializer that stores it, if any.
        data: its values if it is a folded constant.
        zero: whether a constant without ``data`` is known to be all zeros.
        read_once: whether exactly one operator reads it and it is not a model output.
    """

    shape: Shape | None
    elem_type: int
    operand: Operand | None = None
    tensor: TensorProto | None = None
    data: Array | None = None
    zero: bool = False
    read_once: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether it is a weight or constant, not computed by the model graph."""
        return self.operand is None

    @property
    def rank(self) -> int:
        """Number of dimensions; requires a known shape."""
        assert self.shape is not None
        return len(self.shape)

    @property
    def is_external(self) -> bool:
        """Whether its values are stored outside the model."""
        return self.tensor is not None and self.tensor.data_location == self.tensor.EXTERNAL

    def numbers(self) -> Array | None:
        """Return the values of a small constant stored in the model; None for other values.

        Raises:
            ReaderError: the values do not match the shape.
        """
        if self.data is not None or self.tensor is None or self.is_external or not is_small(self.shape):
            return self.data
        from onnx import numpy_helper

        try:
            return numpy_helper.to_array(self.tensor)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ReaderError(f"tensor {self.tensor.name!r} is malformed: {error}") from error

    def holds_zeros(self) -> bool:
        """Whether it is known to be a constant of zeros. Values stored outside the model are unknown."""
        numbers = self.numbers()
        if numbers is not None:
            return numbers.dtype != object and not numbers.any()
        raw = self.tensor.raw_data if self.tensor is not None else b""
        return self.zero or (bool(raw) and raw.count(0) == len(raw))


def is_small(shape: Shape | None) -> bool:
    """Whether a tensor of ``shape`` is small enough to be folded."""
    return shape is not None and math.prod(shape) <= MAX_ELEMENTS


def weights(tensor: TensorProto) -> Value:
    """Return the value of an initializer.

    Raises:
        ReaderError: the tensor has a negative size or too many dimensions.
    """
    return Value(_checked(tuple(tensor.dims), tensor.name), tensor.data_type, tensor=tensor)


def sparse_weights(tensor: SparseTensorProto) -> Value:
    """Return the value of a sparse constant, with its shape but without its numbers.

    Raises:
        ReaderError: the tensor has a negative size or too many dimensions.
    """
    return Value(_checked(tuple(tensor.dims), tensor.values.name), tensor.values.data_type)


def folded(array: Any) -> Value:
    """Return the value of a constant that the reader computed."""
    from onnx import helper

    array = np.asarray(array)
    return Value(array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), data=array)


def constant_node(attrs: Mapping[str, Any]) -> Value:
    """Return the value of a ``Constant`` operator, from any of the attributes that may hold it.

    Raises:
        ReaderError: none of its attributes holds a value.
    """
    for name, value in attrs.items():
        if name == "value":
            return weights(value)
        if name == "sparse_value":
            return sparse_weights(value)
        if name in ("value_float", "value_floats"):
            return folded(np.array(value, np.float32))
        if name in ("value_int", "value_ints"):
            return folded(np.array(value, np.int64))
        if name in ("value_string", "value_strings"):
            return folded(np.array(value, object))
    raise ReaderError("a Constant without a value")


def _checked(shape: Shape, name: str) -> Shape:
    if len(shape) > MAX_RANK:
        raise ReaderError(f"tensor {name!r} has {len(shape)} dimensions; the maximum is {MAX_RANK}")
    if any(size < 0 for size in shape):
        raise ReaderError(f"tensor {name!r} has the shape {shape}, with a negative size")
    return shape


def attributes(node: NodeProto, caller: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of ``node`` by name: numbers, strings, lists of these, tensors or graphs.

    Args:
        node: the operator.
        caller: if ``node`` is in a local function, the attributes of the operator that calls the function;
            ``node`` may refer to them.
    """
    found = {}
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            found[attribute.name] = _attribute(attribute)
        elif attribute.ref_attr_name in caller:
            found[attribute.name] = caller[attribute.ref_attr_name]
    return found


def _attribute(attribute: AttributeProto) -> Any:
    from onnx import helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if attribute.type == attribute.STRINGS:
        return [item.decode() for item in value]
    return list(value) if attribute.type in (attribute.INTS, attribute.FLOATS) else value


def function_attributes(function: Any, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a local function's default attributes, overridden by the ``attrs`` of the call."""
    return {a.name: _attribute(a) for a in function.attribute_proto} | dict(attrs)
