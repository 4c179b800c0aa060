"""The nodes of a TensorFlow GraphDef: checked, function calls inlined, in topological order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import networkx as nx

from ...errors import GraphError, ReaderError

#: A graph with more nodes than this, functions inlined, is no network; calls of calls would grow without end.
MAX_NODES = 100_000
_MAX_NESTING = 64
_MAX_NAME = 1024
#: Digits of an output slot; more are no number.
_MAX_SLOT_DIGITS = 6
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_VARIABLES = frozenset(
    {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "ReadVariableOp", "RestoreV2"}
)
_CONTROL_FLOW = frozenset(
    {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "For", "Enter", "RefEnter",
     "Exit", "RefExit", "NextIteration", "RefNextIteration", "LoopCond", "MapDefun"}
)  # fmt: skip
_CONTROL_FLOW_PREFIXES = ("TensorArray", "TensorList", "Stack")
#: Output arguments of the operators that have several: inside functions, operands name them.
_OUTPUT_ARGUMENTS = {
    "FusedBatchNorm": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"),
    "FusedBatchNormV2": ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"),
    "FusedBatchNormV3": (
        "y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3",
    ),
    "MaxPoolWithArgmax": ("output", "argmax"),
    "Merge": ("output", "value_index"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
    "CombinedNonMaxSuppression": ("nmsed_boxes", "nmsed_scores", "nmsed_classes", "valid_detections"),
    "Switch": ("output_false", "output_true"),
    "TopKV2": ("values", "indices"),
    "Unique": ("y", "idx"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a GraphDef.

    Attributes:
        name: its name, below that of the call it was inlined from.
        op: TensorFlow's name of the operator.
        inputs: its operands, each ``(producer, output slot)``; control inputs are left out.
        attr: its attributes, ``AttrValue`` messages by name.
    """

    name: str
    op: str
    inputs: tuple[tuple[str, int], ...]
    attr: Mapping[str, Any]

    def value(self, key: str, kind: str) -> Any:
        """Attribute ``key``, which is of ``kind`` (a field of ``AttrValue``), or None if it is not there.

        Raises:
            ReaderError: it is of another kind.
        """
        if key not in self.attr:
            return None
        found = self.attr[key].WhichOneof("value")
        if found != kind:
            raise ReaderError(f"attribute {key!r} holds {found!r}, expected {kind!r}")
        return getattr(self.attr[key], kind)

    def integer(self, key: str, default: int = 0) -> int:
        """A whole number."""
        value = self.value(key, "i")
        return default if value is None else int(value)

    def integers(self, key: str, default: Sequence[int] = ()) -> list[int]:
        """A list of whole numbers."""
        value = self.value(key, "list")
        return list(default) if value is None else [int(i) for i in value.i]

    def flag(self, key: str) -> bool:
        """Yes or no; no if it is not there, as TensorFlow leaves defaults out."""
        return bool(self.value(key, "b"))

    def text(self, key: str, default: str = "") -> str:
        """A word."""
        value = self.value(key, "s")
        return default if value is None else bytes(value).decode("utf-8", "replace")


@contextmanager
def naming(node: Node) -> Iterator[None]:
    """Errors raised within name ``node``; what malformed attributes raise becomes a ReaderError."""
    try:
        yield
    except ReaderError as error:
        raise ReaderError(f"operator {node.name!r} ({node.op}): {error}") from error
    except GraphError as error:
        raise error if error.node is not None else type(error)(str(error), node.name) from error
    # Any operand or attribute of a damaged file may be absent, of another type or out of range.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ReaderError(
            f"operator {node.name!r} ({node.op}): operands or attributes are malformed "
            f"({type(error).__name__}: {error})"
        ) from error


def nodes_in_order(graph_def: Any) -> list[Node]:
    """All nodes of ``graph_def`` with the functions they call in their place, producers before consumers.

    Raises:
        ReaderError: variables (the graph is not frozen), control flow, functions that call themselves.
        GraphError: a name used twice, an operand that does not exist, a cycle.
    """
    nodes = _inlined(graph_def)
    for node in nodes.values():
        if node.op in _VARIABLES:
            raise ReaderError(
                f"operator {node.name!r} ({node.op}) reads a variable: the graph is not frozen. Freeze it "
                "with tf.compat.v1.graph_util.convert_variables_to_constants; a TensorFlow 2 function with "
                "convert_variables_to_constants_v2 of tensorflow.python.framework.convert_to_constants"
            )
        if node.op in _CONTROL_FLOW or node.op.startswith(_CONTROL_FLOW_PREFIXES):
            raise ReaderError(
                f"operator {node.name!r} ({node.op}) is control flow: what runs is known only at run time. "
                "Export the network without its loops and conditions"
            )
    order = nx.DiGraph()
    order.add_nodes_from(nodes)
    for node in nodes.values():
        for producer, _ in node.inputs:
            if producer not in nodes:
                raise GraphError(f"its operand {producer!r} does not exist in the graph", node.name)
            order.add_edge(producer, node.name)
    if not nx.is_directed_acyclic_graph(order):
        loop = [producer for producer, _ in nx.find_cycle(order)]
        raise GraphError(f"the graph is cyclic: {' -> '.join([*loop, loop[0]])}", loop[0])
    return [nodes[name] for name in nx.topological_sort(order)]


def _inlined(graph_def: Any) -> dict[str, Node]:
    """Nodes by name; a call becomes the body of its function and an ``IdentityN`` of its results."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    nodes: dict[str, Node] = {}
    waiting: list[tuple[Node, tuple[str, ...]]] = [(_node(proto), ()) for proto in reversed(graph_def.node)]
    while waiting:
        node, callers = waiting.pop()
        function = _called(node, functions)
        if function is not None:
            body, results = _body(node, function, functions)
            name = function.signature.name
            if name in callers:
                raise ReaderError(f"operator {node.name!r} calls the function {name!r} within itself")
            if len(callers) > _MAX_NESTING:
                raise ReaderError(f"operator {node.name!r} is the {len(callers)}th call within another")
            waiting += [(inner, (*callers, name)) for inner in body]
            node = Node(node.name, "IdentityN", results, {})
        if node.name in nodes:
            raise GraphError("the name is used twice", node.name)
        if len(node.name) > _MAX_NAME:
            raise ReaderError(
                f"operator {node.name[:80]!r}...: its name has more than {_MAX_NAME} characters"
            )
        nodes[node.name] = node
        if len(nodes) + len(waiting) > MAX_NODES:
            raise ReaderError(f"the graph has more than {MAX_NODES} nodes, at operator {node.name!r}")
    return nodes


def _node(proto: Any) -> Node:
    """A node at the top of a GraphDef, where operands are ``name``, ``name:slot`` or ``^name``."""
    inputs = []
    for operand in proto.input:
        if not operand.startswith("^"):
            name, _, slot = operand.rpartition(":")
            inputs.append((name, int(slot)) if name and _is_slot(slot) else (operand, 0))
    return Node(proto.name, proto.op, tuple(inputs), proto.attr)


def _is_slot(written: str) -> bool:
    return written.isdecimal() and len(written) <= _MAX_SLOT_DIGITS


def _called(node: Node, functions: Mapping[str, Any]) -> Any:
    """The function that ``node`` calls, or None if it is an operator.

    Raises:
        ReaderError: the graph does not hold that function.
    """
    if node.op not in _CALLS:
        return functions.get(node.op)
    with naming(node):
        called = node.value("f", "func")
    name = called.name if called is not None else ""
    if name not in functions:
        raise ReaderError(
            f"operator {node.name!r} ({node.op}) calls the function {name!r}, which is not in the graph"
        )
    return functions[name]


def _body(
    call: Node, function: Any, functions: Mapping[str, Any]
) -> tuple[list[Node], tuple[tuple[str, int], ...]]:
    """The nodes of ``function`` called by ``call``, and what it returns."""
    arguments = [argument.name for argument in function.signature.input_arg]
    if len(arguments) != len(call.inputs):
        raise ReaderError(
            f"operator {call.name!r} calls {function.signature.name!r} with {len(call.inputs)} operand(s), "
            f"which takes {len(arguments)}"
        )
    kinds = {proto.name: proto.op for proto in function.node_def}

    def operand(written: str) -> tuple[str, int]:
        name, *rest = written.split(":")
        slot = int(rest[-1]) if rest and _is_slot(rest[-1]) else 0
        if len(rest) == 2:
            slot += _first_slot(kinds.get(name, ""), rest[0], functions)
        return f"{call.name}/{name}", slot

    body = [
        Node(f"{call.name}/{argument}", "Identity", (source,), {})
        for argument, source in zip(arguments, call.inputs, strict=True)
    ]
    for proto in function.node_def:
        inputs = tuple(operand(i) for i in proto.input if not i.startswith("^"))
        body.append(Node(f"{call.name}/{proto.name}", proto.op, inputs, proto.attr))
    results = [function.ret.get(result.name, "") for result in function.signature.output_arg]
    return body, tuple(operand(result) for result in results)


def _first_slot(op: str, output: str, functions: Mapping[str, Any]) -> int:
    """Slot at which the output argument ``output`` of an operator or function starts."""
    names: Iterable[str] = _OUTPUT_ARGUMENTS.get(op, ())
    if op in functions:
        names = [result.name for result in functions[op].signature.output_arg]
    found = list(names)
    return found.index(output) if output in found else 0
