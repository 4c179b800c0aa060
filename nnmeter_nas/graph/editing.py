"""Edit a model graph in place: rewire, replace, insert and remove operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import networkx as nx

from .shapes import operand_shape

#: A producer and one of its output slots.
Operand = tuple[str, int]


def connect(graph: nx.DiGraph, operand: Operand, consumer: str, in_slot: int) -> None:
    """Connect ``operand`` to ``consumer``: add an edge, or a slot to the edge that is there."""
    producer, out_slot = operand
    if graph.has_edge(producer, consumer):
        graph.edges[producer, consumer]["slots"].append((out_slot, in_slot))
    else:
        graph.add_edge(producer, consumer, slots=[(out_slot, in_slot)])


def connect_all(graph: nx.DiGraph, operands: Sequence[Operand], consumer: str) -> None:
    """Connect ``operands`` to ``consumer``, which no edge leads to yet."""
    slots: dict[str, list[tuple[int, int]]] = {}
    for in_slot, (producer, out_slot) in enumerate(operands):
        slots.setdefault(producer, []).append((out_slot, in_slot))
    for producer, pairs in slots.items():
        graph.add_edge(producer, consumer, slots=pairs)


def set_operands(graph: nx.DiGraph, name: str, operands: Sequence[Operand]) -> None:
    """Make ``operands`` the only operands of ``name``."""
    data = graph.nodes[name]
    graph.remove_edges_from([(producer, name) for producer in {p for p, _ in data["inputs"]}])
    data["in_shapes"] = [operand_shape(graph, name, operand) for operand in operands]
    data["inputs"] = list(operands)
    connect_all(graph, operands, name)


def bypass(graph: nx.DiGraph, name: str, source: Operand) -> None:
    """Make every reader of ``name`` read ``source`` instead, and remove ``name``."""
    for consumer in list(graph.successors(name)):
        for _, in_slot in graph.edges[name, consumer]["slots"]:
            _feed(graph, consumer, in_slot, source)
    outputs = graph.graph["outputs"]
    if name in outputs:
        graph.graph["outputs"] = list(dict.fromkeys(source[0] if o == name else o for o in outputs))
    graph.remove_node(name)


def _feed(graph: nx.DiGraph, consumer: str, in_slot: int, source: Operand) -> None:
    data = graph.nodes[consumer]
    data["inputs"][in_slot] = source
    data["in_shapes"][in_slot] = operand_shape(graph, consumer, source)
    connect(graph, source, consumer, in_slot)


def replace(
    graph: nx.DiGraph,
    name: str,
    op: str,
    operands: Sequence[Operand],
    attrs: Mapping[str, Any] | None = None,
    gone: Iterable[str] = (),
) -> None:
    """Make ``name`` the operator ``op`` of ``operands``; it keeps its output shapes.

    ``gone`` names the other operators that it replaces; no other operator may read them.
    """
    graph.remove_nodes_from(gone)
    set_operands(graph, name, operands)
    graph.nodes[name].update(op=op, attrs=dict(attrs or {}))


def insert(
    graph: nx.DiGraph, name: str, op: str, operand: Operand, attrs: Mapping[str, Any], shapes: list[Any]
) -> str:
    """Add an operator with one operand and known output ``shapes``; return its name."""
    while name in graph:
        name += "_"
    graph.add_node(
        name, op=op, attrs=dict(attrs), inputs=[operand], declared=None,
        in_shapes=[operand_shape(graph, name, operand)], out_shapes=shapes,
    )  # fmt: skip
    connect(graph, operand, name, 0)
    return name


def drop_unread(graph: nx.DiGraph, names: Iterable[str]) -> None:
    """Remove the operators in ``names`` that nothing reads, and then unread operators before them."""
    stack = list(names)
    while stack:
        name = stack.pop()
        unread = name in graph and not graph.out_degree(name) and name not in graph.graph["outputs"]
        if unread and graph.nodes[name]["op"] != "input":
            stack += graph.predecessors(name)
            graph.remove_node(name)


def read_once(graph: nx.DiGraph, name: str) -> bool:
    """Whether only one operator reads ``name``, in one place, and ``name`` is not an output of the model."""
    consumers = graph.adj[name]
    if len(consumers) != 1 or name in graph.graph["outputs"]:
        return False
    [edge] = consumers.values()
    return len(edge["slots"]) == 1


def sole_source(graph: nx.DiGraph, name: str, ops: Iterable[str]) -> str | None:
    """The only operand of ``name``, if it is one of ``ops`` and nothing else reads it."""
    operands = graph.nodes[name]["inputs"]
    if len(operands) != 1:
        return None
    producer: str = operands[0][0]
    return producer if graph.nodes[producer]["op"] in ops and read_once(graph, producer) else None
