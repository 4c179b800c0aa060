"""Convolutions, over any number of spatial dimensions.

They have a bias if their attribute ``bias`` is true.
"""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ._registry import Node, Shape, operator
from ._shapes import are_sizes, check_channels, only, spatial_attrs, window_out


def _macs(node: Node) -> int:
    """Each output value takes one window over the input channels of its group."""
    window = math.prod(node["attrs"]["kernel"]) * node["in_shapes"][0][1] // node["attrs"].get("groups", 1)
    return math.prod(node["out_shapes"][0]) * window


def _transposed_macs(node: Node) -> int:
    """Each input value goes into one window over the output channels of its group."""
    window = math.prod(node["attrs"]["kernel"]) * node["out_shapes"][0][1] // node["attrs"].get("groups", 1)
    return math.prod(node["in_shapes"][0]) * window


def _params(node: Node) -> int:
    """``in * out / groups * kernel``, plus a bias per output channel."""
    attrs, inner, outer = node["attrs"], node["in_shapes"][0][1], node["out_shapes"][0][1]
    weights = inner * outer // attrs.get("groups", 1) * math.prod(attrs["kernel"])
    return int(weights + outer * attrs.get("bias", False))


@operator("conv", attrs=None, torch="conv1d conv2d conv3d", modules="Conv1d Conv2d Conv3d", onnx="Conv",
          tensorflow="Conv2D Conv3D _FusedConv2D", nnmeter="Conv2D Conv", macs=_macs, params=_params,
          like="fc")
# A convolution becomes depthwise once shapes are known; readers use this name only if the format does.
@operator("dwconv", attrs=None, tensorflow="DepthwiseConv2dNative _FusedDepthwiseConv2dNative",
          nnmeter="DepthwiseConv2dNative", macs=_macs, params=_params, like="conv")
def _conv(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A window over all channels of a group; the groups must divide both channel counts."""
    batch, channels, *spatial = only(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    out_channels, groups = attrs["out_channels"], attrs.get("groups", 1)
    check_channels(attrs, channels)
    if not are_sizes([groups]) or channels % groups or out_channels % groups:
        raise ShapeError(f"groups={groups} does not divide channels {channels} -> {out_channels}")
    padding = attrs.get("padding", "valid")
    out = [window_out(size, kernel[i], stride[i], padding, i, dilation[i])
           for i, size in enumerate(spatial)]
    return [(batch, out_channels, *out)]


@operator("convtranspose", attrs=None, torch="conv_transpose1d conv_transpose2d conv_transpose3d",
          modules="ConvTranspose1d ConvTranspose2d ConvTranspose3d", onnx="ConvTranspose",
          tensorflow="Conv2DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput",
          nnmeter="Conv2DBackpropInput", macs=_transposed_macs, params=_params, like="conv")
def _convtranspose(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``(in-1)*stride - pads + dilation*(kernel-1) + output_padding + 1``; "same" is in*stride."""
    batch, channels, *spatial = only(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    check_channels(attrs, channels)
    padding, extra = attrs.get("padding", "valid"), attrs.get("output_padding", (0,) * len(spatial))
    out = []
    for i, size in enumerate(spatial):
        if padding == "same":
            out.append(size * stride[i])
            continue
        before, after = (0, 0) if padding == "valid" else padding[i]
        reach = dilation[i] * (kernel[i] - 1) + extra[i] + 1
        out.append((size - 1) * stride[i] - before - after + reach)
    return [(batch, attrs["out_channels"], *out)]


def _sampled(node: Node) -> int:
    """Each window takes its values between four neighbours, from where the offsets say."""
    inputs, positions = node["in_shapes"], math.prod(node["out_shapes"][0][2:])
    window = math.prod(node["attrs"]["kernel"]) * inputs[0][1]
    return 4 * positions * inputs[0][0] * window + sum(map(math.prod, inputs[1:]))


@operator("deformconv", operands=2, attrs=None, torch="torchvision::deform_conv2d", onnx="DeformConv",
          macs=_macs, params=_params, read=_sampled, like="conv")
def _deformconv(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A convolution whose windows take values at computed offsets, and may weigh them by a computed mask."""
    source, *placement = shapes
    out = _conv([source], attrs)
    if not placement or any(shape[2:] != out[0][2:] for shape in placement):
        raise ShapeError(f"offsets and masks {placement} do not fit its output {out[0]}")
    return out


def _weights(shapes: list[Shape], attrs: dict[str, Any]) -> Shape:
    """Shape of the computed weights, the second operand; with their kernel among the attributes."""
    weights = shapes[1]
    attrs["kernel"] = weights[2:]
    return weights


# Convolutions whose weights the network computes from its input (CondConv, https://arxiv.org/abs/1904.04971).
@operator("dynamicconv", operands=2, attrs=None, macs=_macs, like="conv")
def _dynamicconv(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A convolution with the computed weights ``(out, in / groups, *kernel)``; a computed bias may follow."""
    out_channels, channels, *_ = _weights(shapes, attrs)
    if channels * attrs.get("groups", 1) != shapes[0][1]:
        raise ShapeError(f"weights {shapes[1]} do not fit its input {shapes[0]}")
    return _conv(shapes[:1], {**attrs, "out_channels": out_channels})


@operator("dynamicconvtranspose", operands=2, attrs=None, macs=_transposed_macs, like="conv")
def _dynamicconvtranspose(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A transposed convolution with the computed weights ``(in, out / groups, *kernel)``."""
    in_channels, channels, *_ = _weights(shapes, attrs)
    if in_channels != shapes[0][1]:
        raise ShapeError(f"weights {shapes[1]} do not fit its input {shapes[0]}")
    return _convtranspose(shapes[:1], {**attrs, "out_channels": channels * attrs.get("groups", 1)})
