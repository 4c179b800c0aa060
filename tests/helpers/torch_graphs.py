"""Helpers for tests of the torch reader: read functions into model graphs and inspect them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
from torch import nn

from nnmeter_nas.readers.torch.module import read_torch_module


def ops(graph: nx.DiGraph) -> Counter[str]:
    """Count each operator, without inputs."""
    return Counter(op for _, op in graph.nodes(data="op") if op != "input")


def of(graph: nx.DiGraph, op: str) -> list[dict[str, Any]]:
    """Node data of all operators of one kind, in trace order."""
    return [data for _, data in graph.nodes(data=True) if data["op"] == op]


def read(function: Callable[..., Any], *shapes: tuple[int, ...]) -> nx.DiGraph:
    """The model graph of a function of tensors."""

    class Functional(nn.Module):
        def forward(self, *tensors: torch.Tensor) -> Any:
            return function(*tensors)

    graph = read_torch_module(Functional(), list(shapes))
    assert graph.graph["shape_mismatches"] == []
    return graph
