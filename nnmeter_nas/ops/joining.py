"""Join, cut and pad tensors."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ._registry import Shape, operator, values_written
from ._shapes import axis_of, broadcast, only


@operator("concat", operands=None, attrs=None, torch="cat concat concatenate", onnx="Concat",
          tensorflow="ConcatV2 Concat", nnmeter="ConcatV2 Concat", keeps_zeros=True)
def _concat(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Join along ``axis`` (default: channels); all other sizes must agree."""
    first = shapes[0]
    axis = axis_of(attrs.get("axis", 1), len(first))
    for shape in shapes:
        if len(shape) != len(first) or shape[:axis] + shape[axis + 1:] != first[:axis] + first[axis + 1:]:
            raise ShapeError(f"operand shapes {shapes} differ outside axis {axis}")
    return [(*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1:])]


@operator("split", attrs=None, torch="split split_with_sizes chunk unsafe_chunk unsafe_split tensor_split",
          onnx="Split", tensorflow="Split SplitV", nnmeter="Split", keeps_zeros=True, like="concat")
def _split(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Cut along ``axis`` into ``sections`` (a list of sizes, or a number of equal parts)."""
    shape = only(shapes)
    axis = axis_of(attrs.get("axis", 1), len(shape))
    sections = attrs["sections"]
    if isinstance(sections, int):
        if shape[axis] % sections:
            raise ShapeError(f"{shape[axis]} does not split into {sections} equal parts")
        sections = [shape[axis] // sections] * sections
    if sum(sections) != shape[axis]:
        raise ShapeError(f"sections {list(sections)} do not add up to {shape[axis]}")
    return [(*shape[:axis], size, *shape[axis + 1:]) for size in sections]


@operator("slice", attrs=None, torch="slice", onnx="Slice", tensorflow="StridedSlice Slice",
          nnmeter="StridedSlice", read=values_written, keeps_zeros=True, like="concat")
def _slice(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``[start:stop:step]`` along ``axis``, by Python's rules."""
    shape = list(only(shapes))
    axis = axis_of(attrs["axis"], len(shape))
    cut = slice(attrs.get("start"), attrs.get("stop"), attrs.get("step"))
    shape[axis] = len(range(*cut.indices(shape[axis])))
    return [tuple(shape)]


@operator("pad", attrs=None, torch="pad constant_pad_nd", onnx="Pad", tensorflow="Pad PadV2 MirrorPad",
          nnmeter="PadV2 Pad", keeps_zeros=True,
          modules="ZeroPad1d ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d ReflectionPad1d "
                  "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d "
                  "CircularPad1d CircularPad2d CircularPad3d", like="concat")
def _pad(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Add ``padding``: a (before, after) pair for each dimension, batch and channels included."""
    shape = only(shapes)
    return [tuple(d + b + a for d, (b, a) in zip(shape, attrs["padding"], strict=True))]


@operator("expand", attrs=None, torch="expand", onnx="Expand", tensorflow="BroadcastTo", keeps_zeros=True,
          like="concat")
def _expand(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Repeat dimensions of size 1 until the tensor has ``shape``."""
    return [broadcast([only(shapes), tuple(attrs["shape"])])]


@operator("tile", attrs=None, torch="repeat", onnx="Tile", tensorflow="Tile", keeps_zeros=True, like="concat")
def _tile(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``repeats`` copies along each dimension of the result."""
    repeats, shape = tuple(attrs["repeats"]), only(shapes)
    aligned = (1,) * (len(repeats) - len(shape)) + shape
    return [tuple(size * count for size, count in zip(aligned, repeats, strict=True))]
