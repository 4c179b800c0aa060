"""Read frozen TensorFlow graphs (a ``.pb`` file or a ``GraphDef`` message) without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from ...errors import ReaderError, ShapeError
from ...extras import load_extra
from ...graph.model_graph import add_input, add_note, finish, new_graph, set_outputs
from ...graph.shapes import Shape, infer_operator
from ...graph.unknown import GIVEN
from ...graph.work import flops
from ..inputs import InputShape, note_dropped_shapes, shapes_by_input, way_out
from ..nhwc import MAP_RANK
from .constants import MAX_VALUES, decoded, folded, static_shape
from .nodes import TfNode, naming, nodes_in_order
from .operators import TfCall, TfValue, is_known, known, layout, translate
from .unknown import declared_shapes, unknown

_PURPOSE = "reading TensorFlow graphs"
#: A constant of unknown shape, such as random numbers or anchors that loops compute.
_OPAQUE = TfValue(None, constant=True)
#: Outputs of a node on a branch that is not taken.
_DEAD: list[TfValue | None] = [None]
#: Maximum number of tensors in a graph; real networks have far fewer.
MAX_OUTPUTS = 200_000
#: First bytes of a binary SavedModel: schema version 1, then the first meta graph.
_SAVED_MODEL = b"\x08\x01\x12"
_FREEZE = (
    "freeze it with convert_variables_to_constants_v2 of tensorflow.python.framework.convert_to_constants"
)
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})


def read_tf_graphdef(model: Any, input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read a frozen TensorFlow graph into a model graph.

    Shapes are inferred from the placeholders. Arithmetic on shapes and other small constants is evaluated.
    Operators without a canonical form keep their own name in lower case. ``model`` is not changed.

    Args:
        model: path of a ``.pb`` file, or a ``GraphDef`` from tensorboard or TensorFlow.
        input_shape: NCHW shape that overrides the placeholder's. For several inputs, a list of shapes or a
            dict by input name.

    Raises:
        ReaderError: not a frozen graph, a part of a loop, or a choice by an input such as
            ``is_training``.
        GraphError, ShapeError: the graph is malformed.
        MissingPackageError: tensorboard, which provides the message classes, is not installed.
    """
    name, graph_def = _load(model)
    nodes = nodes_in_order(graph_def)
    graph = new_graph(name)
    reader = _GraphDefReader(graph, nodes, input_shape)
    for node in nodes:
        with naming(node):
            reader.read(node)
    set_outputs(graph, reader.outputs())
    finish(graph)
    if reader.drops_shapes():
        note_dropped_shapes(graph)
    return graph


def _load(model: Any) -> tuple[str, Any]:
    """Return the display name and the ``GraphDef`` of the caller's ``model``."""
    if not isinstance(model, str | PathLike):
        if not hasattr(model, "node") or not hasattr(model, "library"):
            raise ReaderError(f"{type(model).__name__!r} is neither the path of a .pb file nor a GraphDef")
        return "GraphDef", model
    path = Path(model)
    graph_pb2 = load_extra("tensorboard.compat.proto.graph_pb2", "tensorflow", _PURPOSE)
    decode_error = load_extra("google.protobuf.message", "tensorflow", _PURPOSE).DecodeError
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReaderError(f"cannot read {path}: {error.strerror or error}") from error
    if content.startswith(_SAVED_MODEL):
        raise ReaderError(f"{path} is a SavedModel, which stores its weights in separate files; {_FREEZE}")
    try:
        graph_def = graph_pb2.GraphDef.FromString(content)
    except decode_error as error:
        is_text = content.lstrip().startswith((b"node", b"library", b"versions"))
        hint = "; it looks like the text form, write graph_def.SerializeToString() instead" if is_text else ""
        raise ReaderError(f"{path} is not a frozen TensorFlow graph (GraphDef): {error}{hint}") from error
    if not graph_def.node:
        raise ReaderError(f"{path} is not a frozen TensorFlow graph (GraphDef): it holds no nodes")
    return path.name, graph_def


class _GraphDefReader:
    """Fills a model graph in one pass over the nodes of a GraphDef.

    Args:
        graph: an empty model graph.
        nodes: the nodes in topological order.
        input_shape: as in :func:`read_tf_graphdef`.
    """

    def __init__(self, graph: nx.DiGraph, nodes: list[TfNode], input_shape: InputShape | None) -> None:
        self._graph = graph
        self._nodes = nodes
        self._taken = {node.name for node in nodes}
        self._tensors: dict[str, list[TfValue | None]] = {}
        self._consumers = _consumers(nodes)
        self._inputs = _inputs(nodes)
        self._shapes = shapes_by_input(input_shape, self._inputs)
        self._channels_first = any(_is_channels_first(node) for node in nodes)
        self._tensor_count = 0
        self._reshaped = False  # whether an input has another shape than the graph declares for it

    def outputs(self) -> list[str]:
        """Return the operators that compute the outputs of the GraphDef."""
        ends = (node.name for node in self._nodes if not self._consumers[node.name])
        tensors = (tensor for name in ends for tensor in self._tensors[name])
        return list(dict.fromkeys(t.operand[0] for t in tensors if t and t.operand and not t.constant))

    def drops_shapes(self) -> bool:
        """Whether the graph declares shapes, but for other inputs."""
        return self._reshaped and any("_output_shapes" in node.attr for node in self._nodes)

    def read(self, node: TfNode) -> None:
        """Read ``node``. Its operands must have been read already."""
        inputs = [self._operand(node, *operand) for operand in node.inputs]
        self._tensors[node.name] = outputs = self._read(node, inputs)
        self._tensor_count += len(outputs)
        if self._tensor_count > MAX_OUTPUTS:
            raise ReaderError(f"up to this operator the graph has more than {MAX_OUTPUTS} tensors")

    def _operand(self, node: TfNode, producer: str, slot: int) -> TfValue | None:
        outputs = self._tensors[producer]
        if outputs is _DEAD or outputs == [_OPAQUE]:
            return outputs[0]
        if len(outputs) == 1 and (only := outputs[0]) is not None and only.shape is None and only.operand:
            return replace(only, operand=(only.operand[0], slot))  # nothing tells how many it has
        if not slot < len(outputs):
            raise ShapeError(f"its operand {producer!r} has no output {slot}", node.name)
        return outputs[slot]

    def _read(self, node: TfNode, inputs: list[TfValue | None]) -> list[TfValue | None]:
        """Return the outputs of ``node``. An output is None on a branch that is not taken."""
        live = [tensor for tensor in inputs if tensor is not None]
        if node.op in _MERGES:
            return self._chosen(node, live) if len(live) > 1 else _merged(inputs)
        if len(live) < len(inputs):
            return _DEAD
        if node.op in _SWITCHES:
            return self._forked(node, live) if live[1].depends_on_data() else _switched(node, live)
        return list(self._computed(node, live))

    def _forked(self, node: TfNode, inputs: list[TfValue]) -> list[TfValue | None]:
        """The data of a Switch on data, for either branch, once its condition is known."""
        data, condition = inputs
        if data.shape is None or data.constant:
            return [data, data]
        shape = tuple(data.shape[axis] for axis in data.order)
        call = TfCall(self._graph, node, inputs, self._channels_first, self._fresh)
        [passed] = call.emit(GIVEN, [data, condition], {"shapes": [shape]}, data.order)
        return [passed, passed]

    def _chosen(self, node: TfNode, branches: list[TfValue]) -> list[TfValue | None]:
        """What a Merge on data passes on: the branch that multiplies more, if all have one shape."""
        if any(tensor.shape is None or tensor.shape != branches[0].shape for tensor in branches):
            call = TfCall(self._graph, node, branches, self._channels_first, self._fresh)
            return list(unknown(call, self._declared(node)))
        number = max(range(len(branches)), key=lambda i: self._work_before(branches[i]))
        add_note(
            self._graph,
            f"operator {node.name!r} ({node.op}) takes one of {len(branches)} branches, as data decides; the "
            f"costlier, {node.inputs[number][0]!r}, is counted",
        )
        return [branches[number], known(np.array(number))]

    def _work_before(self, tensor: TfValue) -> tuple[int, int]:
        """Operations and operators that lead to ``tensor``."""
        if tensor.operand is None:
            return 0, 0
        before = nx.ancestors(self._graph, tensor.operand[0]) | {tensor.operand[0]}
        return flops(self._graph.subgraph(before)), len(before)

    def _computed(self, node: TfNode, inputs: list[TfValue]) -> list[TfValue]:
        if node.name in self._inputs:
            return [self._input(node)]
        if node.op == "Placeholder":
            return [TfValue((), (), constant=True)]
        if node.op == "Const":
            return [self._constant(node)]
        constant = all(tensor.constant for tensor in inputs)
        unknown_shapes = any(tensor.shape is None for tensor in inputs)
        if constant and (unknown_shapes or not inputs):
            return [_OPAQUE]
        call = TfCall(self._graph, node, inputs, self._channels_first, self._fresh)
        if unknown_shapes:
            return unknown(call, self._declared(node))
        results = _static(node, inputs)
        if results is not None:
            return results
        if constant and not is_known(node.op):
            return [_OPAQUE]
        results = translate(call)
        return unknown(call, self._declared(node)) if results is None else results

    def _declared(self, node: TfNode) -> list[Shape] | None:
        """The shapes that the graph declares for ``node``, which hold for the inputs that it declares."""
        return None if self._reshaped else declared_shapes(node)

    def _input(self, node: TfNode) -> TfValue:
        """Add a placeholder. An unknown batch is 1; the caller must give any other unknown size."""
        given = self._shapes.get(node.name)
        sizes = self._declared_sizes(node) if given is None else given
        if not sizes:
            raise ReaderError(f"the input has no shape; {self._way_out()}")
        shape = tuple(size for size in sizes if size is not None)
        if len(shape) < len(sizes):
            raise ReaderError(f"its shape {_declared(node)} has unknown sizes; {self._way_out()} (NCHW)")
        order = self._input_order(node, len(shape))
        self._reshaped |= given is not None and not _fits(given, _declared(node), order)
        name = add_input(self._graph, node.name, shape)
        infer_operator(self._graph, name)
        return TfValue(tuple(shape[order.index(axis)] for axis in range(len(shape))), order, (name, 0))

    def _way_out(self) -> str:
        inputs = {node.name: node for node in self._nodes if node.name in self._inputs}
        return way_out({
            name: self._shapes.get(name) or self._declared_sizes(inputs[name]) for name in self._inputs
        })  # fmt: skip

    def _declared_sizes(self, node: TfNode) -> list[int | None]:
        """Return the sizes of a placeholder, NCHW: None if unknown, but an unknown batch is 1."""
        shape = _declared(node)
        sizes: list[int | None] = [None if size < 1 else size for size in shape]
        # The first size of an input that is a vector is its length, if there is no other input.
        if shape[:1] == (-1,) and (len(shape) > 1 or len(self._inputs) > 1):
            sizes[0] = 1
        return [sizes[axis] for axis in self._input_order(node, len(sizes))]

    def _input_order(self, node: TfNode, rank: int) -> Shape:
        """Return the order of the axes of a placeholder in the model graph."""
        if self._channels_first and self._feeds_channels_first(node.name):
            return layout(rank, True)
        # All further axes are those of the map, as nothing has split channels yet.
        return (0, rank - 1, *range(1, rank - 1)) if rank >= MAP_RANK else layout(rank, False)

    def _feeds_channels_first(self, name: str) -> bool:
        """Whether the first layer after ``name`` reads it as NCHW, with no transpose in between."""
        by_name = {node.name: node for node in self._nodes}
        seen, waiting = {name}, [name]
        while waiting:
            for consumer in self._consumers[waiting.pop(0)]:
                node = by_name[consumer]
                if node.op == "Transpose" or "data_format" in node.attr or node.op.startswith("Conv"):
                    return _is_channels_first(node)
                if consumer not in seen:
                    seen.add(consumer)
                    waiting.append(consumer)
        return True

    def _constant(self, node: TfNode) -> TfValue:
        """Read a constant: weights by shape only, small constants with their values."""
        proto = node.value("value", "tensor")
        if proto is None:
            raise ReaderError("the constant has no value")
        value = decoded(proto)
        if value is not None:
            return known(value)
        shape = static_shape(proto.tensor_shape) or ()
        return TfValue(shape, layout(len(shape), self._channels_first), constant=True)

    def _fresh(self, name: str) -> str:
        """Return ``name``, with a number appended if the name is taken."""
        fresh, number = name, 1
        while fresh in self._taken:
            number += 1
            fresh = f"{name}_{number}"
        self._taken.add(fresh)
        return fresh


def _declared(node: TfNode) -> Shape:
    """Return the shape of a placeholder as it is written, -1 for unknown sizes; () if there is none."""
    proto = node.value("shape", "shape")
    return (None if proto is None else static_shape(proto)) or ()


def _fits(given: Shape, declared: Shape, order: Shape) -> bool:
    """Whether a shape in NCHW is one that a placeholder ``declared``, whose axes are in ``order``."""
    if len(declared) != len(given):
        return not declared
    return all(declared[axis] in (-1, size) for axis, size in zip(order, given, strict=True))


def _consumers(nodes: list[TfNode]) -> dict[str, list[str]]:
    """Return the names of each node's consumers."""
    consumers: dict[str, list[str]] = {node.name: [] for node in nodes}
    for node in nodes:
        for producer, _ in node.inputs:
            consumers[producer].append(node.name)
    return consumers


def _inputs(nodes: list[TfNode]) -> list[str]:
    """Return the model inputs: scalar placeholders such as ``is_training`` only if there are no others."""
    for op in ("Placeholder", "PlaceholderWithDefault"):
        found = [node for node in nodes if node.op == op]
        images = [node.name for node in found if not _is_scalar(node)]
        if images or (found and op == "Placeholder"):
            return images or [node.name for node in found]
    return []


def _is_scalar(node: TfNode) -> bool:
    with naming(node):
        proto = node.value("shape", "shape")
        return proto is not None and static_shape(proto) == ()


def _is_channels_first(node: TfNode) -> bool:
    with naming(node):
        return "data_format" in node.attr and node.text("data_format").startswith("NC")


def _static(node: TfNode, inputs: list[TfValue]) -> list[TfValue] | None:
    """Evaluate ``node`` from the shapes of ``inputs``, or from their values if all are known; else None."""
    if node.op in ("Shape", "ShapeN"):
        return [known(np.array(tensor.sizes, dtype=np.int64)) for tensor in inputs]
    if node.op == "Size":
        return [known(np.array(math.prod(inputs[0].sizes), dtype=np.int64))]
    if node.op == "Rank":
        return [known(np.array(inputs[0].rank))]
    values = [tensor.value for tensor in inputs if tensor.value is not None]
    results = folded(node, values) if len(values) == len(inputs) else None
    if results is None or any(result.size > MAX_VALUES for result in results):
        return None
    return [known(result) for result in results]


def _switched(node: TfNode, inputs: list[TfValue]) -> list[TfValue | None]:
    """Return the outputs of a Switch: the data is output 1 if the condition is true, else output 0."""
    data, condition = inputs
    if condition.value is None:
        raise ReaderError(
            f"control flow: {node.inputs[1][0]!r} chooses a branch at run time. When freezing the graph, "
            "replace it by a constant, such as is_training=False"
        )
    return [None, data] if condition.value.any() else [data, None]


def _merged(inputs: list[TfValue | None]) -> list[TfValue | None]:
    """Return the outputs of a Merge: the operand on the taken branch, and its index."""
    live = [(i, tensor) for i, tensor in enumerate(inputs) if tensor is not None]
    return [live[0][1], known(np.array(live[0][0]))] if live else _DEAD
