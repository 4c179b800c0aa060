"""Write TFLite: a model graph as a file that a runtime can run, with random weights.

The file is what TensorFlow's converter makes of such a network: feature maps have their channels last, a
batch norm is folded into the weights before it, and an activation is part of the operator before it if TFLite
can say so. A transposition is written where somebody needs the values in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ...errors import ReaderError
from ...graph.memory import execution_order
from ...graph.model_graph import output_names
from ...graph.traversal import topological_order
from ..entries import fills
from ..weights import random_weights
from .file import TfliteFile

Shape = tuple[int, ...]
Floats = npt.NDArray[np.float32]

_WRITERS: dict[str, Callable[[_Node], None]] = {}
_writes = fills(_WRITERS)

#: Activations that can be part of the operator before them, and what such an operator calls them.
_ACTIVATIONS = {"relu": "RELU", "relu6": "RELU6"}
#: Operators that can have one.
_HAVE_ACTIVATION = frozenset(
    {"conv", "dwconv", "convtranspose", "fc", "bn", "add", "sub", "mul", "div", "maxpool", "avgpool"}
)
#: Operators whose weights take in a batch norm.
_FOLD_BN = frozenset({"conv", "dwconv", "convtranspose", "fc"})
#: Functions of each value that are one operator.
_FUNCTIONS = {
    "relu": "RELU", "relu6": "RELU6", "elu": "ELU", "hswish": "HARD_SWISH", "sigmoid": "LOGISTIC",
    "tanh": "TANH", "neg": "NEG", "abs": "ABS", "sign": "SIGN", "floor": "FLOOR", "ceil": "CEIL",
    "round": "ROUND", "sqrt": "SQRT", "rsqrt": "RSQRT", "exp": "EXP", "log": "LOG", "sin": "SIN",
    "cos": "COS",
}  # fmt: skip
_ARITHMETIC = {
    "add": ("ADD", "AddOptions"), "sub": ("SUB", "SubOptions"), "mul": ("MUL", "MulOptions"),
    "div": ("DIV", "DivOptions"), "maximum": ("MAXIMUM", "MaximumMinimumOptions"),
    "minimum": ("MINIMUM", "MaximumMinimumOptions"),
}  # fmt: skip
_REDUCTIONS = {"mean": "MEAN", "sum": "SUM", "max": "REDUCE_MAX", "min": "REDUCE_MIN"}
#: Operators that read values in the order of the model graph, whatever they are.
_READ_IN_ORDER = frozenset({"fc", "matmul", "lstm", "norm", "reshape", "flatten", "transpose", "softmax"})
#: Dimensions of a feature map.
_MAP = 4
#: What is added to a variance, in ONNX by default too.
_EPSILON = 1e-5
#: Parts of an operator are named after it, with this and their number; tensors in another layout end so.
_PART, _TURNED = "/", "/turned"


def operator_of(tensor: str) -> str:
    """Name of the operator of the model graph that a tensor of :func:`to_tflite` belongs to.

    A batch norm and an activation that were written with the operator before them give the tensor its name.

    >>> operator_of("block3.norm/4")
    'block3.norm'
    """
    return tensor.partition(_PART)[0]


def is_layout(tensor: str) -> bool:
    """Whether a tensor holds the values of another in another layout, and belongs to no operator."""
    return tensor.endswith(_TURNED)


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file.

    Attributes:
        index: its number.
        shape: as in the model graph, channels first.
        order: the axes of ``shape`` as they are stored.
    """

    index: int
    shape: Shape
    order: Shape

    @property
    def stored(self) -> list[int]:
        """The sizes as they are stored."""
        return [self.shape[axis] for axis in self.order]

    def reads_as(self, order: Shape) -> bool:
        """Whether its values come in the same sequence as in ``order``."""
        return self._long(self.order) == self._long(order)

    def _long(self, order: Shape) -> list[int]:
        return [axis for axis in order if self.shape[axis] > 1]


def _in_order(rank: int) -> Shape:
    return tuple(range(rank))


def _channels_last(rank: int) -> Shape:
    return (0, *range(2, rank), 1)


def to_tflite(graph: nx.DiGraph, seed: int = 0) -> bytes:
    """Write a finished model graph as a TFLite model.

    Weights and results are those of :func:`nnmeter_nas.readers.onnx.writer.to_onnx`, but for what TFLite
    cannot say: pools and transposed convolutions that are padded unlike ``SAME`` are shifted by a pixel, and
    a pixel shuffle takes its channels in TensorFlow's order.

    Args:
        graph: a finished model graph; it is not changed.
        seed: decides the weights, which are small random numbers.

    Raises:
        ReaderError: the graph has an operator that this writer does not know.
        MissingPackageError: ai-edge-litert is not installed.
    """
    writer = _Writer(graph, seed)
    inputs = []
    for name in execution_order(graph):
        if graph.nodes[name]["op"] == "input":
            inputs.append(writer.input(name).index)
        elif name not in writer.absorbed:
            writer.write(name)
    outputs = [writer.output(name).index for name in output_names(graph)]
    return writer.file.to_bytes(inputs, outputs)


class _Writer:
    """Writes operators one after another.

    Attributes:
        file: the file.
        absorbed: operators that are written with the one before them.
    """

    def __init__(self, graph: nx.DiGraph, seed: int) -> None:
        self.file = TfliteFile()
        self._graph, self._seed = graph, seed
        self._outputs = set(output_names(graph))
        self._found: dict[tuple[str, int], _Tensor] = {}
        self._turned: dict[tuple[int, Shape], _Tensor] = {}
        self._folded: dict[str, str] = {}
        self._activated: dict[str, str] = {}
        self.absorbed: set[str] = set()
        for name in topological_order(graph):
            if name not in self.absorbed:
                self._absorb(name)

    def _absorb(self, name: str) -> None:
        """Find the batch norm and the activation that are written with an operator."""
        data, last = self._graph.nodes[name], name
        if data["op"] in _FOLD_BN and len(data["out_shapes"][0]) in (2, _MAP):
            following = self._only_reader(last, ("bn",))
            if following is not None:
                self._folded[name] = last = following
                self.absorbed.add(following)
        if data["op"] in _HAVE_ACTIVATION:
            following = self._only_reader(last, _ACTIVATIONS)
            if following is not None:
                self._activated[name] = following
                self.absorbed.add(following)

    def _only_reader(self, name: str, ops: Sequence[str] | Mapping[str, str]) -> str | None:
        """The operator that alone reads ``name``, if it is one of ``ops``."""
        if name in self._outputs or self._graph.out_degree(name) != 1:
            return None
        [reader] = self._graph.successors(name)
        return str(reader) if self._graph.nodes[reader]["op"] in ops else None

    def input(self, name: str) -> _Tensor:
        """Add an input; a feature map has its channels last, unless its reader is no operator of maps."""
        shape = self._graph.nodes[name]["out_shapes"][0]
        ops = [self._graph.nodes[reader]["op"] for reader in self._graph.successors(name)]
        is_map = len(shape) == _MAP and not (ops and ops[0] in _READ_IN_ORDER)
        return self.put((name, 0), shape, _channels_last(_MAP) if is_map else _in_order(len(shape)))

    def output(self, name: str) -> _Tensor:
        """An output: a feature map as it is, all else in the order of the model graph."""
        found = self._found[name, 0]
        rank = len(found.shape)
        is_map = rank == _MAP and found.order == _channels_last(rank)
        return found if is_map else self.turned(found, _in_order(rank))

    def write(self, name: str) -> None:
        """Write one operator by its entry."""
        data = self._graph.nodes[name]
        entry = _WRITERS.get(data["op"])
        if entry is None:
            raise ReaderError(f"{name!r}: an operator {data['op']!r} cannot be written to TFLite")
        folded, activated = self._folded.get(name), self._activated.get(name)
        activation = "NONE" if activated is None else _ACTIVATIONS[self._graph.nodes[activated]["op"]]
        if unknown := [producer for producer, slot in data["inputs"] if (producer, slot) not in self._found]:
            raise ReaderError(f"{name!r} reads a result of {unknown[0]!r} that TFLite does not tell")
        operands = [self._found[operand] for operand in data["inputs"]]
        entry(_Node(self, name, data, operands, activated or folded or name, folded, activation))

    def put(self, key: tuple[str, int], shape: Shape, order: Shape) -> _Tensor:
        """Add the tensor ``key`` of the model graph."""
        index = self.file.tensor(key[0], [shape[axis] for axis in order])
        return self.note(key, _Tensor(index, shape, order))

    def note(self, key: tuple[str, int], tensor: _Tensor) -> _Tensor:
        """Let ``tensor`` be the tensor ``key`` of the model graph."""
        self._found[key] = tensor
        return tensor

    def turned(self, tensor: _Tensor, order: Shape) -> _Tensor:
        """The tensor stored in ``order``, transposed if it is not."""
        if tensor.order == order:
            return tensor
        key = tensor.index, order
        if key not in self._turned:
            name = f"tensor{tensor.index}{_TURNED}"
            index = self.file.tensor(name, [tensor.shape[axis] for axis in order])
            found = _Tensor(index, tensor.shape, order)
            if tensor.reads_as(order):
                sizes = self.file.ints(f"{name}/shape", found.stored)
                self.file.operator("RESHAPE", [tensor.index, sizes], [found.index], "ReshapeOptions",
                                   newShape=found.stored)
            else:
                perm = self.file.ints(f"{name}/perm", [tensor.order.index(axis) for axis in order])
                self.file.operator("TRANSPOSE", [tensor.index, perm], [found.index], "TransposeOptions")
            self._turned[key] = found
        return self._turned[key]

    def weights(self, name: str, shape: Sequence[int]) -> Floats:
        """Random weights."""
        return random_weights(self._seed, name, shape)


class _Node:
    """One operator to be written.

    Attributes:
        name, op, attrs: as in the model graph.
        operands: the tensors that it reads.
        shape, out_shape: shape of the first operand and of the first result, channels first.
        out_shapes: shapes of all results.
        activation: number of the activation that is part of it.
    """

    def __init__(
        self,
        writer: _Writer,
        name: str,
        data: Mapping[str, Any],
        operands: list[_Tensor],
        last: str,
        folded: str | None,
        activation: str,
    ) -> None:
        self.name, self.op, self.attrs = name, data["op"], data["attrs"]
        self.operands = operands
        self.shape: Shape = data["in_shapes"][0]
        self.out_shapes: list[Shape] = data["out_shapes"]
        self.out_shape = self.out_shapes[0]
        self.activation = writer.file.number("ActivationFunctionType", activation)
        self._writer, self._last, self._folded = writer, last, folded
        self._parts = 0

    @property
    def x(self) -> _Tensor:
        """The first operand."""
        return self.operands[0]

    def refused(self, why: str) -> ReaderError:
        """An error that says why it cannot be written."""
        return ReaderError(f"{self.name!r}: an operator {self.op!r} {why} cannot be written to TFLite")

    def number(self, enumeration: str, name: str) -> int:
        """What the schema has for a name."""
        return self._writer.file.number(enumeration, name)

    def map(self) -> int:
        """The first operand as a feature map."""
        if len(self.shape) != _MAP:
            raise self.refused(f"of the shape {self.shape}")
        return self.turned(_channels_last(_MAP))

    def plain(self, i: int = 0) -> int:
        """An operand in the order of the model graph."""
        return self.turned(_in_order(len(self.operands[i].shape)), i)

    def turned(self, order: Shape, i: int = 0) -> int:
        """An operand in ``order``."""
        return self._writer.turned(self.operands[i], order).index

    def add(self, kind: str, inputs: Sequence[int], order: Shape, options: str = "", **values: Any) -> None:
        """Add the operator of the schema that computes the result, which is stored in ``order``."""
        out = self._writer.put((self._last, 0), self.out_shape, order)
        self._writer.file.operator(kind, inputs, [out.index], options, **values)

    def add_all(self, kind: str, inputs: Sequence[int], order: Shape, options: str, **values: Any) -> None:
        """Add the operator of the schema that computes all results."""
        outs = [
            self._writer.put((self.name, slot), shape, order) for slot, shape in enumerate(self.out_shapes)
        ]
        self._writer.file.operator(kind, inputs, [out.index for out in outs], options, **values)

    def add_nothing(self, result: _Tensor) -> None:
        """Let a tensor that is there be the result."""
        self._writer.note((self._last, 0), result)

    def part(
        self, kind: str, inputs: Sequence[int], stored: Sequence[int], options: str = "", **values: Any
    ) -> int:
        """Add an operator on the way to the result; return its tensor, which has the sizes ``stored``."""
        index = self._writer.file.tensor(self._part(), stored)
        self._writer.file.operator(kind, inputs, [index], options, **values)
        return index

    def weights(self, part: str, *shape: int, of: str = "") -> Floats:
        """Random weights of this operator, or of another."""
        return self._writer.weights(f"{of or self.name}/{part}", shape)

    def state(self, *shape: int) -> int:
        """Add a tensor that the operator keeps between its steps."""
        return self._writer.file.state(self._part(), shape)

    def floats(self, values: Any) -> int:
        """Add a constant of floats."""
        return self._writer.file.floats(self._part(), values)

    def ints(self, values: Any) -> int:
        """Add a constant of sizes, axes or paddings."""
        return self._writer.file.ints(self._part(), values)

    def _part(self) -> str:
        self._parts += 1
        return f"{self._last}{_PART}{self._parts}"

    def batch_norm(self, name: str) -> tuple[Floats, Floats]:
        """Factors and summands of the batch norm ``name``, by channels of the result."""
        channels = self.out_shape[1]
        mean, shift = self.weights("mean", channels, of=name), self.weights("shift", channels, of=name)
        factors = np.full(channels, 1 / math.sqrt(1 + _EPSILON), np.float32)
        return factors, shift - mean * factors

    def with_bias(self, weights: Floats, axis: int, has_bias: bool) -> tuple[Floats, Floats]:
        """Weights and bias, the batch norm folded in; ``axis`` of the weights holds the channels out."""
        width = weights.shape[axis]
        bias = self.weights("bias", width) if has_bias else np.zeros(width, np.float32)
        if self._folded is None:
            return weights, bias
        factors, summands = self.batch_norm(self._folded)
        along = [-1 if i == axis else 1 for i in range(weights.ndim)]
        return weights * factors.reshape(along), bias * factors + summands


def _window(node: _Node) -> tuple[int, dict[str, int]]:
    """The input of an operator with a window, and its options. Zeros are added where TFLite has no word."""
    x, ones, padding = node.map(), (1, 1), node.attrs.get("padding", "valid")
    kernel, stride = node.attrs["kernel"], node.attrs.get("stride") or ones
    dilation = node.attrs.get("dilation") or ones
    sizes = list(zip(node.shape[2:], node.out_shape[2:], kernel, stride, dilation, strict=True))
    missing = [max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, _, k, s, d in sizes]
    is_pool = node.op in ("maxpool", "avgpool")
    inside = all(out == (n - (k - 1) * d - 1) // s + 1 for n, out, k, s, d in sizes)
    if padding == "same" or _is(padding, [(few // 2, few - few // 2) for few in missing]):
        named = "SAME"
    elif inside and (is_pool or padding == "valid" or not any(before for before, _ in padding)):
        named = "VALID"
    elif is_pool and all(out == math.ceil(n / s) for n, out, _, s, _ in sizes):
        named = "SAME"
    elif padding == "valid" or node.attrs.get("ceil_mode"):
        raise node.refused(f"from {node.shape} to {node.out_shape}")
    else:
        named, (rows, columns) = "VALID", padding
        padded = [1, node.shape[2] + sum(rows), node.shape[3] + sum(columns), node.shape[1]]
        x = node.part("PAD", [x, node.ints([(0, 0), rows, columns, (0, 0)])], padded, "PadOptions")
    return x, {
        "padding": node.number("Padding", named),
        "strideH": stride[0],
        "strideW": stride[1],
        "fusedActivationFunction": node.activation,
    }


def _is(padding: Any, other: list[tuple[int, int]]) -> bool:
    return padding != "valid" and [tuple(sides) for sides in padding] == other


@_writes("conv", "dwconv")
def _conv(node: _Node) -> None:
    x, options = _window(node)
    channels, width = node.shape[1], node.out_shape[1]
    groups = channels if node.op == "dwconv" else node.attrs.get("groups", 1)
    drawn = node.weights("weight", width, channels // groups, *node.attrs["kernel"])
    weights, bias = node.with_bias(drawn, 0, bool(node.attrs.get("bias")))
    rows, columns = node.attrs.get("dilation") or (1, 1)
    options |= {"dilationHFactor": rows, "dilationWFactor": columns}
    if node.op == "dwconv":
        operands = [x, node.floats(weights.transpose(1, 2, 3, 0)), node.floats(bias)]
        node.add("DEPTHWISE_CONV_2D", operands, _channels_last(_MAP), "DepthwiseConv2DOptions",
                 depthMultiplier=width // channels, **options)
    else:
        operands = [x, node.floats(weights.transpose(0, 2, 3, 1)), node.floats(bias)]
        node.add("CONV_2D", operands, _channels_last(_MAP), "Conv2DOptions", **options)


@_writes("convtranspose")
def _convtranspose(node: _Node) -> None:
    x, (channels, width), ones = node.map(), (node.shape[1], node.out_shape[1]), (1, 1)
    kernel, stride = node.attrs["kernel"], node.attrs.get("stride") or ones
    sizes = list(zip(node.shape[2:], node.out_shape[2:], kernel, stride, strict=True))
    if node.attrs.get("groups", 1) != 1 or tuple(node.attrs.get("dilation") or ones) != ones:
        raise node.refused("with groups or dilation")
    if all(out == (n - 1) * s + k for n, out, k, s in sizes):
        named = "VALID"
    elif all(out == n * s for n, out, _, s in sizes):
        named = "SAME"
    else:
        raise node.refused(f"from {node.shape} to {node.out_shape}")
    drawn = node.weights("weight", channels, width, *kernel)
    weights, bias = node.with_bias(drawn, 1, bool(node.attrs.get("bias")))
    shape = node.ints([1, *node.out_shape[2:], width])
    operands = [shape, node.floats(weights.transpose(1, 2, 3, 0)), x, node.floats(bias)]
    node.add("TRANSPOSE_CONV", operands, _channels_last(_MAP), "TransposeConvOptions", strideH=stride[0],
             strideW=stride[1], padding=node.number("Padding", named),
             fusedActivationFunction=node.activation)


@_writes("fc")
def _fc(node: _Node) -> None:
    inner, outer, rank = node.shape[-1], node.out_shape[-1], len(node.shape)
    # As they are drawn for ONNX, which has another operator for more than two dimensions.
    drawn = node.weights("weight", outer, inner) if rank == 2 else node.weights("weight", inner, outer).T
    weights, bias = node.with_bias(drawn, 0, bool(node.attrs.get("bias", True)))
    operands = [node.plain(), node.floats(weights), node.floats(bias)]
    node.add("FULLY_CONNECTED", operands, _in_order(rank), "FullyConnectedOptions", keepNumDims=rank > 2,
             fusedActivationFunction=node.activation)


@_writes("matmul")
def _matmul(node: _Node) -> None:
    operands = [node.plain(i) for i in range(len(node.operands))]
    if "const_shape" in node.attrs:
        constant = node.floats(node.weights("constant", *node.attrs["const_shape"]))
        operands = [constant, *operands] if node.attrs.get("const_first") else [*operands, constant]
    node.add("BATCH_MATMUL", operands, _in_order(len(node.out_shape)), "BatchMatMulOptions")


@_writes("lstm")
def _lstm(node: _Node) -> None:
    """One direction, whose states start as zeros and end with the operator."""
    if node.attrs.get("directions", 1) > 1 or node.attrs.get("projected") or len(node.operands) > 1:
        raise node.refused("of two directions, with a projection or a first state")
    _, batch, features = node.shape
    hidden = node.attrs["hidden"]
    drawn = node.weights("weight", 1, 4 * hidden, features), node.weights("recurrent", 1, 4 * hidden, hidden)
    biases = node.weights("bias", 1, 8 * hidden) if node.attrs.get("bias") else np.zeros((1, 8 * hidden))

    def gates(values: Floats) -> list[int]:
        """One constant for each gate. ONNX, for which they are drawn, has the output's gate second."""
        first, output, forget, cell = np.split(values, 4)
        return [node.floats(part) for part in (first, forget, cell, output)]

    weights, recurrent = (gates(values[0]) for values in drawn)
    bias = gates(biases.reshape(2, -1).sum(axis=0))
    nothing, states = -1, [node.state(batch, hidden), node.state(batch, hidden)]
    # In between stand peepholes and projections, and at the end the norms of each gate.
    operands = [node.plain(), *weights, *recurrent, *[nothing] * 3, *bias, *[nothing] * 2, *states]
    node.add("UNIDIRECTIONAL_SEQUENCE_LSTM", [*operands, *[nothing] * 4], _in_order(3),
             "UnidirectionalSequenceLSTMOptions", timeMajor=True,
             fusedActivationFunction=node.number("ActivationFunctionType", "TANH"))  # fmt: skip


@_writes(*_ARITHMETIC)
def _element_wise(node: _Node) -> None:
    kind, options = _ARITHMETIC[node.op]
    order, operands = _together(node)
    constant = _constant(node, order)
    if constant is not None:
        operands = [constant, *operands] if node.attrs.get("const_first") else [*operands, constant]
    result, *between, last = operands
    for operand in between:
        result = node.part(kind, [result, operand], [node.out_shape[axis] for axis in order], options)
    activation = {"fusedActivationFunction": node.activation} if node.op in _HAVE_ACTIVATION else {}
    node.add(kind, [result, last], order, options, **activation)


def _constant(node: _Node, order: Shape) -> int | None:
    """The constant operand, stored as the others."""
    if "const" in node.attrs:
        values = np.asarray(node.attrs["const"], np.float32)
    elif "const_shape" in node.attrs:
        values = node.weights("constant", *node.attrs["const_shape"])
    else:
        return None
    if values.ndim:
        values = values.reshape([1] * (len(order) - values.ndim) + list(values.shape)).transpose(order)
    return node.floats(values)


def _together(node: _Node) -> tuple[Shape, list[int]]:
    """The order in which operands are stored that are computed with each other, and these operands."""
    rank = len(node.out_shape)
    if any(len(one.shape) != rank for one in node.operands):
        return _in_order(rank), [node.plain(i) for i in range(len(node.operands))]
    order = max(node.operands, key=lambda one: math.prod(one.shape)).order
    return order, [node.turned(order, i) for i in range(len(node.operands))]


@_writes("bn")
def _bn(node: _Node) -> None:
    """A batch norm that no weights took in."""
    rank = len(node.shape)
    order = _channels_last(rank) if rank == _MAP else _in_order(rank)
    along = [-1 if axis == 1 else 1 for axis in order]
    factors, summands = node.batch_norm(node.name)
    stored = [node.shape[axis] for axis in order]
    scaled = node.part("MUL", [node.turned(order), node.floats(factors.reshape(along))], stored, "MulOptions")
    node.add("ADD", [scaled, node.floats(summands.reshape(along))], order, "AddOptions",
             fusedActivationFunction=node.activation)


@_writes("norm")
def _norm(node: _Node) -> None:
    """A norm over the last dimension, as Keras writes it."""
    x, shape = node.plain(), node.shape
    narrow, axis = (*shape[:-1], 1), node.ints([len(shape) - 1])
    mean = node.part("MEAN", [x, axis], narrow, "ReducerOptions", keepDims=True)
    squares = node.part("SQUARED_DIFFERENCE", [x, mean], shape, "SquaredDifferenceOptions")
    variance = node.part("MEAN", [squares, axis], narrow, "ReducerOptions", keepDims=True)
    safe = node.part("ADD", [variance, node.floats(_EPSILON)], narrow, "AddOptions")
    factors = node.part("MUL", [node.part("RSQRT", [safe], narrow), node.floats(np.ones(shape[-1]))], shape,
                        "MulOptions")
    scaled = node.part("MUL", [x, factors], shape, "MulOptions")
    moved = node.part("MUL", [mean, factors], shape, "MulOptions")
    summands = node.part("SUB", [node.floats(node.weights("shift", shape[-1])), moved], shape, "SubOptions")
    node.add("ADD", [scaled, summands], _in_order(len(shape)), "AddOptions")


@_writes(*_FUNCTIONS)
def _function(node: _Node) -> None:
    node.add(_FUNCTIONS[node.op], [node.x.index], node.x.order)


@_writes("leakyrelu")
def _leakyrelu(node: _Node) -> None:
    node.add("LEAKY_RELU", [node.x.index], node.x.order, "LeakyReluOptions", alpha=0.01)


@_writes("gelu")
def _gelu(node: _Node) -> None:
    node.add("GELU", [node.x.index], node.x.order, "GeluOptions")


@_writes("swish")
def _swish(node: _Node) -> None:
    gate = node.part("LOGISTIC", [node.x.index], node.x.stored)
    node.add("MUL", [node.x.index, gate], node.x.order, "MulOptions")


@_writes("hsigmoid")
def _hsigmoid(node: _Node) -> None:
    """``relu6(x + 3) / 6``."""
    relu6 = node.number("ActivationFunctionType", "RELU6")
    limited = node.part("ADD", [node.x.index, node.floats(3.0)], node.x.stored, "AddOptions",
                        fusedActivationFunction=relu6)
    node.add("MUL", [limited, node.floats(1 / 6)], node.x.order, "MulOptions")


@_writes("softmax", "logsoftmax")
def _softmax(node: _Node) -> None:
    """Over the axis that is stored last."""
    axis = int(node.attrs.get("axis", -1)) % len(node.shape)
    order = (*(one for one in node.x.order if one != axis), axis)
    if node.op == "softmax":
        node.add("SOFTMAX", [node.turned(order)], order, "SoftmaxOptions", beta=1.0)
    else:
        node.add("LOG_SOFTMAX", [node.turned(order)], order, "LogSoftmaxOptions")


@_writes("maxpool", "avgpool")
def _pool(node: _Node) -> None:
    x, options = _window(node)
    rows, columns = node.attrs["kernel"]
    kind = "MAX_POOL_2D" if node.op == "maxpool" else "AVERAGE_POOL_2D"
    node.add(kind, [x], _channels_last(_MAP), "Pool2DOptions", filterHeight=rows, filterWidth=columns,
             **options)


@_writes("globalavgpool")
def _globalavgpool(node: _Node) -> None:
    keeps = bool(node.attrs.get("keepdims", True))
    order = _channels_last(_MAP) if keeps else _in_order(2)
    node.add("MEAN", [node.map(), node.ints([1, 2])], order, "ReducerOptions", keepDims=keeps)


@_writes(*_REDUCTIONS)
def _reduction(node: _Node) -> None:
    order = node.x.order
    gone = {axis % len(order) for axis in node.attrs["axes"]}
    axes = node.ints(sorted(order.index(axis) for axis in gone))
    keeps = bool(node.attrs.get("keepdims", False))
    if not keeps:
        left = [axis for axis in order if axis not in gone]
        order = tuple(sorted(left).index(axis) for axis in left)
    node.add(_REDUCTIONS[node.op], [node.x.index, axes], order, "ReducerOptions", keepDims=keeps)


@_writes("concat")
def _concat(node: _Node) -> None:
    order, operands = _together(node)
    axis = order.index(int(node.attrs.get("axis", 1)) % len(order))
    node.add("CONCATENATION", operands, order, "ConcatenationOptions", axis=axis)


@_writes("split")
def _split(node: _Node) -> None:
    order = node.x.order
    axis = int(node.attrs.get("axis", 1)) % len(order)
    sections, stored = [shape[axis] for shape in node.out_shapes], node.ints(order.index(axis))
    if len(set(sections)) == 1:
        node.add_all("SPLIT", [stored, node.x.index], order, "SplitOptions", numSplits=len(sections))
    else:
        operands = [node.x.index, node.ints(sections), stored]
        node.add_all("SPLIT_V", operands, order, "SplitVOptions", numSplits=len(sections))


@_writes("reshape", "flatten", "squeeze", "unsqueeze")
def _view(node: _Node) -> None:
    """Other sizes. Where positions of a map become tokens, or tokens a map, the channels stay last."""
    x, rank = node.x, len(node.out_shape)
    if x.shape[:2] == node.out_shape[:2] and x.order == _channels_last(len(x.shape)):
        order, values = _channels_last(rank), x.index
    else:
        order = _in_order(rank)
        values = x.index if x.reads_as(_in_order(len(x.shape))) else node.plain()
    shape = [node.out_shape[axis] for axis in order]
    node.add("RESHAPE", [values, node.ints(shape)], order, "ReshapeOptions", newShape=shape)


@_writes("transpose")
def _transpose(node: _Node) -> None:
    """The same values, until somebody needs them in another order."""
    perm = [axis % len(node.shape) for axis in node.attrs["perm"]]
    node.add_nothing(_Tensor(node.x.index, node.out_shape, tuple(perm.index(axis) for axis in node.x.order)))


@_writes("channelshuffle")
def _channelshuffle(node: _Node) -> None:
    groups, (batch, channels, height, width) = node.attrs["groups"], node.shape
    apart = [batch, height, width, groups, channels // groups]
    split = node.part("RESHAPE", [node.map(), node.ints(apart)], apart, "ReshapeOptions", newShape=apart)
    swapped = [batch, height, width, channels // groups, groups]
    turned = node.part("TRANSPOSE", [split, node.ints([0, 1, 2, 4, 3])], swapped, "TransposeOptions")
    shape = [batch, height, width, channels]
    node.add("RESHAPE", [turned, node.ints(shape)], _channels_last(_MAP), "ReshapeOptions", newShape=shape)


@_writes("pixelshuffle", "pixelunshuffle")
def _pixelshuffle(node: _Node) -> None:
    kind, options = (
        ("DEPTH_TO_SPACE", "DepthToSpaceOptions")
        if node.op == "pixelshuffle"
        else ("SPACE_TO_DEPTH", "SpaceToDepthOptions")
    )
    node.add(kind, [node.map()], _channels_last(_MAP), options, blockSize=int(node.attrs["factor"]))


@_writes("upsample")
def _upsample(node: _Node) -> None:
    """Nearest values, which most networks use."""
    sizes = node.ints(node.out_shape[2:])
    node.add("RESIZE_NEAREST_NEIGHBOR", [node.map(), sizes], _channels_last(_MAP),
             "ResizeNearestNeighborOptions")


@_writes("pad")
def _pad(node: _Node) -> None:
    paddings = node.ints([node.attrs["padding"][axis] for axis in node.x.order])
    node.add("PAD", [node.x.index, paddings], node.x.order, "PadOptions")
