"""Operators without work: inputs, constants, and identities."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ._registry import Shape, none, operator
from ._shapes import only


@operator("input", operands=0, attrs=None, nnmeter="Placeholder Input", read=none, written=none, kernel=None)
def _input(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The given shape."""
    shape = attrs.get("shape")
    if shape is None or any(not isinstance(d, int) or d < 1 for d in shape):
        raise ShapeError(f"input shape {shape} is missing or not of positive sizes; pass input_shape")
    return [tuple(shape)]


@operator("constant", operands=0, attrs=None, role="constant")
@operator("zero", operands=0, attrs=None, role="zero")
def _constant(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A tensor of fixed ``shape``."""
    return [tuple(attrs["shape"])]


# Costs nothing: a view of a tensor of unknown shape, or what the branch of a condition passes on.
@operator("given", operands=None, attrs=None, read=none, written=none, kernel=None)
def _given(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The ``shapes`` that the model tells."""
    return [tuple(shape) for shape in attrs["shapes"]]


@operator("zeros_like", torch="zeros_like", tensorflow="ZerosLike", nnmeter="ZerosLike", role="zero")
@operator("identity", torch="clone contiguous detach alias lift_fresh", modules="Identity", onnx="Identity",
          tensorflow="Identity", nnmeter="Identity BiasAdd", keeps_zeros=True, role="identity")
@operator("dropout", keeps_zeros=True, role="identity", onnx="Dropout", nnmeter="Dropout",
          torch="dropout dropout1d dropout2d dropout3d native_dropout alpha_dropout feature_dropout "
                "feature_alpha_dropout",
          modules="Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout")
def _unchanged(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same shape as the input."""
    return [only(shapes)]
