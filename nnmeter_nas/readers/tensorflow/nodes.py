"""Check the nodes of a TensorFlow GraphDef, inline function calls and sort the nodes topologically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from ...errors import GraphError, ReaderError

#: Maximum number of nodes with functions inlined; nested calls can grow the graph exponentially.
MAX_NODES = 100_000
_MAX_NESTING = 64
_MAX_NAME = 1024
#: Maximum number of digits of an output slot; longer suffixes belong to the name.
_MAX_SLOT_DIGITS = 6
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_VARIABLES = frozenset(
    {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "ReadVariableOp", "RestoreV2"}
)
#: Operators that run functions, as often as data decides.
CONTROL_FLOW = frozenset(
    {"While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase", "For", "MapDefun"}
)
#: Operators that pass a tensor into a loop that is a cycle in the graph, and out of it; all of such a loop.
_ENTERS, _EXITS = frozenset({"Enter", "RefEnter"}), frozenset({"Exit", "RefExit"})
_CYCLES = _ENTERS | _EXITS | {"NextIteration", "RefNextIteration", "LoopCond"}
#: Output arguments of operators with several outputs. Operands inside functions refer to them by name.
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
class TfNode:
    """One operator of a GraphDef.

    Attributes:
        name: the node's name, prefixed with the name of the call that it was inlined from.
        op: TensorFlow's name of the operator.
        inputs: operands as ``(producer, output slot)``, without control inputs.
        attr: attributes, ``AttrValue`` messages by name.
    """

    name: str
    op: str
    inputs: tuple[tuple[str, int], ...]
    attr: Mapping[str, Any]

    def value(self, key: str, kind: str) -> Any:
        """Return attribute ``key``, or None if it is missing.

        Args:
            key: name of the attribute.
            kind: the field of ``AttrValue`` that holds it.

        Raises:
            ReaderError: the attribute is of another kind.
        """
        if key not in self.attr:
            return None
        found = self.attr[key].WhichOneof("value")
        if found != kind:
            raise ReaderError(f"attribute {key!r} holds {found!r}, expected {kind!r}")
        return getattr(self.attr[key], kind)

    def integer(self, key: str, default: int = 0) -> int:
        """Return an integer attribute."""
        value = self.value(key, "i")
        return default if value is None else int(value)

    def integers(self, key: str, default: Sequence[int] = ()) -> list[int]:
        """Return an attribute that is a list of integers."""
        value = self.value(key, "list")
        return list(default) if value is None else [int(i) for i in value.i]

    def flag(self, key: str) -> bool:
        """Return a boolean attribute; False if it is missing, because TensorFlow omits defaults."""
        return bool(self.value(key, "b"))

    def text(self, key: str, default: str = "") -> str:
        """Return a string attribute."""
        value = self.value(key, "s")
        return default if value is None else bytes(value).decode("utf-8", "replace")

    def plain(self, key: str) -> Any:
        """An attribute of any kind; text decoded, lists as lists."""
        kind = self.attr[key].WhichOneof("value")
        value = getattr(self.attr[key], kind)
        if kind == "list":
            return list(value.i or value.f)
        return value.decode("utf-8", "replace") if kind == "s" else value


@contextmanager
def naming(node: TfNode) -> Iterator[None]:
    """Add the node's name to errors raised inside; errors from malformed attributes become ReaderError."""
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


def nodes_in_order(graph_def: Any) -> list[TfNode]:
    """Return all nodes of ``graph_def`` with function calls inlined, producers before consumers.

    Raises:
        ReaderError: the graph has variables (it is not frozen), parts of loops, or recursive functions.
        GraphError: a name is used twice, an operand does not exist, or the graph is cyclic.
    """
    nodes = _loops_as_operators(_inline_calls(graph_def))
    for node in nodes.values():
        if node.op in _VARIABLES:
            raise ReaderError(
                f"operator {node.name!r} ({node.op}) reads a variable: the graph is not frozen. Freeze it "
                "with tf.compat.v1.graph_util.convert_variables_to_constants; a TensorFlow 2 function with "
                "convert_variables_to_constants_v2 of tensorflow.python.framework.convert_to_constants"
            )
        if node.op in _CYCLES:
            raise ReaderError(
                f"operator {node.name!r} ({node.op}) is a part of a loop that is not whole in the graph. "
                "Export the network with its loops, or without them"
            )
    order = _order(nodes)
    if not nx.is_directed_acyclic_graph(order):
        loop = [producer for producer, _ in nx.find_cycle(order)]
        raise GraphError(f"the graph is cyclic: {' -> '.join([*loop, loop[0]])}", loop[0])
    return [nodes[name] for name in nx.topological_sort(order)]


def _order(nodes: Mapping[str, TfNode]) -> nx.DiGraph:
    """Return the nodes' names, producers connected to consumers.

    Raises:
        GraphError: an operand does not exist.
    """
    order = nx.DiGraph()
    order.add_nodes_from(nodes)
    for node in nodes.values():
        for producer, _ in node.inputs:
            if producer not in nodes:
                raise GraphError(f"its operand {producer!r} does not exist in the graph", node.name)
            order.add_edge(producer, node.name)
    return order


def _loops_as_operators(nodes: dict[str, TfNode]) -> dict[str, TfNode]:
    """Return the nodes with one ``While`` in the place of each outermost loop that is a cycle.

    A loop is all that leads back to itself, with the loops inside it. How often it runs depends on data, as
    with TensorFlow 2's ``While``. What enters and leaves it is passed on as it is.
    """
    if not any(node.op in _CYCLES for node in nodes.values()):
        return nodes
    order = _order(nodes)
    # A switch that leaves a loop or goes on with it belongs to the condition, though it may not decide it.
    order.add_edges_from([(after, name) for name, after in order.edges if nodes[name].op == "LoopCond"])
    loop_of: dict[str, str] = {}
    for members in nx.strongly_connected_components(order):
        conditions = sorted(name for name in members if nodes[name].op == "LoopCond")
        if len(members) > 1 and conditions:
            loop_of.update(dict.fromkeys(members, conditions[0]))
    found: dict[str, TfNode] = {}
    outside: dict[str, dict[tuple[str, int], None]] = {loop: {} for loop in loop_of.values()}
    for node in nodes.values():
        inputs = tuple((loop_of[name], 0) if name in loop_of else (name, slot) for name, slot in node.inputs)
        loop = loop_of.get(node.name)
        if loop is not None:
            outside[loop].update((operand, None) for operand in inputs if operand[0] != loop)
        else:
            leaves = node.op in _EXITS and any(producer in outside for producer, _ in inputs)
            passes = TfNode(node.name, "Identity", inputs, {})
            found[node.name] = passes if leaves else replace(node, inputs=inputs)
    for loop, operands in outside.items():
        found[loop] = TfNode(loop, "While", tuple(operands), {})
        for name, _ in operands:
            if found[name].op in _ENTERS:
                found[name] = TfNode(name, "Identity", found[name].inputs, {})
    return found


def _inline_calls(graph_def: Any) -> dict[str, TfNode]:
    """Return the nodes by name. A call becomes its function's body and an ``IdentityN`` of the results."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    nodes: dict[str, TfNode] = {}
    waiting: list[tuple[TfNode, tuple[str, ...]]] = [(_node(proto), ()) for proto in reversed(graph_def.node)]
    while waiting:
        node, callers = waiting.pop()
        function = _called_function(node, functions)
        if function is not None:
            body, results = _function_body(node, function, functions)
            name = function.signature.name
            if name in callers:
                raise ReaderError(f"operator {node.name!r} calls the function {name!r} recursively")
            if len(callers) > _MAX_NESTING:
                raise ReaderError(
                    f"operator {node.name!r} nests function calls more than {_MAX_NESTING} deep"
                )
            waiting += [(inner, (*callers, name)) for inner in body]
            node = TfNode(node.name, "IdentityN", results, {})
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


def _node(proto: Any) -> TfNode:
    """Convert a top-level node of a GraphDef, whose operands are ``name``, ``name:slot`` or ``^name``."""
    inputs = []
    for operand in proto.input:
        if not operand.startswith("^"):
            name, _, slot = operand.rpartition(":")
            inputs.append((name, int(slot)) if name and _is_slot(slot) else (operand, 0))
    return TfNode(proto.name, proto.op, tuple(inputs), proto.attr)


def _is_slot(written: str) -> bool:
    return written.isdecimal() and len(written) <= _MAX_SLOT_DIGITS


def _called_function(node: TfNode, functions: Mapping[str, Any]) -> Any:
    """Return the function that ``node`` calls, or None if it is an operator.

    Raises:
        ReaderError: the function is not in the graph.
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


def _function_body(
    call: TfNode, function: Any, functions: Mapping[str, Any]
) -> tuple[list[TfNode], tuple[tuple[str, int], ...]]:
    """Inline ``function`` at ``call``: return its nodes and the operands that it returns."""
    arguments = [argument.name for argument in function.signature.input_arg]
    if len(arguments) != len(call.inputs):
        raise ReaderError(
            f"operator {call.name!r} calls {function.signature.name!r} with {len(call.inputs)} operand(s), "
            f"but the function takes {len(arguments)}"
        )
    kinds = {proto.name: proto.op for proto in function.node_def}

    def operand(written: str) -> tuple[str, int]:
        name, *rest = written.split(":")
        slot = int(rest[-1]) if rest and _is_slot(rest[-1]) else 0
        if len(rest) == 2:
            slot += _first_slot(kinds.get(name, ""), rest[0], functions)
        return f"{call.name}/{name}", slot

    body = [
        TfNode(f"{call.name}/{argument}", "Identity", (source,), {})
        for argument, source in zip(arguments, call.inputs, strict=True)
    ]
    for proto in function.node_def:
        inputs = tuple(operand(i) for i in proto.input if not i.startswith("^"))
        body.append(TfNode(f"{call.name}/{proto.name}", proto.op, inputs, proto.attr))
    results = [function.ret.get(result.name, "") for result in function.signature.output_arg]
    return body, tuple(operand(result) for result in results)


def _first_slot(op: str, output: str, functions: Mapping[str, Any]) -> int:
    """Return the output slot at which the output argument ``output`` of an operator or function starts."""
    names: Iterable[str] = _OUTPUT_ARGUMENTS.get(op, ())
    if op in functions:
        names = [result.name for result in functions[op].signature.output_arg]
    found = list(names)
    return found.index(output) if output in found else 0
