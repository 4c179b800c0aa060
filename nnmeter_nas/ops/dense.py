"""Dense layers and matrix products."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ._registry import Node, Shape, operator
from ._shapes import broadcast, only


def _macs(node: Node) -> int:
    """Each output value takes one row of the first operand."""
    return math.prod(node["out_shapes"][0]) * int(node["in_shapes"][0][-1])


def _params(node: Node) -> int:
    """``in * out``, plus a bias per output unless the attribute ``bias`` is False."""
    inner, outer = node["in_shapes"][0][-1], node["out_shapes"][0][-1]
    return int(inner * outer + outer * node["attrs"].get("bias", True))


@operator("fc", attrs=None, torch="linear", modules="Linear", onnx="Gemm", nnmeter="MatMul Gemm FC",
          macs=_macs, params=_params, like="conv")
def _fc(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A dense layer over the last dimension."""
    *lead, features = only(shapes)
    if attrs.get("in_features", features) != features:
        raise ShapeError(f"its weights take {attrs['in_features']} features, its input has {features}")
    return [(*lead, attrs["out_features"])]


# With a matrix of weights, each of these is a dense layer.
@operator("matmul", operands=2, torch="matmul mm bmm", onnx="MatMul",
          tensorflow="MatMul _FusedMatMul BatchMatMul BatchMatMulV2 BatchMatMulV3",
          nnmeter="BatchMatMulV2", macs=_macs, like="conv")
def _matmul(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Product of two computed matrices, batched as in NumPy."""
    left, right = shapes
    if left[-1] != right[-2]:
        raise ShapeError(f"inner sizes differ: {left} x {right}")
    # A product without batch dimensions counts as a batch of one.
    return [(*broadcast([left[:-2], right[:-2]]), left[-2], right[-1])]
