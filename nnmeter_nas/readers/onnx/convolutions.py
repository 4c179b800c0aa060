"""Deformable convolutions in ONNX's spelling."""

from __future__ import annotations

from .operators import NoCanonicalFormError, OnnxNode, onnx_op, window
from .values import Value


@onnx_op("DeformConv")
def _deform_conv(node: OnnxNode) -> list[Value]:
    """A convolution at computed offsets; its bias comes before its mask."""
    offset, bias, mask = node.required(2), node.input(3), node.input(4)
    if bias is not None and not bias.is_constant:
        raise NoCanonicalFormError
    operands = [node.x.operand, offset.operand]
    if mask is not None and not mask.is_constant:
        operands.append(mask.operand)
    out_channels, channels, *_ = node.weights(1)
    attrs = window(node, 1)
    attrs |= {"in_channels": channels * attrs["groups"], "out_channels": out_channels}
    return node.emit("deformconv", operands, attrs if bias is None else {**attrs, "bias": True})
