"""Operators of quantised networks, which compute with integers or simulate it.

The packs are measured on float networks, so readers read a quantised network as the float network that it
stands for: integer operators as float ones, each followed by ``quantize``, which tells of them.
"""

from __future__ import annotations

from typing import Any

from ._registry import QUANTIZED_OPS, Shape, operator
from ._shapes import only


@operator("quantize", keeps_zeros=True, role="identity", quantized=True,
          torch="quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize "
                "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine "
                "fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask "
                "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
                "_fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_channel_affine "
                "fused_moving_avg_obs_fake_quant _fused_moving_avg_obs_fq_helper "
                "quantized_decomposed::quantize_per_tensor quantized_decomposed::dequantize_per_tensor "
                "quantized_decomposed::quantize_per_channel quantized_decomposed::dequantize_per_channel "
                "torchao::quantize_affine torchao::dequantize_affine",
          onnx="QuantizeLinear DequantizeLinear DynamicQuantizeLinear com.microsoft.QuantizeLinear "
               "com.microsoft.DequantizeLinear",
          tensorflow="FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel "
                     "QuantizeAndDequantize QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 "
                     "QuantizeAndDequantizeV4 QuantizeV2 Dequantize Requantize UniformQuantize "
                     "UniformDequantize",
          nnmeter="FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel "
                  "QuantizeLinear DequantizeLinear DynamicQuantizeLinear")
def _unchanged(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same shape as the input."""
    return [only(shapes)]


# What integer operators are called in a model graph where no reader knows their float form.
QUANTIZED_OPS |= {"qlinearconv", "convinteger", "qlinearmatmul", "matmulinteger"}
QUANTIZED_OPS |= {
    f"onnx_com.microsoft.{name}"
    for name in (
        "qlinearconv", "qgemm", "qlinearadd", "qlinearmul", "qlinearconcat", "qlinearwhere", "qattention",
        "qlinearaveragepool", "qlinearglobalaveragepool", "qlinearreducemean", "dynamicquantizelstm",
        "dynamicquantizematmul", "matmulintegertofloat", "matmulnbits", "qmoe", "quantizelinear",
        "dequantizelinear", "qlinearsigmoid", "qlinearleakyrelu", "qlinearsoftmax",
    )
}  # fmt: skip
