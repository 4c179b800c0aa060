"""Small frozen TensorFlow graphs like those TensorFlow and Keras export, built without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto import attr_value_pb2, graph_pb2, node_def_pb2, tensor_shape_pb2

#: NumPy type name -> DataType number.
DTYPES = {"float32": 1, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


def set_attr(node: node_def_pb2.NodeDef, key: str, value: Any) -> None:
    """Set attribute ``key`` of ``node``; the value's Python type selects the message field."""
    attr: attr_value_pb2.AttrValue = node.attr[key]
    if isinstance(value, bool):
        attr.b = value
    elif isinstance(value, int):
        attr.i = value
    elif isinstance(value, float):
        attr.f = value
    elif isinstance(value, str):
        attr.s = value.encode()
    elif isinstance(value, np.dtype):
        attr.type = DTYPES[value.name]
    elif isinstance(value, tensor_shape_pb2.TensorShapeProto):
        attr.shape.CopyFrom(value)
    elif isinstance(value, attr_value_pb2.NameAttrList):
        attr.func.CopyFrom(value)
    else:
        attr.list.i.extend(value)


def shape_proto(shape: Sequence[int]) -> tensor_shape_pb2.TensorShapeProto:
    """Convert ``shape`` (-1 where unknown) to a message."""
    proto = tensor_shape_pb2.TensorShapeProto()
    for size in shape:
        proto.dim.add(size=size)
    return proto


class TfBuilder:
    """Builds a GraphDef. Methods that add a node return its name.

    Args:
        shape: shape of the placeholder ``input``; None adds no placeholder.

    Attributes:
        graph_def: the message built so far.
    """

    def __init__(self, shape: Sequence[int] | None = (-1, 32, 32, 3)) -> None:
        self.graph_def = graph_pb2.GraphDef()
        if shape is not None:
            self.placeholder("input", shape)

    def placeholder(self, name: str, shape: Sequence[int]) -> str:
        """Add an input."""
        return self.add(name, "Placeholder", [], shape=shape_proto(shape))

    def add(self, name: str, op: str, inputs: Sequence[str], **attrs: Any) -> str:
        """Add any operator."""
        node = self.graph_def.node.add(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            set_attr(node, key, value)
        return name

    def const(self, name: str, value: npt.ArrayLike) -> str:
        """Add a constant with its values."""
        array = np.asarray(value)
        array = array.astype({"f": "float32", "i": "int32", "b": "bool"}[array.dtype.kind])
        node = self.graph_def.node.add(name=name, op="Const")
        tensor = node.attr["value"].tensor
        tensor.dtype = DTYPES[array.dtype.name]
        tensor.tensor_shape.CopyFrom(shape_proto(array.shape))
        tensor.tensor_content = array.tobytes()
        return name

    def weights(self, name: str, *shape: int) -> str:
        """Add a constant of ``shape`` without content, which the reader never needs."""
        node = self.graph_def.node.add(name=name, op="Const")
        tensor = node.attr["value"].tensor
        tensor.dtype = DTYPES["float32"]
        tensor.tensor_shape.CopyFrom(shape_proto(shape))
        return name

    def with_const(self, name: str, op: str, source: str, value: npt.ArrayLike, **attrs: Any) -> str:
        """Add ``op`` with the operands ``source`` and a constant."""
        return self.add(name, op, [source, self.const(f"{name}/const", value)], **attrs)

    def conv(
        self,
        name: str,
        source: str,
        weights: Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str = "SAME",
        depthwise: bool = False,
        **attrs: Any,
    ) -> str:
        """Add a convolution whose ``weights`` are ``(*kernel, in, out or multiplier)``."""
        return self.add(
            name,
            "DepthwiseConv2dNative" if depthwise else "Conv2D",
            [source, self.weights(f"{name}/weights", *weights)],
            strides=[1, stride, stride, 1] if isinstance(stride, int) else stride,
            padding=padding,
            **attrs,
        )

    def bias(self, name: str, source: str, channels: int, **attrs: Any) -> str:
        """Add a bias."""
        return self.add(name, "BiasAdd", [source, self.weights(f"{name}/bias", channels)], **attrs)

    def batch_norm(self, name: str, source: str, channels: int, **attrs: Any) -> str:
        """Add a fused batch norm."""
        statistics = [
            self.weights(f"{name}/{part}", channels) for part in ("gamma", "beta", "mean", "variance")
        ]
        return self.add(name, "FusedBatchNormV3", [source, *statistics], is_training=False, **attrs)

    def pool(
        self,
        name: str,
        source: str,
        op: str = "MaxPool",
        size: int = 2,
        stride: int = 2,
        padding: str = "SAME",
    ) -> str:
        """Add a pool with square windows."""
        return self.add(
            name, op, [source], ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding=padding
        )

    def mean(self, name: str, source: str, axes: Sequence[int] = (1, 2), keep_dims: bool = False) -> str:
        """Add a mean."""
        return self.with_const(name, "Mean", source, list(axes), keep_dims=keep_dims)

    def dense(self, name: str, source: str, in_features: int, out_features: int, **attrs: Any) -> str:
        """Add a dense layer: a product with a matrix of weights."""
        return self.add(
            name, "MatMul", [source, self.weights(f"{name}/w", in_features, out_features)], **attrs
        )

    def h_swish(self, name: str, source: str, divides: bool = False) -> str:
        """Add ``x * relu6(x + 3) / 6``: divide at the end if ``divides``, else multiply by 1/6 first."""
        shifted = self.with_const(f"{name}/add", "AddV2", source, 3.0)
        clipped = self.add(f"{name}/relu6", "Relu6", [shifted])
        if divides:
            product = self.add(f"{name}/mul", "Mul", [source, clipped])
            return self.with_const(name, "RealDiv", product, 6.0)
        gate = self.with_const(f"{name}/gate", "Mul", clipped, 1 / 6)
        return self.add(name, "Mul", [source, gate])


def official_mobilenet(blocks: int = 2, width: int = 16) -> graph_pb2.GraphDef:
    """Inverted residuals with squeeze-excite and h-swish, named and written as in nn-Meter's benchmark.

    The moving variance passes through an ``Identity`` called ``read``. Squeeze-excite pools with a window as
    large as the map.
    """
    b = TfBuilder(None)
    last = b.placeholder("input_im_0", (1, 56, 56, 3))
    last = b.conv("conv1.conv/Conv2D", last, (3, 3, 3, width), 2)
    for i in range(blocks):
        scope, entry = f"layer{i + 2}", last
        moving = b.weights(f"{scope}.bn/moving_variance", 4 * width)
        b.add(f"{scope}.bn/moving_variance/read", "Identity", [moving])
        last = b.conv(f"{scope}.1.conv/Conv2D", last, (1, 1, width, 4 * width))
        statistics = [b.weights(f"{scope}.bn/{part}", 4 * width) for part in ("gamma", "beta", "mean")]
        last = b.add(
            f"{scope}.bn/FusedBatchNorm",
            "FusedBatchNorm",
            [last, *statistics, f"{scope}.bn/moving_variance/read"],
        )
        last = b.h_swish(f"{scope}.hswish", last)
        last = b.conv(f"{scope}.2.depconv/depthwise", last, (3, 3, 4 * width, 1), depthwise=True)
        pooled = b.pool(f"{scope}.se/AvgPool", last, "AvgPool", 28, 1, "VALID")
        gate = b.conv(f"{scope}.se/conv2d/Conv2D", pooled, (1, 1, 4 * width, width))
        gate = b.add(f"{scope}.se/Relu", "Relu", [b.bias(f"{scope}.se/conv2d/BiasAdd", gate, width)])
        gate = b.conv(f"{scope}.se/conv2d_1/Conv2D", gate, (1, 1, width, 4 * width))
        gate = b.bias(f"{scope}.se/conv2d_1/BiasAdd", gate, 4 * width)
        gate = b.add(f"{scope}.se/Relu6", "Relu6", [b.with_const(f"{scope}.se/Add", "Add", gate, 3.0)])
        gate = b.with_const(f"{scope}.se/mul", "Mul", gate, 0.16667)
        last = b.add(f"{scope}.se/mul_1", "Mul", [gate, last])
        last = b.conv(f"{scope}.3.conv/Conv2D", last, (1, 1, 4 * width, width))
        last = b.add(f"{scope}.add", "Add", [last, entry])
    pooled = b.mean("Mean", last, keep_dims=True)
    flat = b.with_const("Reshape", "Reshape", pooled, [-1, width])
    b.dense("fc/MatMul", flat, width, 10)
    return b.graph_def
