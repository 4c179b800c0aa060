"""Convert shapes, axes and permutations between NHWC, as in TensorFlow and nn-Meter IR, and NCHW.

Further axes beside the channels are split channels, and move with them. A tensor of fewer than four axes is
no feature map, and keeps its order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph.shapes import Shape

#: Rank of a feature map: batch, channels, height and width.
MAP_RANK = 4


def to_nchw(shape: Sequence[int]) -> Shape:
    """Convert a shape from NHWC to NCHW.

    >>> to_nchw([1, 28, 28, 2, 58]), to_nchw([1, 1000])
    ((1, 2, 58, 28, 28), (1, 1000))
    """
    shape = tuple(int(d) for d in shape)
    return shape if len(shape) < MAP_RANK else (shape[0], *shape[3:], *shape[1:3])


def to_nhwc(shape: Sequence[int]) -> list[int]:
    """Convert a shape from NCHW to NHWC.

    >>> to_nhwc((1, 2, 58, 28, 28)), to_nhwc((1, 1000))
    ([1, 28, 28, 2, 58], [1, 1000])
    """
    return list(shape) if len(shape) < MAP_RANK else [shape[0], *shape[-2:], *shape[1:-2]]


def axis_to_nchw(axis: int, rank: int) -> int:
    """Convert an axis of a tensor of ``rank``; it may be counted from the end."""
    return to_nchw(range(rank)).index(axis % rank)


def axis_to_nhwc(axis: int, rank: int) -> int:
    """Convert an axis of a tensor of ``rank``; it may be counted from the end."""
    return to_nhwc(range(rank)).index(axis % rank)


def perm_to_nchw(perm: Sequence[int]) -> Shape:
    """Convert the permutation of a transpose."""
    order = to_nchw(range(len(perm)))
    return tuple(order.index(perm[axis]) for axis in order)


def perm_to_nhwc(perm: Sequence[int]) -> list[int]:
    """Convert the permutation of a transpose."""
    order = to_nhwc(range(len(perm)))
    return [order.index(perm[axis]) for axis in order]
