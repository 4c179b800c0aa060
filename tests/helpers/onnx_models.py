"""Short ways to build ONNX models, for tests of the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nnmeter_nas.kernels.fusion import Kernel, fuse, parse_rules

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
IMAGE = (1, 8, 12, 10)
RULES = parse_rules(["conv->bn", "conv->relu", "conv->hswish", "bn->relu", "add->relu", "fc->relu"])


def node(op: str, inputs: str, outputs: str, name: str = "", domain: str = "", **attrs: Any) -> NodeProto:
    """An operator. Names of inputs and outputs are separated by spaces; ``-`` means none."""
    names = [["" if n == "-" else n for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, name=name or None, domain=domain, **attrs)


def weights(*shape: int) -> np.ndarray:
    """Nonzero weights."""
    return np.ones(shape, np.float32)


def ints(*values: int) -> np.ndarray:
    """Integers for shape arithmetic, such as sizes or axes."""
    return np.array(values, np.int64)


def model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Sequence[Any]] | None = None,
    outputs: Mapping[str, Sequence[Any] | None] | Sequence[str] = ("y",),
    opset: int = 17,
    **kwargs: Any,
) -> onnx.ModelProto:
    """A model. By default its input is ``x`` of shape ``IMAGE``."""
    shapes = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in (inputs or {"x": IMAGE}).items()],
        [onnx.ValueInfoProto(name=n) if shape is None else helper.make_tensor_value_info(n, FLOAT, shape)
         for n, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
        value_info=kwargs.pop("value_info", []),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *kwargs.pop("domains", [])]
    return helper.make_model(graph, opset_imports=opsets, **kwargs)


def layer(
    op: str,
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    shape: Sequence[int] = IMAGE,
    outputs: str = "y",
    absent: int = 0,
    **attrs: Any,
) -> onnx.ModelProto:
    """A tanh, then an operator on its output, ``absent`` omitted inputs, and ``constants``."""
    inputs = " ".join(["before", *["-"] * absent, *(constants or {})])
    nodes = [node("Tanh", "x", "before"), node(op, inputs, outputs, **attrs)]
    return model(nodes, constants, {"x": shape}, outputs.split(), opset)


def kernels(graph: Any) -> list[Kernel]:
    """Kernels of a model graph under the fusion rules that all devices share."""
    return [kernel for _, kernel in fuse(graph, RULES).nodes(data="kernel")]


def kernel_types(graph: Any) -> list[str]:
    """Types of the kernels of a model graph."""
    return [kernel.type for kernel in kernels(graph)]


def ops(graph: Any) -> list[str]:
    """Operators of a model graph, without inputs."""
    return [op for _, op in graph.nodes(data="op") if op != "input"]
