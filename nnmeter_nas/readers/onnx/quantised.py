"""ONNX operators that compute with integers, and the float operators that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

#: Integer operator -> the float operator, and which inputs that takes; the others are scales and zero points.
FLOAT_FORMS: dict[str, tuple[str, Sequence[int]]] = {
    "QLinearConv": ("Conv", (0, 3, 8)),
    "ConvInteger": ("Conv", (0, 1)),
    "QLinearMatMul": ("MatMul", (0, 3)),
    "MatMulInteger": ("MatMul", (0, 1)),
    "com.microsoft.QLinearConv": ("Conv", (0, 3, 8)),
    "com.microsoft.QGemm": ("Gemm", (0, 3, 6)),
    "com.microsoft.DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "com.microsoft.MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "com.microsoft.QLinearAdd": ("Add", (0, 3)),
    "com.microsoft.QLinearMul": ("Mul", (0, 3)),
    "com.microsoft.QLinearConcat": ("Concat", range(2, 1 << 16, 3)),
    "com.microsoft.QLinearAveragePool": ("AveragePool", (0,)),
    "com.microsoft.QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "com.microsoft.QLinearReduceMean": ("ReduceMean", (0,)),
    "com.microsoft.QLinearLeakyRelu": ("LeakyRelu", (0,)),
    "com.microsoft.QLinearSigmoid": ("Sigmoid", (0,)),
    "com.microsoft.QLinearSoftmax": ("Softmax", (0,)),
}
