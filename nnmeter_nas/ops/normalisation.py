"""Normalisations. They keep the shape."""

from __future__ import annotations

from typing import Any

from ._registry import Node, Shape, operator
from ._shapes import only


def _bn_params(node: Node) -> int:
    """A scale and a shift per channel, unless ``affine`` is False; the running statistics do not count."""
    return int(2 * node["in_shapes"][0][1] * node["attrs"].get("affine", True))


@operator("bn", params=_bn_params,
          torch="batch_norm native_batch_norm _native_batch_norm_legit_no_training",
          modules="BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm", onnx="BatchNormalization",
          tensorflow="FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 BatchNormWithGlobalNormalization",
          nnmeter="FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 BatchNormalization")
@operator("norm", params=None,
          torch="instance_norm layer_norm native_layer_norm group_norm native_group_norm rms_norm",
          modules="LayerNorm GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d RMSNorm",
          onnx="InstanceNormalization LayerNormalization GroupNormalization RMSNormalization "
               "com.microsoft.LayerNormalization com.microsoft.SimplifiedLayerNormalization",
          like="bn", passes=3)
@operator("lrn", modules="LocalResponseNorm", onnx="LRN", tensorflow="LRN", keeps_zeros=True,
          like="hswish", passes=2)
def _normalised(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same shape as the input."""
    return [only(shapes)]
