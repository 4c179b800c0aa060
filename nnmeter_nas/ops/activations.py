"""Activations: functions of each value or each row. They keep the shape."""

from __future__ import annotations

from typing import Any

from ._registry import Shape, operator
from ._shapes import only


@operator("relu", torch="relu", modules="ReLU", onnx="Relu", tensorflow="Relu", nnmeter="Relu",
          keeps_zeros=True)
@operator("relu6", torch="relu6", modules="ReLU6", tensorflow="Relu6", nnmeter="Relu6", keeps_zeros=True,
          kernel="relu", rule="relu")
@operator("leakyrelu", torch="leaky_relu rrelu", modules="LeakyReLU RReLU", onnx="LeakyRelu",
          tensorflow="LeakyRelu", nnmeter="LeakyRelu", keeps_zeros=True, kernel="relu")
@operator("prelu", torch="prelu _prelu_kernel", modules="PReLU", onnx="PRelu", params=None,
          keeps_zeros=True)
@operator("threshold", torch="threshold", modules="Threshold", onnx="ThresholdedRelu", kernel="relu")
@operator("elu", torch="elu selu celu", modules="ELU SELU CELU", onnx="Elu Selu Celu", tensorflow="Elu Selu",
          nnmeter="Elu", keeps_zeros=True, like="hswish")
@operator("gelu", torch="gelu", modules="GELU", nnmeter="Gelu", keeps_zeros=True,
          onnx="Gelu com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.QuickGelu "
               "com.microsoft.BiasGelu", like="hswish")
@operator("swish", torch="silu", modules="SiLU", onnx="Swish", keeps_zeros=True, like="hswish")
@operator("mish", torch="mish", modules="Mish", onnx="Mish", keeps_zeros=True, like="hswish")
@operator("hswish", torch="hardswish", modules="Hardswish", onnx="HardSwish", nnmeter="hswish HardSwish",
          keeps_zeros=True)
@operator("sigmoid", torch="sigmoid", modules="Sigmoid", onnx="Sigmoid", tensorflow="Sigmoid",
          nnmeter="Sigmoid", like="hswish")
# Any slope counts: it does not change the cost.
@operator("hsigmoid", torch="hardsigmoid", modules="Hardsigmoid", onnx="HardSigmoid",
          nnmeter="hsigmoid HardSigmoid", kernel="hswish")
@operator("tanh", torch="tanh", modules="Tanh", onnx="Tanh", tensorflow="Tanh", nnmeter="Tanh",
          keeps_zeros=True, like="hswish")
@operator("softplus", torch="softplus", modules="Softplus", onnx="Softplus", tensorflow="Softplus",
          nnmeter="Softplus", like="hswish")
@operator("softsign", torch="softsign", modules="Softsign", onnx="Softsign", tensorflow="Softsign",
          keeps_zeros=True, like="hswish")
@operator("shrink", torch="hardshrink softshrink", modules="Hardshrink Softshrink", onnx="Shrink",
          keeps_zeros=True, like="hswish")
@operator("softmax", torch="softmax _softmax _safe_softmax", modules="Softmax Softmax2d", onnx="Softmax",
          tensorflow="Softmax", nnmeter="Softmax", like="hswish", passes=2)
@operator("logsoftmax", torch="log_softmax _log_softmax", modules="LogSoftmax", onnx="LogSoftmax",
          tensorflow="LogSoftmax", like="hswish", passes=2)
# The limits decide whether this is a clip or an activation with its own name.
@operator("clip", attrs=None, torch="clamp clip clamp_min clamp_max hardtanh", modules="Hardtanh",
          onnx="Clip", tensorflow="ClipByValue", nnmeter="Clip", kernel="relu")
def _activation(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same shape as the input."""
    return [only(shapes)]
