"""Convolutions in ATen's spellings, and the deformable one of torchvision."""

from __future__ import annotations

from typing import Any

from ...graph.editing import Operand
from .operators import AtenCall, aten, per_dimension, reads, symmetric


@reads("conv")
def _conv(call: AtenCall) -> list[Operand] | None:
    """Weights are ``(out, in / groups, *kernel)``; "same" is torch's, with the odd element after."""
    args, (out_channels, channels, *kernel) = call.args, call.shape("weight")
    rank = len(kernel)
    dilation, padding = per_dimension(args["dilation"], rank), args["padding"]
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = [(r // 2, r - r // 2) for r in reach]
    elif padding != "valid":
        padding = symmetric(padding, rank)
    attrs = {"stride": per_dimension(args["stride"], rank), "dilation": dilation, "padding": padding,
             "groups": args["groups"]}  # fmt: skip
    weights = {"in_channels": channels * args["groups"], "out_channels": out_channels}
    return _layer(call, "conv", kernel, attrs, weights)


@reads("convtranspose")
def _conv_transpose(call: AtenCall) -> list[Operand] | None:
    """Weights are ``(in, out / groups, *kernel)``."""
    args, (in_channels, channels, *kernel) = call.args, call.shape("weight")
    rank = len(kernel)
    attrs = {"stride": per_dimension(args["stride"], rank), "dilation": per_dimension(args["dilation"], rank),
             "padding": symmetric(args["padding"], rank), "groups": args["groups"],
             "output_padding": per_dimension(args["output_padding"], rank)}  # fmt: skip
    weights = {"in_channels": in_channels, "out_channels": channels * args["groups"]}
    return _layer(call, "convtranspose", kernel, attrs, weights)


def _layer(
    call: AtenCall, op: str, kernel: list[int], attrs: dict[str, Any], weights: dict[str, int]
) -> list[Operand] | None:
    """A layer, or a dynamic one if its weights are computed; None if only its weights are."""
    source, bias = call.operand(call.args["input"]), call.args["bias"]
    added = None if bias is None else call.operand(bias)
    if source is None:
        return None
    if call.operand(call.args["weight"]) is not None:
        return [call.emit(f"dynamic{op}", call.inputs, attrs, call.out_shapes[0])]
    attrs = {"kernel": tuple(kernel), **attrs, **weights}
    if bias is not None and added is None:
        attrs["bias"] = True
    layer = call.emit(op, [source], attrs, call.out_shapes[0])
    if added is None:
        return [layer]
    column = (*bias.shape, *[1] * len(kernel))
    added = call.emit("reshape", [added], {"shape": column}, column)
    return [call.emit("add", [layer, added], {}, call.out_shapes[0])]


@aten("convolution", "_convolution")
def _convolution(call: AtenCall) -> list[Operand] | None:
    """The primitive of convolutions and transposed convolutions."""
    return (_conv_transpose if call.args["transposed"] else _conv)(call)


@reads("deformconv")
def _deform_conv(call: AtenCall) -> list[Operand] | None:
    """A convolution at computed offsets; ``use_mask`` says whether the mask counts."""
    args, (out_channels, channels, *kernel) = call.args, call.shape("weight")
    source, offset, mask, *others = (
        call.operand(args[name]) for name in ("input", "offset", "mask", "weight", "bias")
    )
    if source is None or offset is None or others != [None, None]:
        return None
    operands = [source, offset, *([mask] if args["use_mask"] and mask is not None else [])]
    stride, padding, dilation = (
        (args[f"{name}_h"], args[f"{name}_w"]) for name in ("stride", "pad", "dilation")
    )
    attrs = {"kernel": tuple(kernel), "stride": stride, "dilation": dilation,
             "padding": symmetric(padding, 2), "groups": args["groups"],
             "in_channels": channels * args["groups"], "out_channels": out_channels,
             "bias": True}  # fmt: skip
    return [call.emit("deformconv", operands, attrs, call.out_shapes[0])]
