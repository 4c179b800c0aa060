"""Reader of NNI's graph IR: 2.10.1's ``nni.retiarii.graph.Model``, 3.0's ``GraphModelSpace``.

The IR is a graph of graphs: a ``_cell`` node stands for another graph of the model. Reading is
evaluating the root graph once, nodes in topological order: a value is a tensor of the model graph
built meanwhile, a number, or a list of such. Constants, sizes and lists are gone when it ends.

NNI's model is only looked at. Shapes that the IR carries stem from tracing the base model and are
stale where a choice changed them, so that only the input's is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx

from ...errors import GraphError, NnMeterNasError, ReaderError
from ...graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from ...graph.shapes import SHAPE_RULES, Shape, infer_operator
from ..inputs import InputShape, shapes_by_input
from .operators import NotLoweredError, Tensor, Weight, lower, operator_name, tensors_in

_UNPACK = ("prim::ListUnpack", "prim::TupleUnpack")
#: Types of nearly all arguments; asking one for an attribute that it lacks takes long.
_SETTLED = frozenset({int, float, bool, str, tuple, list, type(None)})
_OPEN_CHOICES = ("LayerChoice", "InputChoice", "ValueChoice", "ModelParameterChoice", "Placeholder")


def read_nni_ir(model: Any, input_shape: InputShape | None = None) -> nx.DiGraph:
    """The model graph of one candidate of an NNI search space.

    Args:
        model: a mutated ``nni.retiarii.graph.Model`` of the graph engine, or a frozen
            ``GraphModelSpace`` of NNI 3.0. Neither is changed.
        input_shape: NCHW, batch 1, or for several inputs a list or a dict by name. By default the
            shape of the dummy input that NNI traced the base model with.

    Raises:
        ReaderError: not a graph IR, a choice is still open, no input shape is known, or an operator
            has arguments that make no sense; names the node.
        ShapeError: shapes are missing or contradict each other.
        GraphError: cyclic, or without operators between input and output.
    """
    root = getattr(model, "root_graph", None)
    if root is None:
        raise ReaderError(f"{type(model).__name__} is not NNI's graph IR: it has no root graph")
    if not root.edges:
        raise ReaderError(
            "the NNI model carries no operators, as under the py engine; build the candidate and read it "
            "as a torch module, or use the graph engine"
        )
    build = GraphBuilder(model)
    inputs = [build.add_input(name, shape) for name, shape in root_inputs(model, input_shape)]
    result = build.evaluate(root, [Tensor(name) for name in inputs])
    set_outputs(build.graph, dict.fromkeys(tensor.producer for tensor in tensors_in(result)))
    return finish(build.graph, build.inferred)


class GraphBuilder:
    """Evaluates graphs of an NNI model, and builds a model graph meanwhile.

    Args:
        model: NNI's, as :func:`read_nni_ir` takes it.

    Attributes:
        model: as given.
        graph: the model graph in the making.
        node: the NNI node that is being read.
        added: operators that it has added.
        inferred: operators whose shapes are inferred already.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = new_graph(getattr(getattr(model, "python_class", None), "__name__", ""))
        self.node: Any = None
        self.added: list[str] = []
        self.inferred: set[str] = set()
        self._uninferred: list[str] = []

    def add_input(self, name: str, shape: Shape) -> str:
        """Add a model input."""
        self._uninferred.append(name)
        return add_input(self.graph, name, shape)

    def emit(self, op: str, operands: Sequence[Tensor], attrs: dict[str, Any]) -> Tensor:
        """Add an operator named after the current NNI node."""
        return self._add(op, operands, attrs, None)

    def shape(self, tensor: Tensor) -> Shape:
        """The inferred shape of ``tensor``."""
        for name in self._uninferred:  # in the order in which they were added, producers first
            infer_operator(self.graph, name)
        self.inferred.update(self._uninferred)
        self._uninferred.clear()
        shapes: list[Shape] = self.graph.nodes[tensor.producer]["out_shapes"]
        return shapes[tensor.slot]

    def evaluate(self, graph: Any, arguments: list[Any]) -> Any:
        """What ``graph``, the root or a cell, returns for ``arguments``."""
        # Keyed by identity, which is what NNI's nodes hash to as well, in a method of Python.
        values: dict[int, Any] = {id(graph.input_node): arguments}
        incoming: dict[int, list[Any]] = {}
        for edge in graph.edges:
            incoming.setdefault(id(edge.tail), []).append(edge)
        for edges in incoming.values():
            if len(edges) > 1:
                edges.sort(key=lambda edge: edge.tail_slot or 0)
        for node in _live_nodes(graph, incoming):
            if node is graph.input_node:
                continue
            operands = [_pick(edge, values[id(edge.head)]) for edge in incoming.get(id(node), ())]
            if node is graph.output_node:
                if not operands:
                    break
                return operands[0] if len(operands) == 1 else operands
            values[id(node)] = self._evaluate_node(node, operands)
        raise ReaderError(f"graph {graph.name!r} computes no output; is a choice in it still open?")

    def _evaluate_node(self, node: Any, operands: list[Any]) -> Any:
        operation = operation_of(self.model, node)
        if operation.type == "_cell":
            _require_frozen(node, operation)
            return self.evaluate(self.model.graphs[operation.cell_name], operands)
        if operation.type == "prim::Constant":
            return _constant(operation.parameters.get("value"))
        if operation.type == "prim::GetAttr":
            # The IR keeps numbers and texts; any other attribute of a module is taken for a weight.
            value = operation.parameters.get("value")
            return Weight() if value is None else value
        _require_frozen(node, operation)
        self.node, self.added = node, []
        try:
            result = lower(operator_name(operation.type), operands, operation.parameters or {}, self)
            self._note_claim(operation, result)
            return result
        except NotLoweredError:
            return self._unknown(operation, operands)
        except NnMeterNasError:
            raise
        # Parameters are whatever the author's code computed, and a layer's own code reads them.
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ReaderError(
                f"operator {node.name!r} of type {operation.type!r} cannot be read with parameters "
                f"{operation.parameters} ({type(error).__name__}: {error})"
            ) from error

    def _note_claim(self, operation: Any, result: Any) -> None:
        """Keep the shape the IR claims for the current node's result, to be checked, not trusted."""
        # A node without an operator of its own, such as a cut that keeps all, hands another's result on.
        if not isinstance(result, Tensor) or result.producer not in self.added:
            return
        claimed = _claimed_shapes(operation)
        if len(claimed) == 1:
            self.graph.nodes[result.producer]["declared"] = claimed

    def _unknown(self, operation: Any, operands: list[Any]) -> Any:
        """Keep an operator no table knows, with the shapes the IR claims for it."""
        declared = _claimed_shapes(operation)
        path = operator_name(operation.type).lower()
        name = path.rpartition(".")[2]
        # Somebody's own module may be called like an operator of ours without being it.
        name = path if name in SHAPE_RULES else name
        first = self._add(name, list(tensors_in(operands)), dict(operation.parameters or {}), declared)
        return first if len(declared) < 2 else [Tensor(first.producer, i) for i in range(len(declared))]

    def _add(self, op: str, operands: Sequence[Tensor], attrs: dict[str, Any],
             declared: list[Shape] | None) -> Tensor:
        # A module that is applied twice, or one that becomes several operators, needs more names.
        name, count = self.node.name, 1
        while name in self.graph:
            count += 1
            name = f"{self.node.name}_{count}"
        self.added.append(name)
        self._uninferred.append(name)
        return Tensor(add_op(self.graph, name, op, [(t.producer, t.slot) for t in operands], attrs, declared))


def _live_nodes(graph: Any, incoming: dict[int, list[Any]]) -> list[Any]:
    """Nodes of an IR graph that its output depends on, and the output, producers first.

    ``incoming`` are the edges that end in each node, by the node's ``id``.
    """
    order: list[Any] = []
    # Of each node that was entered, whether it is done.
    done = {id(graph.output_node): False}
    path = [(graph.output_node, iter(incoming.get(id(graph.output_node), ())))]
    while path:
        node, edges = path[-1]
        edge = next(edges, None)
        if edge is None:
            order.append(node)
            done[id(node)] = True
            path.pop()
            continue
        head = edge.head
        is_done = done.get(id(head))
        if is_done is None:
            done[id(head)] = False
            path.append((head, iter(incoming.get(id(head), ()))))
        elif not is_done:
            names = [before.name for before, _ in path]
            cycle = names[names.index(head.name) :][::-1]
            raise GraphError(f"the graph is cyclic: {' -> '.join([*cycle, cycle[0]])}", cycle[0])
    return order


def _pick(edge: Any, value: Any) -> Any:
    """What runs along ``edge``, given what its head evaluates to."""
    if isinstance(value, list) and edge.head_slot is not None:
        return value[edge.head_slot]
    # An unpacking with one result has no slots.
    return value[0] if edge.head.operation.type in _UNPACK else value


def operation_of(model: Any, node: Any) -> Any:
    """A node's operation; a module that is applied again refers to the node of its first use.

    Raises:
        ReaderError: that node does not exist.
    """
    if node.operation.type != "shared":
        return node.operation
    reference = node.operation.parameters["reference"]
    first = next((other for other in node.graph.hidden_nodes if other.name == reference), None)
    if first is None:
        raise ReaderError(f"node {node.name!r} applies {reference!r} again, which does not exist")
    return first.operation


def _claimed_shapes(operation: Any) -> list[Shape]:
    """Output shapes that the IR carries for an operation, if any."""
    shapes = (operation.attributes or {}).get("output_shape") or []
    return [tuple(map(int, shape)) for shape in shapes if shape]


def _constant(value: Any) -> Any:
    """A constant's value: tensors of one element as numbers, others as weights, tuples as lists."""
    if hasattr(value, "numel"):
        return value.item() if value.numel() == 1 else Weight(tuple(value.shape))
    return list(value) if isinstance(value, tuple) else value


def _require_frozen(node: Any, operation: Any) -> None:
    """Refuse a node whose choice NNI has not made yet."""
    parameters = operation.parameters or {}
    choice = None
    if "mutation" in parameters or operator_name(operation.type) in _OPEN_CHOICES:
        choice = parameters.get("label", node.name)
    else:
        # A value choice as an argument: 2.10.1's has inner_choices, 3.0's leaf_mutables.
        choice = next((getattr(value, "label", key) for key, value in parameters.items()
                       if type(value) not in _SETTLED
                       and (hasattr(value, "inner_choices") or hasattr(value, "leaf_mutables"))), None)
    if choice is not None:
        raise ReaderError(
            f"choice {choice!r} at node {node.name!r} is still open; read a candidate, in which all choices "
            f"are made, not the space"
        )


def root_inputs(model: Any, input_shape: InputShape | None) -> list[tuple[str, Shape]]:
    """Name and shape of each input of a model; arguments as :func:`read_nni_ir` takes them.

    Raises:
        ReaderError: an input's shape is not known, or ``input_shape`` does not fit.
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
    """The shape of input ``slot`` of ``graph`` at some consumer, nested cells included."""
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
