"""Reductions along axes."""

from __future__ import annotations

from typing import Any

from ._registry import Shape, operator
from ._shapes import axis_of, only


@operator("mean", attrs=None, torch="mean", onnx="ReduceMean", tensorflow="Mean", nnmeter="Mean ReduceMean",
          keeps_zeros=True)
@operator("sum", attrs=None, torch="sum", onnx="ReduceSum", tensorflow="Sum", keeps_zeros=True)
@operator("max", attrs=None, torch="amax max", onnx="ReduceMax", tensorflow="Max", keeps_zeros=True)
@operator("min", attrs=None, torch="amin min", onnx="ReduceMin", tensorflow="Min", keeps_zeros=True)
@operator("prod", attrs=None, torch="prod", onnx="ReduceProd", tensorflow="Prod", keeps_zeros=True)
def _reduction(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Drop ``axes``, or keep them as 1 if ``keepdims``."""
    shape = only(shapes)
    axes = {axis_of(a, len(shape)) for a in attrs["axes"]}
    attrs["axes"] = tuple(sorted(axes))
    if attrs.get("keepdims", False):
        return [tuple(1 if i in axes else d for i, d in enumerate(shape))]
    return [tuple(d for i, d in enumerate(shape) if i not in axes)]
