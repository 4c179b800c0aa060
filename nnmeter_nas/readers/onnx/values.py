"""What the tensors and attributes of an ONNX graph hold: a computed operand, weights, or a small constant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ReaderError
from ...graph.shapes import Shape

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto, SparseTensorProto, TensorProto

Operand = tuple[str, int]
Array = npt.NDArray[Any]

#: Constants of more elements than this are weights: their shape counts, their values are never looked at.
MAX_ELEMENTS = 1024
#: No tensor of a real model has more dimensions, nor has an array of NumPy.
MAX_RANK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor of an ONNX graph.

    Attributes:
        shape: its shape; None if that depends on data.
        elem_type: ONNX's number of its element type.
        operand: what computes it in the model graph; None for weights and constants.
        tensor: the initializer that holds it.
        data: its values, where they are a small constant that was folded.
        zero: whether a constant without ``data`` is known to hold zeros.
        read_once: whether one operator reads it, and the model does not hand it out.
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
        """Whether no operator of the model graph computes it."""
        return self.operand is None

    @property
    def rank(self) -> int:
        """Number of dimensions of a tensor whose shape is known."""
        assert self.shape is not None
        return len(self.shape)

    @property
    def is_external(self) -> bool:
        """Whether its values are stored outside the model."""
        return self.tensor is not None and self.tensor.data_location == self.tensor.EXTERNAL

    def numbers(self) -> Array | None:
        """Its values if it is a small constant inside the model, else None.

        Raises:
            ReaderError: its values are not what its shape says.
        """
        if self.data is not None or self.tensor is None or self.is_external or not is_small(self.shape):
            return self.data
        from onnx import numpy_helper

        try:
            return numpy_helper.to_array(self.tensor)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ReaderError(f"tensor {self.tensor.name!r} is malformed: {error}") from error

    def holds_zeros(self) -> bool:
        """Whether it is a constant of nothing but zeros, as far as the model itself tells."""
        numbers = self.numbers()
        if numbers is not None:
            return numbers.dtype != object and not numbers.any()
        raw = self.tensor.raw_data if self.tensor is not None else b""
        return self.zero or (bool(raw) and raw.count(0) == len(raw))


def is_small(shape: Shape | None) -> bool:
    """Whether a tensor of ``shape`` is small enough to be folded."""
    return shape is not None and math.prod(shape) <= MAX_ELEMENTS


def weights(tensor: TensorProto) -> Value:
    """The value of an initializer.

    Raises:
        ReaderError: it has a negative size, or too many dimensions.
    """
    return Value(_checked(tuple(tensor.dims), tensor.name), tensor.data_type, tensor=tensor)


def sparse_weights(tensor: SparseTensorProto) -> Value:
    """The value of a sparse constant, of which only the shape is known.

    Raises:
        ReaderError: it has a negative size, or too many dimensions.
    """
    return Value(_checked(tuple(tensor.dims), tensor.values.name), tensor.values.data_type)


def folded(array: Any) -> Value:
    """The value of a constant that was computed while reading."""
    from onnx import helper

    array = np.asarray(array)
    return Value(array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), data=array)


def constant_node(attrs: Mapping[str, Any]) -> Value:
    """The value of a ``Constant`` operator, by whichever of its attributes holds it.

    Raises:
        ReaderError: none does.
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
        raise ReaderError(f"tensor {name!r} has {len(shape)} dimensions, and {MAX_RANK} is the most")
    if any(size < 0 for size in shape):
        raise ReaderError(f"tensor {name!r} has the shape {shape}, with a negative size")
    return shape


def attributes(node: NodeProto, caller: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of ``node`` by name: numbers, text, lists of them, tensors or graphs.

    Args:
        node: the operator.
        caller: attributes of the operator whose local function ``node`` is part of, for references to them.
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
    """What ``attrs`` of a call mean inside a local function: its defaults, overridden by them."""
    return {a.name: _attribute(a) for a in function.attribute_proto} | dict(attrs)
