"""Write ONNX: a model graph as a file that a runtime can run, with random weights.

An operator becomes the node of its name, or nodes called ``name/part`` of which the last computes its result.
So whatever a runtime calls its kernels leads back to the operators of the model graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
import numpy as np

from ...errors import ReaderError
from ...extras import load_extra
from ...graph.model_graph import output_names
from ...graph.traversal import topological_order
from ...ops import OPERATORS
from ...ops.recurrent import GATES
from ..entries import fills
from ..weights import random_weights

#: ONNX's version of the operators that are written, and of the file.
_OPSET, _IR_VERSION = 18, 8
#: Separates the name of an operator from that of its part.
PART = "/"

_WRITERS: dict[str, Callable[[_Node], None]] = {}
_writes = fills(_WRITERS)


def to_onnx(graph: nx.DiGraph, seed: int = 0) -> bytes:
    """Write a finished model graph as an ONNX model.

    Args:
        graph: a finished model graph; it is not changed.
        seed: decides the weights, which are small random numbers.

    Raises:
        ReaderError: the graph has an operator that this writer does not know.
        MissingPackageError: onnx is not installed.
    """
    onnx = load_extra("onnx", "onnx", "writing ONNX files")
    writer = _Writer(onnx, seed)
    inputs = []
    for name in topological_order(graph):
        data = graph.nodes[name]
        if data["op"] == "input":
            shape = list(data["out_shapes"][0])
            inputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        else:
            writer.write(_Node(writer, name, data))
    shapes = {name: list(graph.nodes[name]["out_shapes"][0]) for name in output_names(graph)}
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    made = onnx.helper.make_graph(writer.nodes, "graph", inputs, outputs, writer.constants)
    opset = onnx.helper.make_opsetid("", _OPSET)
    model = onnx.helper.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def operator_of(node: str) -> str:
    """Name of the operator that an ONNX node of :func:`to_onnx` belongs to.

    >>> operator_of("block3.act/sigmoid")
    'block3.act'
    """
    return node.partition(PART)[0]


class _Writer:
    """Collects the nodes and constants of a model."""

    def __init__(self, onnx: Any, seed: int) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._onnx = onnx
        self._seed = seed

    def write(self, node: _Node) -> None:
        """Write one operator by its entry, or as the ONNX operator that its declaration names."""
        declared = OPERATORS.get(node.op)
        if node.op in _WRITERS:
            _WRITERS[node.op](node)
        elif declared is not None and declared.onnx and not node.attrs.keys() - {"params"}:
            node.add(declared.onnx[0], node.inputs)
        else:
            raise ReaderError(f"{node.name!r}: an operator {node.op!r} cannot be written to ONNX")

    def constant(self, name: str, values: Any) -> str:
        """Add a constant, and return its name."""
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def weights(self, name: str, shape: Sequence[int]) -> str:
        """Add random weights, and return their name."""
        return self.constant(name, random_weights(self._seed, name, shape))

    def node(self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Any) -> None:
        """Add a node."""
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), list(outputs), name=name, **attrs))


class _Node:
    """One operator to be written.

    Attributes:
        name, op, attrs: as in the model graph.
        inputs: names of the tensors that it reads.
        shape, out_shape: shape of the first operand and of the first result.
    """

    def __init__(self, writer: _Writer, name: str, data: dict[str, Any]) -> None:
        self._writer = writer
        self.name, self.op, self.attrs = name, data["op"], data["attrs"]
        self.inputs = [tensor(*operand) for operand in data["inputs"]]
        self.shape: tuple[int, ...] = data["in_shapes"][0]
        self.out_shape: tuple[int, ...] = data["out_shapes"][0]
        self.results = len(data["out_shapes"])

    @property
    def x(self) -> str:
        """Name of the first operand."""
        return self.inputs[0]

    def add(self, kind: str, inputs: Sequence[str], part: str = "", outputs: int = 1, **attrs: Any) -> str:
        """Add a node, the last of the operator unless it is a ``part``; return the name of its first result.

        Further results are those of the operator.
        """
        name = f"{self.name}{PART}{part}" if part else self.name
        results = [name, *(tensor(self.name, slot) for slot in range(1, outputs))]
        self._writer.node(kind, name, inputs, results, attrs)
        return name

    def weights(self, part: str, *shape: int) -> str:
        """Add random weights, and return their name."""
        return self._writer.weights(f"{self.name}{PART}{part}", shape)

    def floats(self, part: str, values: Any) -> str:
        """Add a constant of floats, and return its name."""
        return self._writer.constant(f"{self.name}{PART}{part}", np.asarray(values, np.float32))

    def ints(self, part: str, values: Sequence[int]) -> str:
        """Add a constant of sizes or axes, and return its name."""
        return self._writer.constant(f"{self.name}{PART}{part}", np.asarray(values, np.int64))


def tensor(name: str, slot: int = 0) -> str:
    """Name of a tensor: that of its producer, and the number of the result if it is not the first."""
    return name if slot == 0 else f"{name}{PART}result{slot}"


def _window(node: _Node) -> dict[str, Any]:
    """Attributes of an operator with a window."""
    rank = len(node.shape) - 2
    ones, padding = (1,) * rank, node.attrs.get("padding", "valid")
    found: dict[str, Any] = {
        "kernel_shape": list(node.attrs["kernel"]),
        "strides": list(node.attrs.get("stride") or ones),
    }
    if (dilation := node.attrs.get("dilation")) and tuple(dilation) != ones:
        found["dilations"] = list(dilation)
    if padding == "same":
        found["auto_pad"] = "SAME_UPPER"
    elif padding != "valid":
        found["pads"] = [before for before, _ in padding] + [after for _, after in padding]
    return found


@_writes("conv", "dwconv")
def _conv(node: _Node) -> None:
    channels, width = node.shape[1], node.out_shape[1]
    groups = channels if node.op == "dwconv" else node.attrs.get("groups", 1)
    kernel = node.weights("weight", width, channels // groups, *node.attrs["kernel"])
    bias = [node.weights("bias", width)] if node.attrs.get("bias") else []
    node.add("Conv", [node.x, kernel, *bias], group=groups, **_window(node))


@_writes("convtranspose")
def _convtranspose(node: _Node) -> None:
    channels, width, groups = node.shape[1], node.out_shape[1], node.attrs.get("groups", 1)
    kernel = node.weights("weight", channels, width // groups, *node.attrs["kernel"])
    bias = [node.weights("bias", width)] if node.attrs.get("bias") else []
    given = node.attrs.get("output_padding")
    extra: dict[str, Any] = {"output_padding": list(given)} if given else {}
    node.add("ConvTranspose", [node.x, kernel, *bias], group=groups, **_window(node), **extra)


@_writes("fc")
def _fc(node: _Node) -> None:
    inner, outer = node.shape[-1], node.out_shape[-1]
    bias = [node.weights("bias", outer)] if node.attrs.get("bias", True) else []
    if len(node.shape) == 2:
        node.add("Gemm", [node.x, node.weights("weight", outer, inner), *bias], transB=1)
    elif bias:
        product = node.add("MatMul", [node.x, node.weights("weight", inner, outer)], "product")
        node.add("Add", [product, *bias])
    else:
        node.add("MatMul", [node.x, node.weights("weight", inner, outer)])


@_writes("matmul")
def _matmul(node: _Node) -> None:
    node.add("MatMul", _with_constant(node))


@_writes("lstm", "gru", "rnn")
def _recurrent(node: _Node) -> None:
    """ONNX has an axis for the directions after the steps, and no projections."""
    if node.attrs.get("projected"):
        raise ReaderError(f"{node.name!r}: a projected {node.op!r} cannot be written to ONNX")
    steps, batch, features = node.shape
    hidden, directions = node.attrs["hidden"], node.attrs.get("directions", 1)
    gates = GATES[node.op] * hidden
    operands = [
        node.x,
        node.weights("weight", directions, gates, features),
        node.weights("recurrent", directions, gates, hidden),
        node.weights("bias", directions, 2 * gates) if node.attrs.get("bias") else "",
        "",
        *node.inputs[1:],
    ]
    direction = "bidirectional" if directions == 2 else "forward"
    result = node.add(OPERATORS[node.op].onnx[0], operands, "steps", node.results, hidden_size=hidden,
                      direction=direction)  # fmt: skip
    if directions == 2:
        result = node.add("Transpose", [result], "together", perm=[0, 2, 1, 3])
    node.add("Reshape", [result, node.ints("shape", (steps, batch, directions * hidden))])


@_writes("add", "sub", "mul", "div", "maximum", "minimum")
def _element_wise(node: _Node) -> None:
    kind, operands = OPERATORS[node.op].onnx[0], _with_constant(node)
    result, *rest = operands
    for i, operand in enumerate(rest):
        result = node.add(kind, [result, operand], "" if i == len(rest) - 1 else f"of{i}")


def _with_constant(node: _Node) -> list[str]:
    """The operands, with the constant one in its place."""
    if "const" in node.attrs:
        constant = node.floats("constant", node.attrs["const"])
    elif "const_shape" in node.attrs:
        constant = node.weights("constant", *node.attrs["const_shape"])
    else:
        return node.inputs
    return [constant, *node.inputs] if node.attrs.get("const_first") else [*node.inputs, constant]


@_writes("bn")
def _bn(node: _Node) -> None:
    channels = node.shape[1]
    scale, shift = node.floats("scale", np.ones(channels)), node.weights("shift", channels)
    mean, variance = node.weights("mean", channels), node.floats("variance", np.ones(channels))
    node.add("BatchNormalization", [node.x, scale, shift, mean, variance])


@_writes("norm")
def _norm(node: _Node) -> None:
    """A norm over the last dimension."""
    scale, shift = node.floats("scale", np.ones(node.shape[-1])), node.weights("shift", node.shape[-1])
    node.add("LayerNormalization", [node.x, scale, shift], axis=-1)


@_writes("relu6")
def _relu6(node: _Node) -> None:
    node.add("Clip", [node.x, node.floats("low", 0.0), node.floats("high", 6.0)])


@_writes("swish")
def _swish(node: _Node) -> None:
    node.add("Mul", [node.x, node.add("Sigmoid", [node.x], "gate")])


@_writes("gelu")
def _gelu(node: _Node) -> None:
    """``x / 2 * (1 + erf(x / sqrt(2)))``, as exporters to older opsets write it."""
    scaled = node.add("Div", [node.x, node.floats("root", math.sqrt(2))], "scaled")
    shifted = node.add("Add", [node.add("Erf", [scaled], "erf"), node.floats("one", 1.0)], "shifted")
    product = node.add("Mul", [node.x, shifted], "product")
    node.add("Mul", [product, node.floats("half", 0.5)])


@_writes("hsigmoid")
def _hsigmoid(node: _Node) -> None:
    node.add("HardSigmoid", [node.x], alpha=1 / 6, beta=0.5)


@_writes("softmax", "logsoftmax")
def _softmax(node: _Node) -> None:
    node.add(OPERATORS[node.op].onnx[0], [node.x], axis=int(node.attrs.get("axis", -1)))


@_writes("maxpool", "avgpool")
def _pool(node: _Node) -> None:
    more: dict[str, Any] = {"ceil_mode": 1} if node.attrs.get("ceil_mode") else {}
    node.add(OPERATORS[node.op].onnx[0], [node.x], **_window(node), **more)


@_writes("globalavgpool")
def _globalavgpool(node: _Node) -> None:
    if node.attrs.get("keepdims", True):
        node.add("GlobalAveragePool", [node.x])
    else:
        pooled = node.add("GlobalAveragePool", [node.x], "pool")
        node.add("Flatten", [pooled], axis=1)


@_writes("mean", "sum", "max", "min")
def _reduction(node: _Node) -> None:
    axes = node.ints("axes", node.attrs["axes"])
    node.add(OPERATORS[node.op].onnx[0], [node.x, axes], keepdims=int(node.attrs.get("keepdims", False)))


@_writes("concat")
def _concat(node: _Node) -> None:
    node.add("Concat", node.inputs, axis=int(node.attrs.get("axis", 1)))


@_writes("split")
def _split(node: _Node) -> None:
    axis, sections = int(node.attrs.get("axis", 1)), node.attrs["sections"]
    if isinstance(sections, int):
        sections = [node.shape[axis] // sections] * sections
    node.add("Split", [node.x, node.ints("sizes", sections)], outputs=node.results, axis=axis)


@_writes("reshape", "flatten", "squeeze", "unsqueeze")
def _view(node: _Node) -> None:
    node.add("Reshape", [node.x, node.ints("shape", node.out_shape)])


@_writes("transpose")
def _transpose(node: _Node) -> None:
    node.add("Transpose", [node.x], perm=list(node.attrs["perm"]))


@_writes("channelshuffle")
def _channelshuffle(node: _Node) -> None:
    batch, channels, *spatial = node.shape
    groups = node.attrs["groups"]
    apart = node.ints("apart", (batch, groups, channels // groups, *spatial))
    split = node.add("Reshape", [node.x, apart], "split")
    swapped = node.add("Transpose", [split], "swap", perm=[0, 2, 1, *range(3, len(node.shape) + 1)])
    node.add("Reshape", [swapped, node.ints("shape", node.shape)])


@_writes("pixelshuffle", "pixelunshuffle")
def _pixelshuffle(node: _Node) -> None:
    more: dict[str, Any] = {"mode": "CRD"} if node.op == "pixelshuffle" else {}
    node.add(OPERATORS[node.op].onnx[0], [node.x], blocksize=int(node.attrs["factor"]), **more)


@_writes("upsample")
def _upsample(node: _Node) -> None:
    """Nearest values, which most networks use."""
    sizes = node.ints("sizes", node.out_shape)
    node.add("Resize", [node.x, "", "", sizes], mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor")


@_writes("pad")
def _pad(node: _Node) -> None:
    padding = node.attrs["padding"]
    pads = node.ints("pads", [before for before, _ in padding] + [after for _, after in padding])
    node.add("Pad", [node.x, pads])
