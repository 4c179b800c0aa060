"""Kernels on a batch that the model itself makes, such as the frames of a clip or windows of a map.

Packs are measured at batch 1. The items of a batch are priced as one item whose map is as many times larger:
the same work in one launch.
"""

from __future__ import annotations

from dataclasses import replace

from .fusion import Kernel
from .work import declared_work


def has_batch(kernel: Kernel) -> bool:
    """Whether any tensor of ``kernel`` holds more than one item."""
    return any(shape[0] != 1 for shape in (*kernel.in_shapes, *kernel.out_shapes) if shape)


def as_one_item(kernel: Kernel) -> Kernel:
    """``kernel`` with its batch moved into the map; the kernel itself if it has no batch.

    It also stays itself if its work would change, since then the first size is no batch: heads of an
    attention, or the steps of a recurrent layer.
    """
    if not has_batch(kernel):
        return kernel
    moved = replace(
        kernel,
        in_shapes=[_one_item(shape, kernel.op) for shape in kernel.in_shapes],
        out_shapes=[_one_item(shape, kernel.op) for shape in kernel.out_shapes],
    )
    return moved if declared_work(moved) == declared_work(kernel) else kernel


def _one_item(shape: tuple[int, ...], op: str) -> tuple[int, ...]:
    """``shape`` with its first size as positions: before the features of a dense layer, else in the map.

    >>> _one_item((8, 32, 64, 64), "conv"), _one_item((196, 1, 64), "fc"), _one_item((4, 10), "fc")
    ((1, 32, 512, 64), (1, 196, 1, 64), (1, 4, 10))
    """
    if shape[:1] == (1,):
        return shape
    if op == "fc" or len(shape) < 2:
        return (1, *shape)
    items, channels, *spatial = shape
    height, *rest = spatial or [1]
    return (1, channels, items * height, *rest)
