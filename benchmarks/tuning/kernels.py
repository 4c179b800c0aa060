"""The kernels that cost models are compared on: the common kinds, in sizes of networks for ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import networkx as nx

from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph


class KernelOfNetwork(NamedTuple):
    """A kernel with its batch norm and ReLU, as a network has it.

    Attributes:
        title: what it is, and of which network.
        shape: of its input.
        op: its operator.
        attributes: of the operator.
    """

    title: str
    shape: tuple[int, ...]
    op: str
    attributes: Mapping[str, Any]


def _conv(out: int, size: int, stride: int = 1, groups: int = 1) -> dict[str, Any]:
    padding = (size // 2, size // 2)
    return {
        "out_channels": out, "kernel": (size, size), "stride": (stride, stride),
        "padding": (padding, padding), "groups": groups, "bias": False,
    }  # fmt: skip


KERNELS: Mapping[str, KernelOfNetwork] = {
    "conv3x3": KernelOfNetwork("3×3 convolution of ResNet-18", (1, 128, 28, 28), "conv", _conv(128, 3)),
    "conv1x1": KernelOfNetwork("1×1 convolution of MobileNetV2", (1, 192, 28, 28), "conv", _conv(32, 1)),
    "dwconv": KernelOfNetwork(
        "depthwise convolution of MobileNetV2", (1, 144, 56, 56), "dwconv", _conv(144, 3, groups=144)
    ),
    "stem": KernelOfNetwork("first convolution of MobileNetV2", (1, 3, 224, 224), "conv", _conv(32, 3, 2)),
    "fc": KernelOfNetwork("classifier of MobileNetV2", (1, 1280), "fc", {"out_features": 1000}),
}


def kernel_graph(name: str) -> nx.DiGraph:
    """The model graph of one of ``KERNELS``: its operator, a batch norm and a ReLU; a dense layer alone."""
    kernel = KERNELS[name]
    graph = new_graph(name)
    add_input(graph, "x", kernel.shape)
    add_op(graph, "op", kernel.op, ["x"], kernel.attributes)
    if kernel.op != "fc":
        add_op(graph, "bn", "bn", ["op"])
        add_op(graph, "relu", "relu", ["bn"])
    return finish(graph)
