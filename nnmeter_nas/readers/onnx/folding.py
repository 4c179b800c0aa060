"""Constant folding of shape arithmetic in ONNX graphs: a table with one NumPy expression per operator.

Operands are small arrays. A result larger than :data:`~nnmeter_nas.readers.onnx.values.MAX_ELEMENTS` is never
computed; its operator stays unfolded.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..entries import fills
from .values import Array, is_small


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """One operator on small constants.

    Attributes:
        inputs: the operator's inputs; None for a missing optional input.
        attrs: the operator's attributes.
        outputs: number of outputs.
    """

    inputs: Sequence[Array | None]
    attrs: Mapping[str, Any]
    outputs: int

    def __getitem__(self, index: int) -> Array:
        """Return input ``index``, which is required."""
        value = self.inputs[index]
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    def ints(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """Return integers that are an attribute in older opsets and an input in newer ones."""
        if attribute in self.attrs:
            return tuple(int(i) for i in self.attrs[attribute])
        given = self.inputs[index] if index < len(self.inputs) else None
        return None if given is None else tuple(int(i) for i in given.reshape(-1))


Folding = Callable[[Arithmetic], "Array | list[Array] | None"]

FOLDINGS: dict[str, Folding] = {}
onnx_op = fills(FOLDINGS)


def fold(op: str, arithmetic: Arithmetic) -> list[Array] | None:
    """Return the outputs of ``op``, or None if it has no folding or its result is too large.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: the inputs or attributes are malformed.
    """
    folding = FOLDINGS.get(op)
    with np.errstate(all="ignore"):
        result = folding(arithmetic) if folding else None
    if result is None:
        return None
    return result if isinstance(result, list) else [np.asarray(result)]


def _elementwise(
    function: Callable[..., Any], keeps_type: bool = True
) -> Callable[[Arithmetic], Array | None]:
    """Make a folding that applies ``function`` to all inputs, with broadcasting."""

    def folding(a: Arithmetic) -> Array | None:
        arrays = [a[i] for i in range(len(a.inputs))]
        if not is_small(np.broadcast_shapes(*(array.shape for array in arrays))):
            return None
        result = np.asarray(function(*arrays))
        return result.astype(arrays[0].dtype) if keeps_type else result

    return folding


def _variadic(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Turn a function of two arguments into one of any number."""
    return lambda first, *others: functools.reduce(function, others, first)


def _divide(left: Array, right: Array) -> Any:
    """Divide; integer division truncates towards zero."""
    return np.trunc(left / right) if left.dtype.kind in "iu" else left / right


FOLDINGS |= {
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Pow": _elementwise(np.power),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Sign": _elementwise(np.sign),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "Round": _elementwise(np.round),
    "Sqrt": _elementwise(np.sqrt),
    "Exp": _elementwise(np.exp),
    "Log": _elementwise(np.log),
    "Reciprocal": _elementwise(np.reciprocal),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Xor": _elementwise(np.logical_xor),
    "Not": _elementwise(np.logical_not),
    "Equal": _elementwise(np.equal, keeps_type=False),
    "Less": _elementwise(np.less, keeps_type=False),
    "LessOrEqual": _elementwise(np.less_equal, keeps_type=False),
    "Greater": _elementwise(np.greater, keeps_type=False),
    "GreaterOrEqual": _elementwise(np.greater_equal, keeps_type=False),
    "Min": _elementwise(_variadic(np.minimum)),
    "Max": _elementwise(_variadic(np.maximum)),
    "Sum": _elementwise(_variadic(np.add)),
}


@onnx_op("Mod")
def _mod(a: Arithmetic) -> Array | None:
    """The result has the divisor's sign, or with ``fmod`` the dividend's."""
    return _elementwise(np.fmod if a.attrs.get("fmod") else np.mod)(a)


@onnx_op("Identity", "Dropout")
def _identity(a: Arithmetic) -> Array:
    return a[0]


@onnx_op("CastLike")
def _cast_like(a: Arithmetic) -> Array:
    return a[0].astype(a[1].dtype)


@onnx_op("Cast")
def _cast(a: Arithmetic) -> Array:
    from onnx import helper

    return a[0].astype(helper.tensor_dtype_to_np_dtype(a.attrs["to"]))


@onnx_op("Where")
def _where(a: Arithmetic) -> Array | None:
    small = is_small(np.broadcast_shapes(a[0].shape, a[1].shape, a[2].shape))
    return np.where(a[0], a[1], a[2]) if small else None


@onnx_op("Range")
def _range(a: Arithmetic) -> Array | None:
    start, limit, step = (a[i].reshape(()) for i in range(3))
    length = max(math.ceil((limit.item() - start.item()) / step.item()), 0)
    return start + np.arange(length, dtype=start.dtype) * step if is_small((length,)) else None


@onnx_op("Gather")
def _gather(a: Arithmetic) -> Array | None:
    axis = a.attrs.get("axis", 0)
    picked = a[1].size * (a[0].size // max(a[0].shape[axis], 1))
    return np.take(a[0], a[1].astype(np.int64), axis=axis) if is_small((picked,)) else None


@onnx_op("Concat")
def _concat(a: Arithmetic) -> Array | None:
    arrays = [a[i] for i in range(len(a.inputs))]
    small = is_small((sum(array.size for array in arrays),))
    return np.concatenate(arrays, axis=a.attrs["axis"]) if small else None


@onnx_op("Split")
def _split(a: Arithmetic) -> list[Array]:
    axis = a.attrs.get("axis", 0)
    sizes = a.ints("split", 1) or split_evenly(a[0].shape[axis], a.outputs)
    return np.split(a[0], np.cumsum(sizes)[:-1], axis=axis)


def split_evenly(size: int, parts: int) -> list[int]:
    """Split ``size`` into ``parts`` equal pieces and return their sizes; the last may be smaller.

    >>> split_evenly(7, 3)
    [3, 3, 1]
    """
    piece = -(-size // parts)
    return [piece] * (parts - 1) + [size - piece * (parts - 1)]


@onnx_op("Slice")
def _slice(a: Arithmetic) -> Array:
    cuts = [slice(None)] * a[0].ndim
    bounds = (a.ints(name, index) for index, name in enumerate(("starts", "ends", "axes", "steps"), 1))
    for axis, cut in slices(*bounds):
        cuts[axis] = cut
    return a[0][tuple(cuts)]


def slices(
    starts: Sequence[int] | None,
    ends: Sequence[int] | None,
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> list[tuple[int, slice]]:
    """Return the axes that a ``Slice`` cuts, each with its Python slice; ONNX's bounds work like Python's.

    Raises:
        ValueError: the lists differ in length, or ``starts`` or ``ends`` is missing.
    """
    if starts is None or ends is None:
        raise ValueError("starts or ends is missing")
    cuts = map(slice, starts, ends, steps or [1] * len(starts))
    return list(zip(axes or range(len(starts)), cuts, strict=True))


@onnx_op("Reshape")
def _reshape(a: Arithmetic) -> Array:
    target, keeps_zeros = a.ints("shape", 1) or (), a.attrs.get("allowzero")
    return a[0].reshape([a[0].shape[i] if d == 0 and not keeps_zeros else d for i, d in enumerate(target)])


@onnx_op("Flatten")
def _flatten(a: Arithmetic) -> Array:
    lead = a[0].shape[: a.attrs.get("axis", 1)]
    return a[0].reshape(math.prod(lead), -1)


@onnx_op("Squeeze")
def _squeeze(a: Arithmetic) -> Array:
    return np.squeeze(a[0], axis=a.ints("axes", 1))


@onnx_op("Unsqueeze")
def _unsqueeze(a: Arithmetic) -> Array:
    return np.expand_dims(a[0], a.ints("axes", 1) or ())


@onnx_op("Transpose")
def _transpose(a: Arithmetic) -> Array:
    return np.transpose(a[0], a.attrs.get("perm"))


@onnx_op("Expand")
def _expand(a: Arithmetic) -> Array | None:
    shape = np.broadcast_shapes(a[0].shape, a.ints("shape", 1) or ())
    return np.broadcast_to(a[0], shape).copy() if is_small(shape) else None


@onnx_op("Tile")
def _tile(a: Arithmetic) -> Array | None:
    repeats = a.ints("repeats", 1) or ()
    return np.tile(a[0], repeats) if is_small((a[0].size * math.prod(repeats),)) else None


@onnx_op("Clip")
def _clip(a: Arithmetic) -> Array:
    limits = enumerate(("min", "max"), 1)
    low, high = (a.inputs[i] if i < len(a.inputs) else a.attrs.get(name) for i, name in limits)
    return a[0] if low is None and high is None else np.clip(a[0], low, high).astype(a[0].dtype)


@onnx_op("NonZero")
def _non_zero(a: Arithmetic) -> Array:
    return np.array(np.nonzero(np.atleast_1d(a[0])), np.int64)


@onnx_op("ScatterND")
def _scatter(a: Arithmetic) -> Array | None:
    """Exporters write assignments to elements of a shape this way."""
    if a.attrs.get("reduction", "none") != "none":
        return None
    result = a[0].copy()
    result[tuple(np.moveaxis(a[1], -1, 0))] = a[2]
    return result


def _reduction(function: Callable[..., Any]) -> Folding:
    """Make a folding that applies ``function`` over the given axes, by default all."""

    def folding(a: Arithmetic) -> Array:
        axes, keepdims = a.ints("axes", 1) or None, bool(a.attrs.get("keepdims", 1))
        if axes is None and a.attrs.get("noop_with_empty_axes"):
            return a[0]
        return np.asarray(function(a[0], axis=axes, keepdims=keepdims)).astype(a[0].dtype)

    return folding


FOLDINGS |= {
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceMin": _reduction(np.min),
    "ReduceMax": _reduction(np.max),
    "ReduceMean": _reduction(np.mean),
}
