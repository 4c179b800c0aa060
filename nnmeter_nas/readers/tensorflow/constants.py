"""Constant folding in TensorFlow graphs.

Graphs compute shapes with operators (``Shape``, ``StridedSlice``, ``Pack``, ...) on a few integers. NumPy
evaluates these. Weights are never decoded, and large results are never computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ReaderError
from ...graph.shapes import Shape
from ..entries import fills
from .nodes import TfNode

Values = npt.NDArray[Any]
Fold = Callable[[TfNode, list[Values]], "Values | list[Values]"]

#: TensorFlow counts elements with 64 bits.
MAX_ELEMENTS = 2**63 - 1
#: Larger constants are weights.
MAX_VALUES = 256
#: Operators with more operand values in total are not folded.
_MAX_OPERANDS = 4096
#: Bit masks of ``StridedSlice``. Each is an attribute ``<name>_mask``.
SLICE_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
#: NumPy's limit on the number of dimensions.
MAX_RANK = 64
_HALF, _BFLOAT16 = 19, 14
#: DataType number -> element type in ``tensor_content``, and the field that may list the values instead.
_TYPES = {
    1: ("<f4", "float_val"), 2: ("<f8", "double_val"), 3: ("<i4", "int_val"), 4: ("u1", "int_val"),
    5: ("<i2", "int_val"), 6: ("i1", "int_val"), 9: ("<i8", "int64_val"), 10: ("?", "bool_val"),
    _BFLOAT16: ("<u2", "half_val"), 17: ("<u2", "int_val"), _HALF: ("<u2", "half_val"),
    22: ("<u4", "uint32_val"), 23: ("<u8", "uint64_val"),
}  # fmt: skip

FOLDS: dict[str, Fold] = {}
fold = fills(FOLDS)


class _TooLargeError(Exception):
    """The result would hold more than :data:`MAX_VALUES` values."""


def static_shape(proto: Any) -> Shape | None:
    """Return the shape in a ``TensorShapeProto``. Unknown sizes are -1; an unknown rank gives None.

    Raises:
        ReaderError: the shape has too many dimensions or elements.
    """
    if proto.unknown_rank:
        return None
    if len(proto.dim) > MAX_RANK:
        raise ReaderError(f"a shape has {len(proto.dim)} dimensions; the maximum is {MAX_RANK}")
    shape = tuple(int(dim.size) for dim in proto.dim)
    if math.prod(map(abs, shape)) > MAX_ELEMENTS:
        raise ReaderError(f"shape {shape} is larger than any tensor can be")
    return shape


def decoded(proto: Any) -> Values | None:
    """Return the values of a ``TensorProto`` as int64, float64 or bool; None if it is large or not numeric.

    Raises:
        ReaderError: the content does not match the shape.
    """
    shape = static_shape(proto.tensor_shape)
    if shape is None or any(size < 0 for size in shape):
        raise ReaderError(f"a constant has the unknown shape {shape}")
    count = math.prod(shape)
    if count > MAX_VALUES or proto.dtype not in _TYPES:
        return None
    dtype, field = _TYPES[proto.dtype]
    if proto.tensor_content:
        if len(proto.tensor_content) != count * np.dtype(dtype).itemsize:
            raise ReaderError(f"a constant of shape {shape} holds {len(proto.tensor_content)} bytes")
        flat = np.frombuffer(proto.tensor_content, dtype)
    else:
        listed = getattr(proto, field)
        if len(listed) > count:
            raise ReaderError(f"a constant of shape {shape} holds {len(listed)} values")
        # TensorFlow lists a repeated last value once, and leaves out zeros.
        flat = np.array([*listed, *[listed[-1] if listed else 0] * (count - len(listed))]).astype(dtype)
    return _widened(flat, proto.dtype).reshape(shape)


def _widened(flat: Values, data_type: int) -> Values:
    if data_type == _HALF:
        flat = flat.view("<f2")
    elif data_type == _BFLOAT16:
        flat = (flat.astype("<u4") << 16).view("<f4")
    return flat if flat.dtype.kind == "b" else flat.astype(np.float64 if flat.dtype.kind == "f" else np.int64)


def folded(node: TfNode, values: list[Values]) -> list[Values] | None:
    """Evaluate ``node`` on known ``values``; None if it has no folding or its result is too large."""
    evaluate = FOLDS.get(node.op)
    if evaluate is None or sum(value.size for value in values) > _MAX_OPERANDS:
        return None
    try:
        with np.errstate(all="ignore"):
            results = evaluate(node, values)
    except _TooLargeError:
        return None
    return results if isinstance(results, list) else [np.asarray(results)]


_BINARY: dict[str, Callable[[Values, Values], Values]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "FloorDiv": np.floor_divide,
    "RealDiv": np.true_divide, "FloorMod": np.mod, "Mod": np.fmod, "Maximum": np.maximum,
    "Minimum": np.minimum, "Pow": np.power, "Equal": np.equal, "NotEqual": np.not_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal, "Less": np.less, "LessEqual": np.less_equal,
    "LogicalAnd": np.logical_and, "LogicalOr": np.logical_or,
}  # fmt: skip


@fold(*_BINARY)
def _binary(node: TfNode, values: list[Values]) -> Values:
    left, right = values
    _refuse_large(np.broadcast_shapes(left.shape, right.shape))
    return _BINARY[node.op](left, right)


def _refuse_large(shape: Sequence[int]) -> None:
    """Raise before computing a result of ``shape`` if it is too large."""
    if math.prod(max(size, 1) for size in shape) > MAX_VALUES:
        raise _TooLargeError


@fold("Div", "TruncateDiv")
def _div(node: TfNode, values: list[Values]) -> Values:
    """Divide; integer division truncates towards zero."""
    _refuse_large(np.broadcast_shapes(*(value.shape for value in values)))
    quotient = np.true_divide(*values)
    return quotient if values[0].dtype.kind == "f" else np.trunc(quotient).astype(np.int64)


_UNARY: dict[str, Callable[[Values], Values]] = {
    "Neg": np.negative, "Ceil": np.ceil, "Floor": np.floor, "Round": np.rint, "Sqrt": np.sqrt,
    "Square": np.square, "Abs": np.abs, "LogicalNot": np.logical_not, "ZerosLike": np.zeros_like,
    "OnesLike": np.ones_like,
}  # fmt: skip


@fold(*_UNARY)
def _unary(node: TfNode, values: list[Values]) -> Values:
    [value] = values
    return _UNARY[node.op](value)


_REDUCTIONS: dict[str, Callable[..., Values]] = {
    "Prod": np.prod, "Sum": np.sum, "Max": np.max, "Min": np.min, "All": np.all, "Any": np.any,
    "Mean": np.mean,
}  # fmt: skip


@fold(*_REDUCTIONS)
def _reduction(node: TfNode, values: list[Values]) -> Values:
    value, axes = values
    keep = node.flag("keep_dims")
    return _REDUCTIONS[node.op](value, axis=tuple(int(a) for a in axes.ravel()), keepdims=keep)


@fold("Cast")
def _cast(node: TfNode, values: list[Values]) -> Values:
    """Cast to float64, bool or int64, by the target type. Unknown target types count as float64."""
    target = _TYPES.get(node.value("DstT", "type") or 0, ("<f8", ""))[0]
    floating = target == "<f8" or node.value("DstT", "type") in (1, _HALF, _BFLOAT16)
    return values[0].astype(np.float64 if floating else bool if target == "?" else np.int64)


@fold("Pack")
def _pack(node: TfNode, values: list[Values]) -> Values:
    return np.stack(values, axis=node.integer("axis"))


@fold("Unpack")
def _unpack(node: TfNode, values: list[Values]) -> list[Values]:
    return list(np.moveaxis(values[0], node.integer("axis"), 0))


@fold("ConcatV2")
def _concat(node: TfNode, values: list[Values]) -> Values:
    return np.concatenate(values[:-1], axis=int(values[-1]))


@fold("Concat")
def _concat_axis_first(node: TfNode, values: list[Values]) -> Values:
    return np.concatenate(values[1:], axis=int(values[0]))


@fold("Reshape")
def _reshape(node: TfNode, values: list[Values]) -> Values:
    return values[0].reshape(whole(values[1]))


@fold("Squeeze")
def _squeeze(node: TfNode, values: list[Values]) -> Values:
    axes = tuple(node.integers("squeeze_dims"))
    return np.squeeze(values[0], axes or None)


@fold("ExpandDims")
def _expand_dims(node: TfNode, values: list[Values]) -> Values:
    return np.expand_dims(values[0], int(values[1].ravel()[0]))


@fold("Transpose")
def _transpose(node: TfNode, values: list[Values]) -> Values:
    return np.transpose(values[0], whole(values[1]))


@fold("Gather", "GatherV2")
def _gather(node: TfNode, values: list[Values]) -> Values:
    return np.take(values[0], values[1], axis=int(values[2]) if len(values) > 2 else 0)


@fold("Slice")
def _slice(node: TfNode, values: list[Values]) -> Values:
    value, begin, size = values
    stop = [None if s == -1 else b + s for b, s in zip(whole(begin), whole(size), strict=True)]
    return value[tuple(slice(b, e) for b, e in zip(whole(begin), stop, strict=True))]


@fold("StridedSlice")
def _strided_slice(node: TfNode, values: list[Values]) -> Values:
    value, begin, end, strides = values
    index: list[Any] = []
    for i, (start, stop, step) in enumerate(zip(whole(begin), whole(end), whole(strides), strict=True)):
        masked = {key: bool(node.integer(f"{key}_mask") >> i & 1) for key in SLICE_MASKS}
        if masked["ellipsis"]:
            index.append(...)
        elif masked["new_axis"]:
            index.append(None)
        elif masked["shrink_axis"]:
            index.append(start)
        else:
            index.append(slice(None if masked["begin"] else start, None if masked["end"] else stop, step))
    return value[tuple(index)]


@fold("Split")
def _split(node: TfNode, values: list[Values]) -> list[Values]:
    return np.split(values[1], min(node.integer("num_split", 1), MAX_VALUES + 1), axis=int(values[0]))


@fold("Select", "SelectV2")
def _select(node: TfNode, values: list[Values]) -> Values:
    condition, yes, no = values
    _refuse_large(np.broadcast_shapes(*(value.shape for value in values)))
    return np.where(condition, yes, no)


@fold("Fill")
def _fill(node: TfNode, values: list[Values]) -> Values:
    shape = whole(values[0])
    _refuse_large(shape)
    return np.full(shape, values[1])


@fold("Range")
def _range(node: TfNode, values: list[Values]) -> Values:
    start, limit, delta = (value.item() for value in values)
    if abs(limit - start) > MAX_VALUES * abs(delta):
        raise _TooLargeError
    return np.arange(start, limit, delta)


@fold("Tile")
def _tile(node: TfNode, values: list[Values]) -> Values:
    multiples = whole(values[1])
    _refuse_large([*multiples, values[0].size])
    return np.tile(values[0], multiples)


def whole(values: Values) -> Sequence[int]:
    """Flatten ``values`` into a list of Python integers."""
    return [int(v) for v in values.ravel()]
