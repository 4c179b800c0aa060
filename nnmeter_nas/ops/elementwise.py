"""Element-wise arithmetic; several operands broadcast."""

from __future__ import annotations

from typing import Any

from ._registry import Shape, operator
from ._shapes import broadcast, only


@operator("neg", torch="neg negative", onnx="Neg", tensorflow="Neg", keeps_zeros=True)
@operator("abs", torch="abs absolute", onnx="Abs", tensorflow="Abs", keeps_zeros=True)
@operator("sign", torch="sign", onnx="Sign", tensorflow="Sign", keeps_zeros=True)
@operator("floor", torch="floor", onnx="Floor", tensorflow="Floor", keeps_zeros=True)
@operator("ceil", torch="ceil", onnx="Ceil", tensorflow="Ceil", keeps_zeros=True)
@operator("round", torch="round", onnx="Round", tensorflow="Round Rint", keeps_zeros=True)
@operator("sqrt", torch="sqrt", onnx="Sqrt", tensorflow="Sqrt", keeps_zeros=True, like="hswish")
@operator("rsqrt", torch="rsqrt", tensorflow="Rsqrt", like="hswish")
@operator("exp", torch="exp", onnx="Exp", tensorflow="Exp", like="hswish")
@operator("expm1", torch="expm1", tensorflow="Expm1", keeps_zeros=True, like="hswish")
@operator("log", torch="log", onnx="Log", tensorflow="Log", like="hswish")
@operator("log1p", torch="log1p", tensorflow="Log1p", keeps_zeros=True, like="hswish")
@operator("erf", torch="erf", onnx="Erf", tensorflow="Erf", keeps_zeros=True, like="hswish")
@operator("sin", torch="sin", onnx="Sin", tensorflow="Sin", keeps_zeros=True, like="hswish")
@operator("cos", torch="cos", onnx="Cos", tensorflow="Cos", like="hswish")
@operator("logicalnot", torch="logical_not", onnx="Not", tensorflow="LogicalNot")
@operator("cast", torch="_to_copy", onnx="Cast", tensorflow="Cast", nnmeter="Cast",
          keeps_zeros=True)
def _unary(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same shape as the input."""
    return [only(shapes)]


@operator("add", operands=None, torch="add", onnx="Add Sum", tensorflow="Add AddV2 AddN",
          nnmeter="Add AddV2 AddN", keeps_zeros=True)
@operator("sub", operands=None, torch="sub subtract", onnx="Sub", tensorflow="Sub", nnmeter="Sub",
          keeps_zeros=True, kernel="add", rule="add", like="add")
@operator("mul", operands=None, torch="mul multiply", onnx="Mul", tensorflow="Mul", nnmeter="Mul",
          kernel="add", like="add")
@operator("div", operands=None, torch="div divide true_divide", onnx="Div", tensorflow="RealDiv Div",
          nnmeter="Div RealDiv", like="add")
@operator("pow", operands=None, torch="pow", onnx="Pow", tensorflow="Pow", nnmeter="Pow", like="hswish")
@operator("maximum", operands=None, torch="maximum", onnx="Max", tensorflow="Maximum", nnmeter="Maximum",
          keeps_zeros=True, kernel="add", like="add")
@operator("minimum", operands=None, torch="minimum", onnx="Min", tensorflow="Minimum", nnmeter="Minimum",
          keeps_zeros=True, kernel="add", like="add")
@operator("equal", operands=None, torch="eq", onnx="Equal", tensorflow="Equal", like="add")
@operator("notequal", operands=None, torch="ne not_equal", tensorflow="NotEqual", like="add")
@operator("less", operands=None, torch="lt less", onnx="Less", tensorflow="Less", like="add")
@operator("lessequal", operands=None, torch="le less_equal", onnx="LessOrEqual", tensorflow="LessEqual",
          like="add")
@operator("greater", operands=None, torch="gt greater", onnx="Greater", tensorflow="Greater", like="add")
@operator("greaterequal", operands=None, torch="ge greater_equal", onnx="GreaterOrEqual",
          tensorflow="GreaterEqual", like="add")
@operator("logicaland", operands=None, torch="logical_and", onnx="And", tensorflow="LogicalAnd", like="add")
@operator("logicalor", operands=None, torch="logical_or", onnx="Or", tensorflow="LogicalOr", like="add")
def _elementwise(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Broadcast all operands, and a constant of ``const_shape`` if there is one."""
    return [broadcast([*shapes, tuple(attrs["const_shape"])] if "const_shape" in attrs else shapes)]
