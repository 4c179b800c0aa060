"""Pieces of random networks, to be measured alone on devices that do not tell what each kernel took."""

from __future__ import annotations

from functools import lru_cache

import networkx as nx

from ..graph.model_graph import add_input, add_op, finish, new_graph
from ..graph.traversal import topological_order
from ..kernels.fusion import Kernel
from ..kernels.work import work_of
from .networks import random_network

#: Smaller kernels are not measured alone: what it costs to call a runtime would count as theirs.
_LEAST_COST = 10_000
#: So many multiply-adds take about as long as moving a value.
_MACS_OF_A_VALUE = 20


@lru_cache(maxsize=4096)
def piece(seed: int, operators: tuple[str, ...]) -> nx.DiGraph:
    """Return the finished graph of these ``operators`` of a random network; it must not be changed.

    Whatever they read of others is an input.
    """
    whole, alone = random_network(seed), new_graph(f"piece{seed}")
    inputs: dict[tuple[str, int], str] = {}
    for name in topological_order(whole):
        if name not in operators:
            continue
        data = whole.nodes[name]
        operands = []
        for (producer, slot), shape in zip(data["inputs"], data["in_shapes"], strict=True):
            if producer not in operators and (producer, slot) not in inputs:
                inputs[producer, slot] = add_input(alone, f"input{len(inputs)}", shape)
            given = inputs.get((producer, slot))
            operands.append((given, 0) if given is not None else (producer, slot))
        add_op(alone, name, data["op"], operands, data["attrs"])
    return finish(alone)


def cost(kernel: Kernel) -> float:
    """About what a kernel takes, in values to be moved."""
    macs, read, written, weights = work_of(kernel)
    return macs / _MACS_OF_A_VALUE + read + written + weights


def can_be_alone(kernel: Kernel) -> bool:
    """Whether a kernel takes long enough to be measured alone, and all that it reads has a batch of 1."""
    return cost(kernel) >= _LEAST_COST and all(shape[0] == 1 for shape in kernel.in_shapes)
