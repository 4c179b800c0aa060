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


def squeeze_excite() -> nx.DiGraph:
    """A convolution, and a gate on its channels."""
    layer = {"kernel": (1, 1), "stride": (1, 1), "padding": "same", "groups": 1}
    return graph_of(
        ("stem", "conv", ["x"], {**layer, "out_channels": 64}),
        ("pool", "globalavgpool", ["stem"], {}),
        ("squeeze", "conv", ["pool"], {**layer, "out_channels": 16}),
        ("act", "relu", ["squeeze"], {}),
        ("excite", "conv", ["act"], {**layer, "out_channels": 64}),
        ("gate", "sigmoid", ["excite"], {}),
        ("product", "mul", ["stem", "gate"], {}),
        shape=(1, 16, 28, 28),
    )
