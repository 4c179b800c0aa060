"""Small model graphs, written as lists of operators."""

from __future__ import annotations

from typing import Any

import networkx as nx

from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph, set_outputs

#: Shape of the input ``x``, unless a test says otherwise.
SHAPE = (1, 8, 8, 8)


def unfinished_graph(
    *operators: tuple[Any, ...], outputs: list[str] | None = None, shape: Any = SHAPE
) -> nx.DiGraph:
    """An unfinished graph with the input ``x`` and operators ``(name, op, inputs, attrs?, declared?)``."""
    graph = new_graph()
    add_input(graph, "x", shape)
    for operator in operators:
        add_op(graph, *operator)
    if outputs:
        set_outputs(graph, outputs)
    return graph


def graph_of(
    *operators: tuple[Any, ...], outputs: list[str] | None = None, shape: tuple[int, ...] = SHAPE
) -> nx.DiGraph:
    """Like :func:`unfinished_graph`, but finished."""
    return finish(unfinished_graph(*operators, outputs=outputs, shape=shape))
