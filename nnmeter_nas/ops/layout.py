"""Give the same values another shape or order."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ._registry import Shape, operator
from ._shapes import axis_of, only


@operator("reshape", attrs=None, torch="view reshape _unsafe_view _reshape_alias unflatten",
          modules="Unflatten", onnx="Reshape", tensorflow="Reshape", nnmeter="Reshape", keeps_zeros=True,
          kernel=None)
def _reshape(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Change to ``shape``: one size may be -1, and 0 copies the input's size (ONNX)."""
    shape = only(shapes)
    target = [shape[i] if d == 0 else int(d) for i, d in enumerate(attrs["shape"])]
    known = math.prod(d for d in target if d != -1)
    if -1 in target:
        target[target.index(-1)] = math.prod(shape) // known
    if math.prod(target) != math.prod(shape):
        raise ShapeError(f"cannot reshape {shape} to {tuple(attrs['shape'])}")
    return [tuple(target)]


@operator("flatten", torch="flatten", modules="Flatten", onnx="Flatten", nnmeter="Flatten", keeps_zeros=True,
          kernel=None)
def _flatten(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Join dimensions ``start`` (default 1) to ``end`` (default last)."""
    shape = only(shapes)
    start, end = axis_of(attrs.get("start", 1), len(shape) + 1), axis_of(attrs.get("end", -1), len(shape))
    return [(*shape[:start], math.prod(shape[start:end + 1]), *shape[end + 1:])]


@operator("squeeze", torch="squeeze", onnx="Squeeze", tensorflow="Squeeze", nnmeter="Squeeze",
          keeps_zeros=True, kernel=None)
def _squeeze(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Drop dimensions of size 1: ``axes``, or all."""
    shape = only(shapes)
    axes = attrs.get("axes")
    if axes is None:
        return [tuple(d for d in shape if d != 1)]
    drop = {axis_of(a, len(shape)) for a in axes}
    return [tuple(d for i, d in enumerate(shape) if i not in drop or d != 1)]


@operator("unsqueeze", attrs=None, torch="unsqueeze", onnx="Unsqueeze", tensorflow="ExpandDims",
          keeps_zeros=True, kernel=None)
def _unsqueeze(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Insert dimensions of size 1 at ``axes``, counted in the result."""
    shape = list(only(shapes))
    rank = len(shape) + len(attrs["axes"])
    for axis in sorted(axis_of(a, rank) for a in attrs["axes"]):
        shape.insert(axis, 1)
    return [tuple(shape)]


@operator("transpose", attrs=None, torch="permute transpose swapaxes swapdims t", onnx="Transpose",
          tensorflow="Transpose", nnmeter="Transpose", keeps_zeros=True, like="channelshuffle")
def _transpose(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Permute dimensions by ``perm``."""
    shape, perm = only(shapes), attrs["perm"]
    if sorted(axis_of(p, len(shape)) for p in perm) != list(range(len(shape))):
        raise ShapeError(f"perm={tuple(perm)} is not a permutation of {len(shape)} dimensions")
    return [tuple(shape[p] for p in perm)]


@operator("channelshuffle", attrs="groups", torch="channel_shuffle native_channel_shuffle",
          modules="ChannelShuffle", keeps_zeros=True, like="concat")
def _channelshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Interleave ``groups`` of channels; the shape stays the same."""
    shape = only(shapes)
    if shape[1] % attrs["groups"]:
        raise ShapeError(f"groups={attrs['groups']} does not divide {shape[1]} channels")
    return [shape]


@operator("pixelshuffle", attrs=None, torch="pixel_shuffle", modules="PixelShuffle", onnx="DepthToSpace",
          tensorflow="DepthToSpace", nnmeter="DepthToSpace", keeps_zeros=True, like="channelshuffle")
def _pixelshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Spread channels over a map that is ``factor`` times as high and wide."""
    *lead, channels, height, width = only(shapes)
    factor = attrs["factor"]
    if channels % factor**2:
        raise ShapeError(f"factor={factor} squared does not divide {channels} channels")
    return [(*lead, channels // factor**2, height * factor, width * factor)]


@operator("pixelunshuffle", attrs=None, torch="pixel_unshuffle", modules="PixelUnshuffle",
          onnx="SpaceToDepth", tensorflow="SpaceToDepth", nnmeter="SpaceToDepth", keeps_zeros=True,
          like="channelshuffle")
def _pixelunshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Gather blocks of ``factor`` by ``factor`` positions of the map into channels."""
    *lead, channels, height, width = only(shapes)
    factor = attrs["factor"]
    if height % factor or width % factor:
        raise ShapeError(f"factor={factor} does not divide a map of {height}x{width}")
    return [(*lead, channels * factor**2, height // factor, width // factor)]
