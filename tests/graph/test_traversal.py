"""Walks over graphs: producers first, in networkx's own order, and cycles named."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.errors import GraphError
from nnmeter_nas.graph.traversal import reachable, topological_order

edges = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40)


@given(edges)
def test_the_order_and_the_reach_are_those_of_networkx(pairs: list[tuple[int, int]]) -> None:
    graph = nx.DiGraph([(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]])
    assert topological_order(graph) == list(nx.topological_sort(graph))
    for node in graph:
        assert reachable(graph, [node]) == nx.descendants(graph, node) | {node}


@given(edges)
def test_an_order_is_given_exactly_where_there_is_no_cycle(pairs: list[tuple[int, int]]) -> None:
    graph = nx.DiGraph(pairs)
    if nx.is_directed_acyclic_graph(graph):
        assert sorted(topological_order(graph)) == sorted(graph)
    else:
        with pytest.raises(GraphError, match="cyclic"):
            topological_order(graph)


def test_a_cycle_is_named() -> None:
    with pytest.raises(GraphError, match=r"b -> c -> b|c -> b -> c"):
        topological_order(nx.DiGraph([("a", "b"), ("b", "c"), ("c", "b")]))
