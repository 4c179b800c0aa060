"""Small model graphs, written as lists of operators."""

from __future__ import annotations

from typing import Any

import networkx as nx

from nnmeter_nas.graph import add_input, add_op, finish, new_graph, set_outputs

#: Shape of the input ``x``, unless a test says otherwise.
SHAPE = (1, 8, 8, 8)


def graph_of(
    *operators: tuple[Any, ...], outputs: list[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> nx.DiGraph:
    """A finished graph of ``(name, op, inputs, attrs?)`` behind the input ``x`` of ``shape``."""
    graph = new_graph()
    add_input(graph, "x", shape)
    for operator in operators:
        add_op(graph, *operator)
    if outputs:
        set_outputs(graph, outputs)
    return finish(graph)
