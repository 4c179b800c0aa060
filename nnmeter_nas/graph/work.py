"""Work of a model graph: floating-point operations and parameters, in total and by operator.

A multiply-add is two operations. As in :mod:`torch.utils.flop_counter`, only matrix products and convolutions
count; activations, pools and batch norms do not. Parameters are weights and biases. They include the two of
each channel of a batch norm, but not its running mean and variance. A layer that is called twice counts
twice. :mod:`nnmeter_nas.ops` declares the work of each operator.
"""

from __future__ import annotations

import networkx as nx

from ..ops import OPERATORS


def flops(graph: nx.DiGraph) -> int:
    """Floating-point operations of a finished model graph; unknown operators are not counted.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> _ = add_op(graph, "y", "fc", [add_input(graph, "x", (1, 8))], {"out_features": 10})
    >>> flops(finish(graph)), params(graph)
    (160, 90)
    """
    return sum(flops_by_operator(graph).values())


def params(graph: nx.DiGraph) -> int:
    """Parameters of a finished model graph; unknown operators are not counted."""
    return sum(params_by_operator(graph).values())


def flops_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Floating-point operations by operator name; operators of unknown kinds are left out."""
    known = ((name, data) for name, data in graph.nodes(data=True) if data["op"] in OPERATORS)
    return {name: 2 * OPERATORS[data["op"]].macs(data) for name, data in known}


def params_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Parameters by operator name; operators that do not state them are left out."""
    found = {}
    for name, data in graph.nodes(data=True):
        operator = OPERATORS.get(data["op"])
        told = data["attrs"].get("params") if operator is None else operator.params_of(data)
        if told is not None:
            found[name] = int(told)
    return found
