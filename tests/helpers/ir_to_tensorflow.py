"""nn-Meter IR, ours and the benchmark's, as the frozen TensorFlow graph that its nodes came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto import graph_pb2

from tf_graphs import TfBuilder

#: Operators with the same operands in nn-Meter IR and TensorFlow.
_PLAIN = (
    *("Add", "AddN", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "BatchMatMulV2"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softmax", "Softplus"),
)


def graph_def_of_ir(ir: Mapping[str, Any]) -> graph_pb2.GraphDef:
    """Convert nn-Meter IR to a GraphDef. Weights have shapes but no values."""
    builder = TfBuilder(shape=None)
    for name, record in ir.items():
        _add(builder, name, record["attr"], list(record["inbounds"]))
    return builder.graph_def


def _add(builder: TfBuilder, name: str, body: Mapping[str, Any], inputs: list[str]) -> None:
    kind, attrs = body["type"], body["attr"]
    if kind == "Placeholder":
        builder.placeholder(name, attrs["shape"])
    elif kind == "Const":
        if "tensor_shape" not in attrs:
            builder.const(name, attrs["constant"][0])
        elif attrs["constant"]:
            builder.const(name, np.asarray(attrs["constant"], np.float32).reshape(attrs["tensor_shape"]))
        else:
            builder.weights(name, *attrs["tensor_shape"])
    elif kind in ("Conv2D", "DepthwiseConv2dNative"):
        weights = builder.weights(f"{name}/weights", *attrs["weight_shape"])
        window = {"strides": [1, *attrs["strides"], 1], "dilations": [1, *attrs.get("dilations", (1, 1)), 1]}
        builder.add(name, kind, [*inputs[:1], weights], **window, **_padding(attrs))
    elif kind in ("MaxPool", "AvgPool"):
        window = {"ksize": [1, *attrs["ksize"], 1], "strides": [1, *attrs["strides"], 1]}
        builder.add(name, kind, inputs, **window, **_padding(attrs))
    elif kind == "BiasAdd":
        builder.bias(name, inputs[0], body["output_shape"][0][-1])
    elif kind.startswith("FusedBatchNorm"):
        builder.batch_norm(name, inputs[0], body["output_shape"][0][-1])
    elif kind == "MatMul":
        weights = builder.weights(f"{name}/weights", body["input_shape"][0][-1], body["output_shape"][0][-1])
        builder.add(name, kind, [*inputs, weights])
    elif kind == "Mean":
        keep = len(body["output_shape"][0]) == len(body["input_shape"][0])
        builder.with_const(name, kind, inputs[0], attrs["reduction_indices"], keep_dims=keep)
    elif kind == "ConcatV2":
        builder.add(name, kind, [*inputs, builder.const(f"{name}/axis", attrs["axis"])])
    elif kind == "Split":
        _split(builder, name, attrs, inputs[0])
    elif kind == "Reshape":
        builder.with_const(name, kind, inputs[0], attrs["shape"])
    elif kind == "Transpose":
        builder.with_const(name, kind, inputs[0], attrs.get("perm", [0, 1, 2, 4, 3]))
    elif kind == "hswish":
        builder.h_swish(name, inputs[0])
    elif kind == "swish":
        builder.add(name, "Mul", [*inputs, builder.add(f"{name}/Sigmoid", "Sigmoid", inputs)])
    elif kind in _PLAIN:
        builder.add(name, kind, inputs)
    else:
        raise NotImplementedError(f"{kind} is not written as a TensorFlow operator")


def _split(builder: TfBuilder, name: str, attrs: Mapping[str, Any], source: str) -> None:
    sections = attrs["num_split"]
    axis = builder.const(f"{name}/axis", attrs["axis"])
    if isinstance(sections, int):
        builder.add(name, "Split", [axis, source], num_split=sections)
    else:
        builder.add(name, "SplitV", [source, builder.const(f"{name}/sizes", sections), axis])


def _padding(attrs: Mapping[str, Any]) -> dict[str, Any]:
    if "padding" in attrs:
        return {"padding": attrs["padding"]}
    top, left, bottom, right = attrs["pads"]
    return {"padding": "EXPLICIT", "explicit_paddings": [0, 0, top, bottom, left, right, 0, 0]}
