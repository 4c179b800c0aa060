"""A latency that needs no predictor pack: the multiplications of a model graph."""

from __future__ import annotations

import math

import networkx as nx


def millions_of_multiplications(graph: nx.DiGraph) -> float:
    """Multiplications of convolutions and dense layers, in millions."""
    total = 0
    for _, data in graph.nodes(data=True):
        if data["op"] in ("conv", "dwconv"):
            inner = data["in_shapes"][0][1] // data["attrs"].get("groups", 1)
            total += math.prod(data["out_shapes"][0]) * math.prod(data["attrs"]["kernel"]) * inner
        elif data["op"] == "fc":
            total += data["in_shapes"][0][-1] * data["out_shapes"][0][-1]
    return total / 1e6


class WorkPredictor:
    """A device that takes one ms for a million multiplications."""

    def predict(self, graph: nx.DiGraph) -> float:
        """Latency of a model graph, ms."""
        return millions_of_multiplications(graph)
