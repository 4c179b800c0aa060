"""Small models in nn-Meter IR, written like the official files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class IrBuilder:
    """Builds an nn-Meter IR dict. Shapes are NHWC; nodes refer to their inputs by name.

    Attributes:
        nodes: the IR.
    """

    def __init__(self, shape: Sequence[int] = (1, 32, 32, 3)) -> None:
        self.nodes: dict[str, Any] = {}
        self.shapes: dict[str, list[int]] = {}
        self.add("input", "Placeholder", [], shape, {"shape": list(shape)})

    def add(
        self, name: str, kind: str, inbounds: Sequence[str], shape: Sequence[int], attrs: dict[str, Any]
    ) -> str:
        """Add one node of output ``shape`` and return its name."""
        self.shapes[name] = list(shape)
        self.nodes[name] = {
            "inbounds": list(inbounds),
            "outbounds": [],
            "attr": {
                "name": name,
                "type": kind,
                "attr": attrs,
                "input_shape": [self.shapes[i] for i in inbounds if i in self.shapes],
                "output_shape": [list(shape)],
            },
        }
        for inbound in inbounds:
            if inbound in self.nodes:
                self.nodes[inbound]["outbounds"].append(name)
        return name

    def const(self, name: str, shape: Sequence[int], values: Sequence[float] = ()) -> str:
        """Add a ``Const`` node, a weight or a scalar operand."""
        attrs = {"dtype": 1, "tensor_shape": list(shape), "constant": list(values)}
        return self.add(name, "Const", [], shape, attrs)

    def conv(
        self, name: str, source: str, width: int, kernel: int = 3, stride: int = 1, depthwise: bool = False
    ) -> str:
        """Add a SAME convolution with its weights as a ``Const`` and return its name."""
        batch, height, breadth, channels = self.shapes[source]
        weight = [kernel, kernel, channels, 1 if depthwise else width]
        self.const(f"{name}/weights", weight)
        return self.add(
            name,
            "DepthwiseConv2dNative" if depthwise else "Conv2D",
            [source, f"{name}/weights"],
            [batch, -(-height // stride), -(-breadth // stride), channels if depthwise else width],
            {
                "padding": "SAME",
                "strides": [stride, stride],
                "dilations": [1, 1],
                "data_format": "NHWC",
                "kernel_shape": [kernel, kernel],
                "weight_shape": weight,
                "pads": [0, 0, 0, 0],
            },
        )

    def unary(self, name: str, kind: str, source: str, *more: str) -> str:
        """Add a node that keeps its input's shape; ``more`` are further operands."""
        return self.add(name, kind, [source, *more], self.shapes[source], {})

    def pool(self, name: str, source: str, kind: str = "MaxPool", size: int = 2) -> str:
        """Add a pool with stride ``size``."""
        batch, height, breadth, channels = self.shapes[source]
        attrs = {"ksize": [size, size], "strides": [size, size], "padding": "SAME"}
        return self.add(
            name, kind, [source], [batch, -(-height // size), -(-breadth // size), channels], attrs
        )

    def classifier(self, source: str, classes: int = 10) -> str:
        """Add a global mean and a dense layer, and return the dense layer's name."""
        channels = self.shapes[source][-1]
        pooled = self.add("mean", "Mean", [source], [1, channels], {"reduction_indices": [1, 2]})
        self.const("fc/weights", [channels, classes])
        return self.add("fc", "MatMul", [pooled, "fc/weights"], [1, classes], {})


def small_cnn(width: int = 8, kernel: int = 3, size: int = 32, blocks: int = 2) -> dict[str, Any]:
    """A stem, residual blocks with batch norm and bias, and a classifier, in nn-Meter IR."""
    b = IrBuilder((1, size, size, 3))
    last = b.conv("stem", "input", width, kernel, 2)
    b.const("stem/bias", [width])
    last = b.unary("stem/BiasAdd", "BiasAdd", last, "stem/bias")
    last = b.unary("stem/relu", "Relu", last)
    for i in range(blocks):
        inner = b.conv(f"b{i}/expand", last, 2 * width, 1)
        inner = b.unary(f"b{i}/bn", "FusedBatchNorm", inner, f"b{i}/moving_variance/read")
        inner = b.unary(f"b{i}/relu6", "Relu6", inner)
        inner = b.conv(f"b{i}/depthwise", inner, 2 * width, kernel, depthwise=True)
        inner = b.conv(f"b{i}/project", inner, width, 1)
        last = b.unary(f"b{i}/add", "Add", inner, last)
    b.classifier(b.pool("pool", last))
    return b.nodes
