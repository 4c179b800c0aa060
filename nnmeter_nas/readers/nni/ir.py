"""Reader of NNI's graph IR: 2.10.1's ``nni.retiarii.graph.Model``, 3.0's ``GraphModelSpace``.

The IR is a graph of graphs: a ``_cell`` node stands for another graph of the model. The reader
evaluates the root graph once, in topological order, and builds the model graph as it goes. A value is
a tensor of that model graph, a number, or a list of values. Constants, sizes and lists are folded away.

The reader does not change NNI's model. The IR's shapes come from tracing the base model and are stale
where a choice changed them, so the reader trusts only the input's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx

from ...errors import GraphError, NnMeterNasError, ReaderError
from ...graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from ...graph.shapes import Shape, infer_operator, operand_shape
from ...graph.unknown import is_unknown
from ...ops import OPERATORS
from ..inputs import InputShape, note_dropped_shapes, shapes_by_input
from .operators import NotLoweredError, Output, Weight, lower, operator_name, tensors_in

_UNPACK = ("prim::ListUnpack", "prim::TupleUnpack")
#: Types that cannot be open choices. Most arguments have one of them, and ``hasattr`` is slow when it fails.
_SETTLED = frozenset({int, float, bool, str, tuple, list, type(None)})
_OPEN_CHOICES = ("LayerChoice", "InputChoice", "ValueChoice", "ModelParameterChoice", "Placeholder")


def read_nni_ir(model: Any, input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read one candidate of an NNI search space into a model graph.

    Args:
        model: a mutated ``nni.retiarii.graph.Model`` of the graph engine, or a frozen
            ``GraphModelSpace`` of NNI 3.0. It is not changed.
        input_shape: NCHW shape with batch 1. For several inputs, a list of shapes or a dict by input
            name. The default is the shape of the dummy input with which NNI traced the base model.

    Raises:
        ReaderError: the model is not graph IR, a choice is still open, an input shape is unknown, or an
            operator has invalid arguments. The message names the node.
        ShapeError: shapes are missing or contradict each other.
        GraphError: the graph is cyclic, or has no operator between input and output.
    """
    root = getattr(model, "root_graph", None)
    if root is None:
        raise ReaderError(f"{type(model).__name__} is not NNI's graph IR: it has no root graph")
    if not root.edges:
        raise ReaderError(
            "the NNI model carries no operators, as under the py engine; build the candidate and read it "
            "as a torch module, or use the graph engine"
        )
    shapes = root_inputs(model, input_shape)
    traced = [_traced_shape(model, root, slot) for slot in range(len(shapes))] if input_shape else []
    as_traced = all(shape in (None, given) for shape, (_, given) in zip(traced, shapes, strict=False))
    build = GraphBuilder(model, as_traced)
    inputs = [build.add_input(name, shape) for name, shape in shapes]
    result = build.evaluate(root, [Output(name) for name in inputs])
    set_outputs(build.graph, dict.fromkeys(tensor.producer for tensor in tensors_in(result)))
    finish(build.graph, build.inferred)
    if not as_traced:
        note_dropped_shapes(build.graph)
    return build.graph


class GraphBuilder:
    """Evaluates the graphs of an NNI model and builds a model graph from them.

    Args:
        model: NNI's model, as in :func:`read_nni_ir`.
        as_traced: whether its inputs have the shapes with which NNI traced the base model. Only then are the
            shapes in the IR those of an operator that no rule knows.

    Attributes:
        model: NNI's model.
        graph: the model graph built so far.
        node: the NNI node being read.
        added: operators added for that node.
        inferred: operators whose shapes are already inferred.
    """

    def __init__(self, model: Any, as_traced: bool) -> None:
        self.model = model
        self._as_traced = as_traced
        self.graph = new_graph(getattr(getattr(model, "python_class", None), "__name__", ""))
        self.node: Any = None
        self.added: list[str] = []
        self.inferred: set[str] = set()
        self._uninferred: list[str] = []

    def add_input(self, name: str, shape: Shape) -> str:
        """Add a model input."""
        self._uninferred.append(name)
        return add_input(self.graph, name, shape)

    def emit(self, op: str, operands: Sequence[Output], attrs: dict[str, Any]) -> Output:
        """Add an operator named after the current NNI node."""
        return self._add(op, operands, attrs, None)

    def shape(self, tensor: Output) -> Shape:
        """The inferred shape of ``tensor``."""
        for name in self._uninferred:  # in the order they were added, so producers come first
            infer_operator(self.graph, name)
        self.inferred.update(self._uninferred)
        self._uninferred.clear()
        return operand_shape(self.graph, self.node.name if self.node else "", tensor)

    def evaluate(self, graph: Any, arguments: list[Any]) -> Any:
        """Evaluate ``graph``, the root or a cell, on ``arguments`` and return its result."""
        # Keyed by id: NNI's nodes hash by identity too, but through a slow Python method.
        values: dict[int, Any] = {id(graph.input_node): arguments}
        incoming = _edges_into_nodes(graph)
        # Only what the output needs is evaluated: each node on the path waits for the next one.
        path, waiting = [graph.output_node], {id(graph.output_node)}
        while path:
            node, operands = path[-1], []
            for edge in incoming.get(id(node), ()):
                head = id(edge.head)
                if head not in values:
                    if head in waiting:
                        raise _cycle(path, edge.head)
                    path.append(edge.head)
                    waiting.add(head)
                    break
                value = values[head]
                operands.append(_pick(edge, value) if type(value) is list else value)
            else:
                path.pop()
                if path:
                    values[id(node)] = self._evaluate_node(node, operands)
                elif operands:
                    return operands[0] if len(operands) == 1 else operands
        raise ReaderError(f"graph {graph.name!r} computes no output; is a choice in it still open?")

    def _evaluate_node(self, node: Any, operands: list[Any]) -> Any:
        operation = node.operation
        if operation.type == "shared":
            operation = _shared_operation(node)
        if operation.type == "prim::Constant":
            return _constant(operation.parameters.get("value"))
        if operation.type == "prim::GetAttr":
            # The IR stores numbers and strings. Any other attribute of a module is treated as a weight.
            value = operation.parameters.get("value")
            return Weight() if value is None else _constant(value)
        name, parameters = operator_name(operation.type), operation.parameters or {}
        _require_frozen(node, name, parameters)
        if operation.type == "_cell":
            return self.evaluate(self.model.graphs[operation.cell_name], operands)
        self.node, self.added = node, []
        try:
            result = lower(name, operands, parameters, self)
            self._note_claim(operation, result)
            return result
        except NotLoweredError:
            return self._unknown(operation, operands)
        except NnMeterNasError:
            raise
        # Parameters are whatever the author's code computed, and a layer's own code reads them.
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            if self._reads_unknown(operands):
                return self._unknown(operation, operands)
            raise ReaderError(
                f"operator {node.name!r} of type {operation.type!r} cannot be read with parameters "
                f"{operation.parameters} ({type(error).__name__}: {error})"
            ) from error

    def _reads_unknown(self, operands: list[Any]) -> bool:
        """Whether a tensor among ``operands`` has an unknown shape, so that no rule can ask for its sizes."""
        for tensor in tensors_in(operands):
            self.shape(tensor)  # infers it
        return any(is_unknown(self.graph, (t.producer, t.slot)) for t in tensors_in(operands))

    def _note_claim(self, operation: Any, result: Any) -> None:
        """Store the shape the IR claims for the current node's result; ``finish`` checks it."""
        # A node that adds no operator, such as a slice that keeps everything, returns another node's result.
        if type(result) is not Output or result.producer not in self.added:
            return
        claimed = _claimed_shapes(operation) if self._as_traced else []
        if len(claimed) == 1:
            self.graph.nodes[result.producer]["declared"] = [tuple(claimed[0])]

    def _unknown(self, operation: Any, operands: list[Any]) -> Any:
        """Add an operator that no table knows, with the shapes the IR claims for it."""
        claimed = _claimed_shapes(operation)
        declared = [tuple(map(int, shape)) for shape in claimed] if self._as_traced else []
        path = operator_name(operation.type).lower().replace("::", ".")
        name = path.rpartition(".")[2]
        # A module, or this use of it, may have the name of one of our operators without being that operator.
        if name in OPERATORS:
            name = path if path != name else f"nni_{name}"
        first = self._add(name, list(tensors_in(operands)), dict(operation.parameters or {}), declared)
        return first if len(claimed) < 2 else [Output(first.producer, i) for i in range(len(claimed))]

    def _add(self, op: str, operands: Sequence[Output], attrs: dict[str, Any],
             declared: list[Shape] | None) -> Output:
        # A module that is applied twice, or becomes several operators, needs several names.
        name, count = self.node.name, 1
        while name in self.graph:
            count += 1
            name = f"{self.node.name}_{count}"
        self.added.append(name)
        self._uninferred.append(name)
        return Output(add_op(self.graph, name, op, operands, attrs, declared))


def _edges_into_nodes(graph: Any) -> dict[int, list[Any]]:
    """Return the edges into each node, by the node's ``id``, in the order of its operands."""
    incoming: dict[int, list[Any]] = {}
    for edge in graph.edges:
        incoming.setdefault(id(edge.tail), []).append(edge)
    for edges in incoming.values():
        if len(edges) > 1:
            edges.sort(key=lambda edge: edge.tail_slot or 0)
    return incoming


def _cycle(path: list[Any], node: Any) -> GraphError:
    """Return the error for ``node``, which needs itself: each node on ``path`` needs the next one."""
    names = [before.name for before in path]
    cycle = names[names.index(node.name) :][::-1]
    return GraphError(f"the graph is cyclic: {' -> '.join([*cycle, cycle[0]])}", cycle[0])


def _pick(edge: Any, values: list[Any]) -> Any:
    """Return what ``edge`` carries of the ``values`` of the node it leaves: one of them, or all."""
    if edge.head_slot is not None:
        return values[edge.head_slot]
    # An unpack node with one result has no slots.
    return values[0] if edge.head.operation.type in _UNPACK else values


def _shared_operation(node: Any) -> Any:
    """Return the operation of a node that reuses a module: that of the node that used it first.

    Raises:
        ReaderError: the node of the first use does not exist.
    """
    reference = node.operation.parameters["reference"]
    first = next((other for other in node.graph.hidden_nodes if other.name == reference), None)
    if first is None:
        raise ReaderError(f"node {node.name!r} applies {reference!r} again, which does not exist")
    return first.operation


def _claimed_shapes(operation: Any) -> list[Sequence[int]]:
    """Return the output shapes that the IR stores for an operation, if any."""
    attributes = operation.attributes
    shapes = attributes.get("output_shape") if attributes else None
    return [shape for shape in shapes if shape] if shapes else []


def _constant(value: Any) -> Any:
    """Convert a constant: one-element tensors to numbers, other tensors to weights, tuples to lists."""
    if hasattr(value, "numel"):
        return value.item() if value.numel() == 1 else Weight(tuple(value.shape))
    return list(value) if isinstance(value, tuple) else value


def _require_frozen(node: Any, name: str, parameters: dict[str, Any]) -> None:
    """Raise if NNI has not made the choice of the node of operator ``name`` yet."""
    choice = None
    if "mutation" in parameters or name in _OPEN_CHOICES:
        choice = parameters.get("label", node.name)
    elif _SETTLED.issuperset(map(type, parameters.values())):
        return
    else:
        # A value choice as an argument: NNI 2.10.1's has inner_choices, NNI 3.0's has leaf_mutables.
        choice = next((getattr(value, "label", key) for key, value in parameters.items()
                       if type(value) not in _SETTLED
                       and (hasattr(value, "inner_choices") or hasattr(value, "leaf_mutables"))), None)
    if choice is not None:
        raise ReaderError(
            f"choice {choice!r} at node {node.name!r} is still open; read a candidate, in which all choices "
            f"are made, not the space"
        )


def root_inputs(model: Any, input_shape: InputShape | None) -> list[tuple[str, Shape]]:
    """Return the name and shape of each model input. The arguments are those of :func:`read_nni_ir`.

    Raises:
        ReaderError: an input's shape is unknown, or ``input_shape`` does not match the inputs.
    """
    root = model.root_graph
    names = [str(name) for name in root.input_node.operation.io_names or ["input"]]
    given = shapes_by_input(input_shape, names)
    shapes = {name: given.get(name) or _traced_shape(model, root, slot) for slot, name in enumerate(names)}
    missing = [name for name, shape in shapes.items() if shape is None]
    if missing:
        raise ReaderError(f"the NNI model carries no shape of input {', '.join(missing)}; pass input_shape, "
                          f"or give the engine a dummy_input")
    return [(name, shape) for name, shape in shapes.items() if shape is not None]


def _traced_shape(model: Any, graph: Any, slot: int) -> Shape | None:
    """Return the shape of input ``slot`` of ``graph`` that a consumer stores, searching nested cells too."""
    for edge in graph.edges:
        if edge.head is not graph.input_node or (edge.head_slot or 0) != slot:
            continue
        operation, position = edge.tail.operation, edge.tail_slot or 0
        shapes = (operation.attributes or {}).get("input_shape") or []
        if position < len(shapes) and shapes[position]:
            return tuple(int(size) for size in shapes[position])
        if operation.type == "_cell":
            nested = _traced_shape(model, model.graphs[operation.cell_name], position)
            if nested:
                return nested
    return None
