"""What version-2 kernel predictors see of a configuration: base terms and descriptors.

A kernel's latency is ``sum_j w_j(kind) * term_j * exp(correction(descriptors))``. Terms are amounts of
work (operations, values moved, launches) that grow with every size, so the sum extrapolates;
descriptors are logarithms of sizes and of the waste that vector widths and tiles cause, and the bounded
correction that reads them only shades the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import COLUMN, KERNEL_TYPES, FloatArray, kernel_work

#: Kernel types, then the variants of them that runtimes give an algorithm of their own:
#: 1x1 convolution (plain GEMM), 3x3 at stride 1 (Winograd), few input channels, depthwise at stride 1.
KINDS = (*KERNEL_TYPES, "conv_1x1", "conv_3x3_s1", "conv_stem", "dwconv_s1")
#: Kinds that share their base weights until the data says otherwise, which is what a kind takes over
#: that the data lacks.
GROUPS = (
    ("conv", "fc", "se", "conv_1x1", "conv_3x3_s1", "conv_stem"),
    ("dwconv", "dwconv_s1"),
    ("bn", "relu", "hswish", "add", "concat", "split", "channelshuffle"),
    ("maxpool", "avgpool", "globalavgpool"),
)
GROUP_OF_KIND = np.array([next(g for g, kinds in enumerate(GROUPS) if kind in kinds) for kind in KINDS])
#: Base terms, in millions of operations or hundreds of thousands of values; launches and operands count.
TERMS = (
    "launch",
    "macs",
    "padded_macs",
    "read",
    "written",
    "weights",
    "im2col",
    "elementwise",
    "fused_passes",
    "pooled",
    "fused_launches",
    "concat_operands",
)
#: Widths to which runtimes pad channels and tiles of the map.
_CHANNEL_WIDTHS = (4, 8, 16, 32)
_TILE_SIZES = (2, 4, 8)
#: Operators that make up a squeeze-excite: pool, two convolutions, a gate, a product.
_SE_LAUNCHES = 5
#: Passes over a tensor that an h-swish takes where it is not one kernel: add, multiply, multiply.
_HSWISH_PASSES = 3
_STEM_CHANNELS = 4


@dataclass(frozen=True)
class Features:
    """Features of ``n`` configurations.

    ``kinds [n]`` are indices into KINDS, ``terms [n, TERMS]`` and ``descriptors [n, d]`` are numbers.
    """

    kinds: npt.NDArray[np.int64]
    terms: FloatArray
    descriptors: FloatArray


def features(rows: FloatArray) -> Features:
    """Features of configurations ``rows [n, COLUMNS]`` (see :mod:`nnmeter_nas.kernels.configuration`)."""
    kinds = _kinds(rows)
    return Features(kinds, _terms(rows, kinds), _descriptors(rows))


def is_type(rows: FloatArray, *names: str) -> npt.NDArray[np.bool_]:
    """Which configurations are of one of the kernel types ``names``."""
    return np.isin(rows[:, COLUMN["type"]].astype(int), [KERNEL_TYPES.index(n) for n in names])


def _kinds(rows: FloatArray) -> npt.NDArray[np.int64]:
    c = {name: rows[:, i] for name, i in COLUMN.items()}
    kinds = c["type"].astype(np.int64)
    conv, window = is_type(rows, "conv"), c["kh"] * c["kw"]
    kinds[conv & (window == 1)] = KINDS.index("conv_1x1")
    kinds[conv & (c["kh"] == 3) & (c["kw"] == 3) & (c["sh"] == 1)] = KINDS.index("conv_3x3_s1")
    kinds[conv & (c["cin"] <= _STEM_CHANNELS)] = KINDS.index("conv_stem")
    kinds[is_type(rows, "dwconv") & (c["sh"] == 1)] = KINDS.index("dwconv_s1")
    return kinds


def _padded(size: FloatArray, width: int) -> FloatArray:
    return np.ceil(size / width) * width


def _terms(rows: FloatArray, kinds: npt.NDArray[np.int64]) -> FloatArray:
    c = {name: rows[:, i] for name, i in COLUMN.items()}
    work = kernel_work(rows)
    one, none = np.ones(len(rows)), np.zeros(len(rows))
    data_movers = np.isin(GROUP_OF_KIND[kinds], 2)
    matrix = is_type(rows, "conv", "fc")
    pools = is_type(rows, "maxpool", "avgpool", "globalavgpool")
    hswish, se = is_type(rows, "hswish"), is_type(rows, "se")
    pixels = c["hout"] * c["wout"]
    more_operands = np.where(is_type(rows, "add"), (c["operands"] - 1) * work.read, none)
    padded_macs = pixels * c["kh"] * c["kw"] * _padded(c["cin"] / c["groups"], 4) * _padded(c["cout"], 8)
    unfolds = is_type(rows, "conv") & (c["kh"] * c["kw"] > 1)
    terms = {
        "launch": np.where(se, _SE_LAUNCHES, one),
        "macs": np.where(data_movers, none, work.macs) / 1e6,
        "padded_macs": np.where(matrix, padded_macs, none) / 1e6,
        "read": np.where(data_movers | se, none, work.read) / 1e5,
        "written": np.where(data_movers | se, none, work.written) / 1e5,
        "weights": work.weights / 1e5,
        "im2col": np.where(unfolds, pixels * c["kh"] * c["kw"] * c["cin"], none) / 1e5,
        "elementwise": np.where(data_movers | se, (1 + se) * work.read + more_operands + work.written, none)
        / 1e5,
        "fused_passes": (
            2 * c["joined_add"] + _HSWISH_PASSES * c["joined_other"] + (_HSWISH_PASSES + 1) * hswish
        )
        * work.written
        / 1e5,
        "pooled": np.where(pools, work.macs, none) / 1e6,
        "fused_launches": c["joined_other"] + c["joined_add"] + (_HSWISH_PASSES - 1) * hswish,
        "concat_operands": np.where(is_type(rows, "concat"), c["operands"] - 1, none),
    }
    return np.stack([terms[name] for name in TERMS], axis=1)


def _descriptors(rows: FloatArray) -> FloatArray:
    c = {name: rows[:, i] for name, i in COLUMN.items()}
    work = kernel_work(rows)
    unfolded = np.where(is_type(rows, "conv"), c["hout"] * c["wout"] * c["kh"] * c["kw"] * c["cin"], 1.0)
    sizes = [
        c["cin"],
        c["cout"],
        c["hin"],
        c["hout"],
        c["win"],
        c["kh"],
        c["kw"],
        c["sh"],
        work.macs,
        work.read,
        work.written,
        work.weights,
        unfolded,
        c["squeezed"],
    ]
    logs = [np.log2(np.maximum(size, 1)) for size in sizes]
    intensity = np.log2(np.maximum(work.macs, 1)) - np.log2(work.read + work.written + work.weights)
    counts = [c["operands"], c["joined_relu"], c["joined_add"], c["joined_other"]]
    waste = [
        np.log2(_padded(c[side], width) / c[side]) for width in _CHANNEL_WIDTHS for side in ("cin", "cout")
    ]
    tiles = [np.log2(_padded(c["hout"], size) / c["hout"]) for size in _TILE_SIZES]
    pixels = c["hout"] * c["wout"]
    return np.stack([*logs, intensity, *counts, *waste, *tiles, np.log2(_padded(pixels, 8) / pixels)], axis=1)
