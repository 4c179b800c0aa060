"""Kernel types and the configuration of a kernel: all that a kernel predictor sees of it.

A configuration is a row of plain numbers in the order of :data:`COLUMNS`. Equal rows are equal
kernels, so predictors evaluate each distinct row once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..ops import kernel_of
from .fusion import Kernel

#: Kernel types that predictors know, by position in the ``type`` column.
KERNEL_TYPES = (
    "conv",
    "dwconv",
    "fc",
    "bn",
    "relu",
    "hswish",
    "se",
    "add",
    "concat",
    "split",
    "channelshuffle",
    "maxpool",
    "avgpool",
    "globalavgpool",
)
#: What nn-Meter's rules call a global average pool.
_GAP = "gap"
#: Columns of a configuration. Sizes in elements; a missing spatial dimension counts as 1; ``operands``
#: is how many tensors are read; ``joined_*`` count operators fused behind the head; ``squeezed`` is the
#: inner width of squeeze-excite.
COLUMNS = (
    "type",
    "cin",
    "hin",
    "win",
    "cout",
    "hout",
    "wout",
    "kh",
    "kw",
    "sh",
    "sw",
    "dilation",
    "groups",
    "operands",
    "joined_relu",
    "joined_add",
    "joined_other",
    "squeezed",
)
COLUMN = {name: i for i, name in enumerate(COLUMNS)}

Configuration = tuple[float, ...]
FloatArray = npt.NDArray[np.float64]


def kernel_type(kernel: Kernel) -> str | None:
    """Kernel type by which ``kernel`` is predicted; None if no predictor knows its head operator."""
    name = "globalavgpool" if kernel.op == _GAP else kernel_of(kernel.op)
    return name if name in KERNEL_TYPES else None


def configuration(kernel: Kernel) -> Configuration:
    """The row of :data:`COLUMNS` for a kernel whose :func:`kernel_type` is known."""
    name = kernel_type(kernel)
    assert name is not None
    cin, hin, win = _channels_and_map(kernel.in_shapes[0])
    cout, hout, wout = _channels_and_map(kernel.out_shapes[0])
    if name == "concat":
        cin = sum(_channels_and_map(shape)[0] for shape in kernel.in_shapes)
    if name == "split":
        cout = cin
    if name == "fc":
        cin, hin, win = _features_and_map(kernel.in_shapes[0])
        cout, hout, wout = _features_and_map(kernel.out_shapes[0])
    kh, kw = _pair(kernel.attrs.get("kernel"))
    sh, sw = _pair(kernel.attrs.get("stride"))
    if name == "globalavgpool":
        kh, kw, sh, sw = hin, win, 1, 1
    joined = [kernel_of(j) for j in kernel.joined]
    relu, add = joined.count("relu"), joined.count("add")
    folded = joined.count("bn") if name in ("conv", "dwconv", "fc") else 0
    groups = kernel.attrs.get("groups", 1) if name == "conv" else 1
    return (
        KERNEL_TYPES.index(name),
        cin,
        hin,
        win,
        cout,
        hout,
        wout,
        kh,
        kw,
        sh,
        sw,
        math.prod(kernel.attrs.get("dilation") or (1,)),
        groups,
        len(kernel.in_shapes),
        relu,
        add,
        len(joined) - relu - add - folded,
        kernel.attrs.get("squeezed", 0),
    )


def _channels_and_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of an NCHW tensor; lower ranks fill up with ones."""
    channels = shape[1] if len(shape) > 1 else 1
    height, width = (shape[2] if len(shape) > 2 else 1), math.prod(shape[3:])
    return channels, height, width


def _features_and_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Features of a dense layer's tensor, which are last, and the positions that it works on."""
    return shape[-1], math.prod(shape[1:-1]), 1


def _pair(value: tuple[int, ...] | None) -> tuple[int, int]:
    if not value:
        return 1, 1
    return value[0], math.prod(value[1:])


@dataclass(frozen=True)
class KernelWork:
    """Work of ``n`` configurations, each ``[n]``: multiply-adds, values read and written, weights.

    Pools count one operation a window element, element-wise kernels and data movement one a value.
    """

    macs: FloatArray
    read: FloatArray
    written: FloatArray
    weights: FloatArray


def kernel_work(rows: FloatArray) -> KernelWork:
    """Work of configurations ``rows [n, COLUMNS]``; ``read`` counts one operand."""
    c = {name: rows[:, i] for name, i in COLUMN.items()}
    kinds = c["type"].astype(int)
    window, inner = c["kh"] * c["kw"], c["cin"] / c["groups"]
    written = c["cout"] * c["hout"] * c["wout"]
    squeeze = 2 * c["cin"] * c["squeezed"]
    per_value, weights = np.ones(len(rows)), np.zeros(len(rows))
    for name, operations, parameters in (
        ("conv", window * inner, window * inner * c["cout"]),
        ("dwconv", window, window * c["cout"]),
        ("fc", c["cin"], c["cin"] * c["cout"]),
        ("se", 1.0, squeeze),
        ("maxpool", window, 0.0),
        ("avgpool", window, 0.0),
        ("globalavgpool", window, 0.0),
    ):
        mask = kinds == KERNEL_TYPES.index(name)
        per_value = np.where(mask, operations, per_value)
        weights = np.where(mask, parameters, weights)
    macs = written * per_value + np.where(kinds == KERNEL_TYPES.index("se"), squeeze, 0.0)
    return KernelWork(macs, c["cin"] * c["hin"] * c["win"], written, weights)
