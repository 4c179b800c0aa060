"""Traversals return producers first, in networkx's order, and errors name cycles."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.errors import GraphError
from nnmeter_nas.graph.traversal import reachable, topological_order

edges = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40)


@given(edges)
def test_order_and_reachable_nodes_match_networkx(pairs: list[tuple[int, int]]) -> None:
    graph = nx.DiGraph([(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]])
    assert topological_order(graph) == list(nx.topological_sort(graph))
    for node in graph:
        assert reachable(graph, [node]) == nx.descendants(graph, node) | {node}


@given(edges)
def test_order_exists_exactly_for_acyclic_graphs(pairs: list[tuple[int, int]]) -> None:
    graph = nx.DiGraph(pairs)
    if nx.is_directed_acyclic_graph(graph):
        assert sorted(topological_order(graph)) == sorted(graph)
    else:
        with pytest.raises(GraphError, match="cyclic"):
            topological_order(graph)


def test_error_names_the_cycle() -> None:
    with pytest.raises(GraphError, match=r"b -> c -> b|c -> b -> c"):
        topological_order(nx.DiGraph([("a", "b"), ("b", "c"), ("c", "b")]))
