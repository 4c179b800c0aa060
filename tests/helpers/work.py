"""A latency without a predictor pack: the number of multiplications of a model graph."""

from __future__ import annotations

import math

import networkx as nx


def millions_of_multiplications(graph: nx.DiGraph) -> float:
    """Count the multiplications of convolutions and dense layers, in millions."""
    total = 0
    for _, data in graph.nodes(data=True):
        if data["op"] in ("conv", "dwconv"):
            inner = data["in_shapes"][0][1] // data["attrs"].get("groups", 1)
            total += math.prod(data["out_shapes"][0]) * math.prod(data["attrs"]["kernel"]) * inner
        elif data["op"] == "fc":
            total += data["in_shapes"][0][-1] * data["out_shapes"][0][-1]
    return total / 1e6


class WorkPredictor:
    """A device that takes 1 ms per million multiplications."""

    def predict(self, graph: nx.DiGraph) -> float:
        """Return the latency of a model graph in ms."""
        return millions_of_multiplications(graph)
