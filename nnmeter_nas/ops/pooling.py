"""Pools and other operators that change the size of a map."""

from __future__ import annotations

import math
from typing import Any

from ._registry import Shape, operator
from ._shapes import only, spatial_attrs, window_out


@operator("maxpool", attrs=None, modules="MaxPool1d MaxPool2d MaxPool3d", onnx="MaxPool",
          torch="max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
                "max_pool3d_with_indices",
          tensorflow="MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax", nnmeter="MaxPool", keeps_zeros=True,
          rule="pool")
@operator("avgpool", attrs=None, torch="avg_pool1d avg_pool2d avg_pool3d",
          modules="AvgPool1d AvgPool2d AvgPool3d", onnx="AveragePool", tensorflow="AvgPool AvgPool3D",
          nnmeter="AvgPool AveragePool", keeps_zeros=True, rule="pool")
def _pool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A window over each channel; ``ceil_mode`` as in PyTorch."""
    batch, channels, *spatial = only(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    padding, ceil_mode = attrs.get("padding", "valid"), attrs.get("ceil_mode", False)
    out = [window_out(size, kernel[i], stride[i], padding, i, dilation[i], ceil_mode)
           for i, size in enumerate(spatial)]
    return [(batch, channels, *out)]


@operator("globalavgpool", onnx="GlobalAveragePool", nnmeter="GlobalAveragePool", keeps_zeros=True)
def _globalavgpool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Mean over the whole map; the map stays as 1x1 unless ``keepdims`` is False."""
    batch, channels, *spatial = only(shapes)
    return [(batch, channels, *(1 for _ in spatial)) if attrs.get("keepdims", True) else (batch, channels)]


# Shape inference turns this into a plain or a global pool if all its windows have the same size.
@operator("adaptiveavgpool", attrs=None, keeps_zeros=True,
          torch="adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
                "_adaptive_avg_pool3d",
          modules="AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d")
@operator("adaptivemaxpool", attrs=None, keeps_zeros=True,
          torch="adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
          modules="AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d", onnx="GlobalMaxPool")
def _adaptive_pool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``output_size`` for each spatial dimension; None keeps the input's size."""
    batch, channels, *spatial = only(shapes)
    size = attrs["output_size"]
    sizes = (size,) * len(spatial) if isinstance(size, int) or size is None else tuple(size)
    return [(batch, channels, *(s if o is None else o for s, o in zip(spatial, sizes, strict=True)))]


@operator("upsample", attrs=None, keeps_zeros=True,
          torch="upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
                "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
                "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
          modules="Upsample UpsamplingNearest2d UpsamplingBilinear2d", onnx="Resize Upsample",
          tensorflow="ResizeBilinear ResizeNearestNeighbor ResizeBicubic ResizeArea",
          nnmeter="ResizeBilinear", passes=2)
def _upsample(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Resize the map to ``size``, or by ``scale`` (a factor per spatial dimension)."""
    batch, channels, *spatial = only(shapes)
    size = attrs.get("size") or [
        math.floor(d * f) for d, f in zip(spatial, attrs["scale"], strict=True)
    ]
    return [(batch, channels, *size)]
