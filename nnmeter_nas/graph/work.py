"""Work of a model graph: floating-point operations and parameters, in all and operator by operator.

A multiply-add is two operations, and as in :mod:`torch.utils.flop_counter` only products of matrices and
convolutions count: an activation, a pool or a batch norm takes none. Parameters are weights and biases, among
them the two that a batch norm has for each channel; its running mean and variance are none. A layer that is
called twice counts twice. What each operator does is declared in :mod:`nnmeter_nas.ops`.
"""

from __future__ import annotations

import networkx as nx

from ..ops import OPERATORS


def flops(graph: nx.DiGraph) -> int:
    """Floating-point operations of a finished model graph, as far as its operators are known.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> _ = add_op(graph, "y", "fc", [add_input(graph, "x", (1, 8))], {"out_features": 10})
    >>> flops(finish(graph)), params(graph)
    (160, 90)
    """
    return sum(flops_by_operator(graph).values())


def params(graph: nx.DiGraph) -> int:
    """Parameters of a finished model graph, as far as its operators are known."""
    return sum(params_by_operator(graph).values())


def flops_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Floating-point operations of each operator by name; an operator of an unknown kind is left out."""
    known = ((name, data) for name, data in graph.nodes(data=True) if data["op"] in OPERATORS)
    return {name: 2 * OPERATORS[data["op"]].macs(data) for name, data in known}


def params_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Parameters of each operator by name; an operator that does not tell them is left out."""
    found = {}
    for name, data in graph.nodes(data=True):
        operator = OPERATORS.get(data["op"])
        told = data["attrs"].get("params") if operator is None else operator.params_of(data)
        if told is not None:
            found[name] = int(told)
    return found
