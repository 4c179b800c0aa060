"""Packs of format 1, whose weights have no names: the meaning of each position.

The order is that of the version that wrote them; it never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from ..errors import PackError
from .vocabulary import Vocabulary

_TYPES = ("conv", "dwconv", "fc", "bn", "relu", "hswish", "se", "add", "concat", "split", "channelshuffle",
          "maxpool", "avgpool", "globalavgpool")  # fmt: skip
_KINDS = (*_TYPES, "conv_1x1", "conv_3x3_s1", "conv_stem", "dwconv_s1")
_KIND_TYPES = (*_TYPES, "conv", "conv", "conv", "dwconv")
_GROUPS = {
    "matrix": ("conv", "fc", "se"),
    "depthwise": ("dwconv",),
    "data movers": ("bn", "relu", "hswish", "add", "concat", "split", "channelshuffle"),
    "pools": ("maxpool", "avgpool", "globalavgpool"),
}
_TERMS = ("launch", "macs", "padded_macs", "read", "written", "weights", "im2col", "elementwise",
          "fused_passes", "pooled", "fused_launches", "concat_operands")  # fmt: skip
_DESCRIPTORS = (
    "log_cin", "log_cout", "log_hin", "log_hout", "log_win", "log_kh", "log_kw", "log_sh", "log_macs",
    "log_read", "log_written", "log_weights", "log_unfolded", "log_squeezed", "intensity", "operands",
    "joined_relu", "joined_add", "joined_other", "cin_waste_4", "cout_waste_4", "cin_waste_8", "cout_waste_8",
    "cin_waste_16", "cout_waste_16", "cin_waste_32", "cout_waste_32", "hout_waste_2", "hout_waste_4",
    "hout_waste_8", "pixels_waste_8",
)  # fmt: skip
#: The first column of a range is the position of the type.
_COLUMNS = ("cin", "hin", "win", "cout", "hout", "wout", "kh", "kw", "sh", "sw", "dilation", "groups",
            "operands", "joined_relu", "joined_add", "joined_other", "squeezed")  # fmt: skip


def with_names(arrays: Mapping[str, npt.NDArray[Any]], measured: Sequence[str]) -> dict[str, Any]:
    """Convert the arrays of a format 1 pack to format 2, given the kernel types ``measured``.

    Raises:
        PackError: arrays are missing or have other shapes, or a kernel type does not exist in format 1.
    """
    if not set(measured) <= set(_TYPES):
        raise PackError(f"kernel_types holds a type that format 1 does not have: {', '.join(measured)}")
    named = dict(arrays)
    rows = [_TYPES.index(name) for name in measured]
    for name in ("range_low", "range_high"):
        if name not in arrays or arrays[name].shape != (len(_TYPES), 1 + len(_COLUMNS)):
            raise PackError(f"the pack's weights lack {name} of the kernel types that format 1 has")
        named[name] = arrays[name][rows, 1:]
    names = Vocabulary(
        terms=_TERMS,
        descriptors=_DESCRIPTORS,
        groups=tuple(_GROUPS),
        kinds=_KINDS,
        kind_types=_KIND_TYPES,
        kind_groups=tuple(next(g for g, types in _GROUPS.items() if name in types) for name in _KIND_TYPES),
        declared=(),
        measured=tuple(measured),
        columns=_COLUMNS,
    )
    return {**named, **names.to_arrays()}
