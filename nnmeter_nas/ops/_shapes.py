"""Helpers for shape rules: axes, broadcasting and sliding windows."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ..errors import ShapeError
from ._registry import Shape

#: Padding of a window: "same" as in TensorFlow (``ceil(in / stride)``), "valid" (none), or
#: ``(before, after)`` for each spatial dimension.
Padding = Literal["same", "valid"] | Sequence[tuple[int, int]]


def only(shapes: list[Shape]) -> Shape:
    """Shape of the only operand; a ShapeError if there are none or several."""
    if len(shapes) != 1:
        raise ShapeError(f"takes one operand, got {len(shapes)}")
    return shapes[0]


def axis_of(axis: int, rank: int) -> int:
    """``axis`` counted from the front; a ShapeError if there is no such axis."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} does not exist in a tensor of {rank} dimensions")
    return axis % rank


def are_sizes(values: Iterable[Any]) -> bool:
    """Whether all ``values`` are positive whole numbers."""
    # Nearly every size is a plain int, and isinstance with an abstract class takes ten times as long.
    return all([(type(v) is int or isinstance(v, numbers.Integral)) and int(v) > 0 for v in values])


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Broadcast ``shapes`` together by NumPy's rule; a ShapeError if they do not fit.

    >>> broadcast([(1, 8, 7, 7), (8, 1, 1)])
    (1, 8, 7, 7)
    """
    if not shapes:
        raise ShapeError("takes at least one operand")
    rank = max(len(s) for s in shapes)
    aligned = [(1,) * (rank - len(s)) + s for s in shapes]
    out = tuple(max(dims) for dims in zip(*aligned, strict=True))
    for shape in aligned:
        if any(d not in (1, o) for d, o in zip(shape, out, strict=True)):
            raise ShapeError(f"operand shapes {list(shapes)} do not broadcast")
    return out


def window_out(size: int, kernel: int, stride: int, padding: Padding, axis: int,
               dilation: int = 1, ceil_mode: bool = False) -> int:
    """Output length of a sliding window along one spatial dimension.

    ``(size + pads - dilation * (kernel - 1) - 1) // stride + 1``, rounded up in ``ceil_mode``.

    >>> window_out(224, 3, 2, "same", 0), window_out(224, 7, 2, [(3, 3)], 0)
    (112, 112)
    """
    if padding == "same":
        return -(-size // stride)
    before, after = (0, 0) if padding == "valid" else padding[axis]
    room = size + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # As in PyTorch and ONNX, a window may not start in the padding after the map.
    return out - 1 if (out - 1) * stride >= size + before else out


def spatial_attrs(attrs: dict[str, Any], rank: int) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and dilation as tuples of length ``rank``; a ShapeError if they do not fit."""
    ones = (1,) * rank
    kernel, stride = tuple(attrs["kernel"]), tuple(attrs.get("stride") or ones)
    dilation = tuple(attrs.get("dilation") or ones)
    if not len(kernel) == len(stride) == len(dilation) == rank or not are_sizes(kernel + stride + dilation):
        raise ShapeError(
            f"kernel={kernel}, stride={stride} and dilation={dilation} do not fit a map of {rank} spatial "
            "dimension(s)"
        )
    return kernel, stride, dilation


def check_channels(attrs: dict[str, Any], channels: int) -> None:
    """Raise a ShapeError if the weights expect a different number of input channels."""
    if attrs.get("in_channels", channels) != channels:
        raise ShapeError(f"its weights take {attrs['in_channels']} channels, its input has {channels}")
