"""Dense layers and matrix products."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ShapeError
from ._registry import Node, Shape, operator
from ._shapes import broadcast, only


def _macs(node: Node) -> int:
    """Each output value takes one row of the input."""
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


def _factors(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Shapes of the left and the right factor; that of a constant one is the attribute ``const_shape``."""
    factors = list(shapes)
    if "const_shape" in attrs:
        factors.insert(0 if attrs.get("const_first") else 1, tuple(attrs["const_shape"]))
    return factors


def _product_macs(node: Node) -> int:
    """Each output value takes one row of the left factor."""
    left = _factors(node["in_shapes"], node["attrs"])[0]
    return math.prod(node["out_shapes"][0]) * int(left[-1])


def _constant_factor(node: Node) -> int:
    """Values of the constant factor, if one is."""
    return math.prod(node["attrs"]["const_shape"]) if "const_shape" in node["attrs"] else 0


# With a matrix of weights on the right, each of these is a dense layer.
@operator("matmul", operands=2, attrs="const_shape const_first", torch="matmul mm bmm mv dot",
          onnx="MatMul", tensorflow="MatMul _FusedMatMul BatchMatMul BatchMatMulV2 BatchMatMulV3",
          nnmeter="BatchMatMulV2", macs=_product_macs, params=_constant_factor, like="conv")
def _matmul(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Product of two matrices, batched as in NumPy; a vector is a row on the left, a column on the right."""
    left, right = _factors(shapes, attrs)
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    if left[-1] != right[-2:][0]:
        raise ShapeError(f"inner sizes differ: {left} x {right}")
    # A product without batch dimensions counts as a batch of one.
    return [(*broadcast([left[:-2], right[:-2]]), *rows, *columns)]
