"""What is counted of paths at once is what a walk along each path of each network counts."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np
import pytest

from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph
from nnmeter_nas.supernet.choices import choices
from nnmeter_nas.supernet.paths import Paths

CANDIDATES = ("none", "skip", "conv", "pool")


def cells(count: int) -> nx.DiGraph:
    """A supernet of cells of four nodes, as in NAS-Bench-201; all cells choose alike."""
    graph, convolution = new_graph("cells"), {"out_channels": 8, "kernel": (3, 3)}
    x = add_input(graph, "x", (1, 8, 16, 16))
    for cell in range(count):
        nodes = [x]
        for target in (1, 2, 3):
            edges = []
            for source in range(target):
                name, label = f"c{cell}.{source}{target}", f"edge_{source}_{target}"
                operands = [
                    add_op(graph, f"{name}.none", "mul", [nodes[source]], {"const": 0.0}),
                    add_op(graph, f"{name}.skip", "identity", [nodes[source]]),
                    add_op(graph, f"{name}.conv", "conv", [nodes[source]], convolution),
                    add_op(graph, f"{name}.pool", "avgpool", [nodes[source]], {"kernel": (3, 3)}),
                ]
                attrs = {"label": label, "candidates": CANDIDATES}
                edges.append(add_op(graph, f"{name}.choice", "choice", operands, attrs))
            total = edges[0]
            for i, edge in enumerate(edges[1:]):
                total = add_op(graph, f"c{cell}.sum{target}.{i}", "add", [total, edge])
            nodes.append(total)
        x = nodes[-1]
    return graph


def walked(chosen: dict[str, str], count: int) -> list[float]:
    """Number of paths, then mean, most and least of convolutions (twice: they have weights) and pools."""
    paths = [()]
    for _ in range(count):
        of_cell = []
        for nodes in ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3)):
            edges = [chosen[f"edge_{a}_{b}"] for a, b in itertools.pairwise(nodes)]
            if "none" not in edges:
                of_cell.append(tuple(edges))
        paths = [before + after for before in paths for after in of_cell]
    if not paths:
        return [0.0] * 10
    convs, pools = ([path.count(name) for path in paths] for name in ("conv", "pool"))
    columns = [convs, convs, pools]
    return [
        math.log(len(paths)),
        *(float(np.mean(column)) for column in columns),
        *(float(max(column)) for column in columns),
        *(float(min(column)) for column in columns),
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_as_a_walk_counts(count: int) -> None:
    supernet = cells(count)
    known = choices(supernet)
    rows = np.array(list(itertools.product(range(len(CANDIDATES)), repeat=len(known))))
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:400]]
    found = Paths(supernet, tuple(known)).features(rows)
    expected = [
        walked({label: CANDIDATES[i] for label, i in zip(known, row, strict=True)}, count) for row in rows
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_counted_in_parts_as_at_once() -> None:
    supernet = cells(1)
    known = choices(supernet)
    rows = np.random.default_rng(0).integers(4, size=(9000, len(known)))
    paths = Paths(supernet, tuple(known))
    np.testing.assert_array_equal(paths.features(rows)[5000:5007], paths.features(rows[5000:5007]))
    assert paths.features(rows[:0]).shape == (0, paths.features(rows[:1]).shape[1])
