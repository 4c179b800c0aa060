"""Convolutions that ONNX has besides the plain ones: of whole numbers, and deformable ones."""

from __future__ import annotations

from typing import Any

from .operators import NoCanonicalFormError, OnnxNode, onnx_op, window
from .values import Value


@onnx_op("ConvInteger")
def _conv_integer(node: OnnxNode) -> list[Value]:
    """A convolution of whole numbers; what follows its weights are zeros, not a bias."""
    return _quantised(node, weights=1, bias=len(node.inputs))


@onnx_op("QLinearConv")
def _quantised_conv(node: OnnxNode) -> list[Value]:
    """Each tensor comes with its scale and its zero."""
    return _quantised(node, weights=3, bias=8)


def _quantised(node: OnnxNode, weights: int, bias: int) -> list[Value]:
    return node.emit("qconv", [node.x.operand], _attrs(node, weights, bias))


def _attrs(node: OnnxNode, weights: int, bias: int) -> dict[str, Any]:
    """Attributes of a convolution with the constant weights ``(out, in / groups, *kernel)``."""
    out_channels, channels, *_ = node.weights(weights)
    attrs = window(node, weights)
    attrs |= {"in_channels": channels * attrs["groups"], "out_channels": out_channels}
    return attrs if node.input(bias) is None else {**attrs, "bias": True}


@onnx_op("DeformConv")
def _deform_conv(node: OnnxNode) -> list[Value]:
    """A convolution at computed offsets; its bias comes before its mask."""
    offset, bias, mask = node.required(2), node.input(3), node.input(4)
    if bias is not None and not bias.is_constant:
        raise NoCanonicalFormError
    operands = [node.x.operand, offset.operand]
    if mask is not None and not mask.is_constant:
        operands.append(mask.operand)
    return node.emit("deformconv", operands, _attrs(node, weights=1, bias=3))
