"""Features of kernels by name: base terms, descriptors and kinds. A pack uses those that it names.

A kernel's latency is ``sum_j w_j(kind) * term_j * exp(correction(descriptors))``. Terms are amounts of work
(operations, values moved, launches). They grow with every size, so the sum extrapolates. Descriptors are
logarithms of sizes, and of the waste due to vector widths and tiles. The correction reads them; it is
bounded, so it only adjusts the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import ACTIVATIONS, BoolArray, Configurations, FloatArray

#: A number for each kernel, ``[n]``.
Feature = Callable[[Configurations], FloatArray]

#: Kernel types that move data, or do one operation per value.
DATA_MOVERS = ("bn", "relu", "hswish", "add", "concat", "split", "channelshuffle")
POOLS = ("maxpool", "avgpool", "globalavgpool")
#: Operators that make up a squeeze-excite: pool, two convolutions, a gate, a product.
_SE_LAUNCHES = 5
#: Passes over a tensor of an h-swish that is not one kernel: add, multiply, multiply.
_HSWISH_PASSES = 3
_STEM_CHANNELS = 4
#: Channels that runtimes compute at once, at least.
_BLOCK = 4
#: Weights of a window above which it is large.
_LARGE_WINDOW = 25


def _is_1x1(found: Configurations) -> BoolArray:
    return found.size("kh") * found.size("kw") == 1


def _is_3x3_s1(found: Configurations) -> BoolArray:
    return (found.size("kh") == 3) & (found.size("kw") == 3) & (found.size("sh") == 1)


def _is_stem(found: Configurations) -> BoolArray:
    return found.size("cin") <= _STEM_CHANNELS


def _is_s1(found: Configurations) -> BoolArray:
    return found.size("sh") == 1


def _is_grouped(found: Configurations) -> BoolArray:
    return found.size("groups") > 1


def _is_odd(found: Configurations) -> BoolArray:
    return found.size("cout") % _BLOCK != 0


def _is_large(found: Configurations) -> BoolArray:
    return found.size("kh") * found.size("kw") > _LARGE_WINDOW


#: Variants of a kernel type that runtimes run with their own algorithm, with the type and a test:
#: 1x1 convolution (plain GEMM), 3x3 at stride 1 (Winograd), few input channels, depthwise at stride 1,
#: convolution in groups, depthwise with channels that do not fill blocks (onnxruntime takes five times as
#: long), depthwise with a large window (XNNPACK knows windows up to 5x5, and takes twelve times as long for
#: 7x7).
#: If several fit, the last one counts.
VARIANTS: dict[str, tuple[str, Callable[[Configurations], BoolArray]]] = {
    "conv_1x1": ("conv", _is_1x1),
    "conv_3x3_s1": ("conv", _is_3x3_s1),
    "conv_stem": ("conv", _is_stem),
    "conv_grouped": ("conv", _is_grouped),
    "dwconv_s1": ("dwconv", _is_s1),
    "dwconv_odd": ("dwconv", _is_odd),
    "dwconv_large": ("dwconv", _is_large),
}


def kind_indices(found: Configurations, kinds: Sequence[str]) -> npt.NDArray[np.int64]:
    """Index into ``kinds`` of each kernel, ``[n]``: of the variant that fits, or else of its type.

    -1 if ``kinds`` has neither.
    """
    indices = np.full(len(found), -1, dtype=np.int64)
    for name in (kind for kind in kinds if kind not in VARIANTS):
        indices[found.is_type(name)] = kinds.index(name)
    for name, (kernel_type, fits) in VARIANTS.items():
        if name in kinds:
            indices[found.is_type(kernel_type) & fits(found)] = kinds.index(name)
    return indices


# Base terms, in millions of operations or hundreds of thousands of values; launches and operands are counts.


def _launch(found: Configurations) -> FloatArray:
    return np.where(found.is_type("se"), _SE_LAUNCHES, np.ones(len(found)))


def _macs(found: Configurations) -> FloatArray:
    return np.where(found.is_type(*DATA_MOVERS), 0.0, found.work.macs) / 1e6


def _padded_macs(found: Configurations) -> FloatArray:
    """Multiply-adds with channels padded to vector widths."""
    inner = _padded(found.size("cin") / found.size("groups"), 4)
    macs = _pixels(found) * found.size("kh") * found.size("kw") * inner * _padded(found.size("cout"), 8)
    return np.where(found.is_type("conv", "fc"), macs, 0.0) / 1e6


def _read(found: Configurations) -> FloatArray:
    return np.where(found.is_type(*DATA_MOVERS, "se"), 0.0, found.work.read) / 1e5


def _written(found: Configurations) -> FloatArray:
    return np.where(found.is_type(*DATA_MOVERS, "se"), 0.0, found.work.written) / 1e5


def _weights(found: Configurations) -> FloatArray:
    return found.work.weights / 1e5


def _im2col(found: Configurations) -> FloatArray:
    """Values of the matrix that a convolution may unfold its input into."""
    window = found.size("kh") * found.size("kw")
    unfolds = found.is_type("conv") & (window > 1)
    return np.where(unfolds, _pixels(found) * window * found.size("cin"), 0.0) / 1e5


def _elementwise(found: Configurations) -> FloatArray:
    """Values that data movers read and write. A squeeze-excite reads its input twice."""
    se, work = found.is_type("se"), found.work
    more_operands = np.where(found.is_type("add"), (found.size("operands") - 1) * work.read, 0.0)
    values = (1 + se) * work.read + more_operands + work.written
    return np.where(found.is_type(*DATA_MOVERS, "se"), values, 0.0) / 1e5


def _fused_passes(found: Configurations) -> FloatArray:
    """Values that the operators fused after the head read and write."""
    passes = (
        2 * found.size("joined_add")
        + _HSWISH_PASSES * found.size("joined_other")
        + (_HSWISH_PASSES + 1) * found.is_type("hswish")
    )
    return passes * found.work.written / 1e5


def _activated(activation: str, found: Configurations) -> FloatArray:
    """Values that operators of this name compute."""
    return found.size(f"runs_{activation}") * found.work.written / 1e5


def _pooled(found: Configurations) -> FloatArray:
    return np.where(found.is_type(*POOLS), found.work.macs, 0.0) / 1e6


def _fused_launches(found: Configurations) -> FloatArray:
    launches = found.size("joined_other") + found.size("joined_add")
    return launches + (_HSWISH_PASSES - 1) * found.is_type("hswish")


def _concat_operands(found: Configurations) -> FloatArray:
    return np.where(found.is_type("concat"), found.size("operands") - 1, 0.0)


TERMS: dict[str, Feature] = {
    "launch": _launch,
    "macs": _macs,
    "padded_macs": _padded_macs,
    "read": _read,
    "written": _written,
    "weights": _weights,
    "im2col": _im2col,
    "elementwise": _elementwise,
    "fused_passes": _fused_passes,
    "pooled": _pooled,
    "fused_launches": _fused_launches,
    "concat_operands": _concat_operands,
    **{f"{name}_values": partial(_activated, name) for name in ACTIVATIONS},
}


# Descriptors: logarithms to base 2, and counts.


def _log(amount: Feature, found: Configurations) -> FloatArray:
    return np.log2(np.maximum(amount(found), 1))


def _size(column: str, found: Configurations) -> FloatArray:
    return found.size(column)


def _unfolded(found: Configurations) -> FloatArray:
    window = found.size("kh") * found.size("kw")
    return np.where(found.is_type("conv"), _pixels(found) * window * found.size("cin"), 1.0)


def _intensity(found: Configurations) -> FloatArray:
    """Multiply-adds per value moved."""
    work = found.work
    moved = work.read + work.written + work.weights
    return np.log2(np.maximum(work.macs, 1)) - np.log2(np.maximum(moved, 1))


def _reach(found: Configurations) -> FloatArray:
    """Input values that one output value of a convolution reads."""
    window = found.size("kh") * found.size("kw")
    return np.where(found.is_type("conv"), window * found.size("cin") / found.size("groups"), 1.0)


def _of_group(side: str, found: Configurations) -> FloatArray:
    """Channels of one group of a convolution."""
    return np.where(found.is_type("conv"), found.size(side) / found.size("groups"), 1.0)


def _pieces(most: int, found: Configurations) -> FloatArray:
    """Pieces of a convolution's sum, if one piece adds up at most ``most`` values."""
    return np.log2(np.ceil(_reach(found) / most))


def _waste(amount: Feature, width: int, found: Configurations) -> FloatArray:
    """How many times larger an amount is after rounding up to a multiple of ``width``."""
    return np.log2(_padded(amount(found), width) / amount(found))


def _pixels(found: Configurations) -> FloatArray:
    return found.size("hout") * found.size("wout")


def _padded(size: FloatArray, width: int) -> FloatArray:
    return np.ceil(size / width) * width


def _sizes(*columns: str) -> dict[str, Feature]:
    return {column: partial(_size, column) for column in columns}


_LOGS: dict[str, Feature] = {
    **_sizes("cin", "cout", "hin", "hout", "win", "kh", "kw", "sh"),
    "macs": lambda found: found.work.macs,
    "read": lambda found: found.work.read,
    "written": lambda found: found.work.written,
    "weights": lambda found: found.work.weights,
    "unfolded": _unfolded,
    "reach": _reach,
    **_sizes("squeezed"),
    "groups": partial(_size, "groups"),
}
DESCRIPTORS: dict[str, Feature] = {
    **{f"log_{name}": partial(_log, amount) for name, amount in _LOGS.items()},
    "intensity": _intensity,
    **_sizes("operands", "joined_relu", "joined_add", "joined_other"),
    **_sizes(*(f"runs_{name}" for name in ACTIVATIONS)),
    **{
        f"{side}_waste_{width}": partial(_waste, partial(_size, side), width)
        for width in (4, 8, 16, 32)
        for side in ("cin", "cout")
    },
    # Runtimes that keep channels in blocks run groups that fill blocks, and those that do not by other code.
    **{f"group_{side}_waste_8": partial(_waste, partial(_of_group, side), 8) for side in ("cin", "cout")},
    **{f"hout_waste_{width}": partial(_waste, partial(_size, "hout"), width) for width in (2, 4, 8)},
    "pixels_waste_8": partial(_waste, _pixels, 8),
    # Large layers are cut into pieces on devices with little memory near their processors (seen on the Myriad
    # VPU).
    **{f"pieces_{most}": partial(_pieces, most) for most in (1024, 2048, 4096)},
}


def values(found: Configurations, features: dict[str, Feature], names: Iterable[str]) -> FloatArray:
    """The ``features`` called ``names``, ``[n, names]``."""
    return np.stack([features[name](found) for name in names], axis=1)
