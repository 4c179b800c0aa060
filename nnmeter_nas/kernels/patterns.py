"""Whole patterns that a device runs as one kernel, found among the operators of a model graph.

Only squeeze-excite is searched for on every device. It stays several operators in the model graph, so that
the work and weights of its parts are counted, and so that it can be written as other programs spell it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx

from ..ops import VIEW_OPS

#: Kernel type of a pattern, the operators it may start with, and a function from the first member to all.
Pattern = tuple[str, frozenset[str], Callable[[nx.DiGraph, str], list[str] | None]]

_LAYERS = frozenset({"conv", "fc"})
_BATCH_NORM = frozenset({"bn"})
#: Operators that may stand between the two layers of squeeze-excite: their few values cost almost nothing.
_ACTIVATIONS = frozenset(
    {
        *("relu", "relu6", "prelu", "leakyrelu", "elu", "gelu", "mish", "swish", "hswish"),
        *("sigmoid", "hsigmoid", "tanh", "softplus", "clip"),
    }
)
#: A gate must have one of these, which limit its values. The next constant adds the other allowed operators.
_LIMITING = frozenset({"sigmoid", "hsigmoid", "tanh", "clip", "relu6"})
_GATES = _LIMITING | {"relu", "add", "sub", "mul"}


def only_consumer(graph: nx.DiGraph, name: str) -> str | None:
    """The only operator that reads ``name``; None if there are several, or ``name`` is an output."""
    if graph.out_degree(name) != 1 or name in graph.graph["outputs"]:
        return None
    consumer: str = next(graph.successors(name))
    return consumer


def chain(
    graph: nx.DiGraph,
    name: str | None,
    *ops: tuple[str, ...],
    called: Callable[[Mapping[str, Any]], str] = lambda data: data["op"],
) -> list[str] | None:
    """``name`` and the sole consumers after it, if the name of each (by ``called``) is in its ``ops``."""
    members: list[str] = []
    for choices in ops:
        if name is None or called(graph.nodes[name]) not in choices:
            return None
        members.append(name)
        name = only_consumer(graph, name)
    return members


def squeeze_excite(graph: nx.DiGraph, name: str) -> list[str] | None:
    """Members of ``x * gate(excite(activation(squeeze(pool(x)))))``, if ``name`` is that pool.

    ``squeeze`` and ``excite`` are 1x1 convolutions or dense layers, each optionally with a batch norm. The
    activation between them is optional, and views may be anywhere.
    """
    entry = graph.nodes[name]["inputs"][0]
    members = [name]
    squeeze = _take(graph, members, _LAYERS)
    _take(graph, members, _BATCH_NORM)
    _take(graph, members, _ACTIVATIONS)
    excite = _take(graph, members, _LAYERS)
    if not squeeze or not excite:
        return None
    _take(graph, members, _BATCH_NORM)
    gate = set()
    while step := _take(graph, members, _GATES):
        gate.add(step)
    product = _after(graph, members)
    if product is None or gate.isdisjoint(_LIMITING) or graph.nodes[product]["op"] != "mul":
        return None
    operands = graph.nodes[product]["inputs"]
    return [*members, product] if len(operands) == 2 and entry in operands else None


def _take(graph: nx.DiGraph, members: list[str], ops: frozenset[str]) -> str | None:
    """Append the operator after the last member if it is one of ``ops``, and return its name.

    It must read one tensor, and only one position of it at a time.
    """
    step = _after(graph, members)
    if step is None:
        return None
    data = graph.nodes[step]
    if data["op"] not in ops or len(data["inputs"]) != 1 or set(data["attrs"].get("kernel", ())) - {1}:
        return None
    members.append(step)
    return str(data["op"])


def _after(graph: nx.DiGraph, members: list[str]) -> str | None:
    """The only consumer of the last member; views on the way become members."""
    step = only_consumer(graph, members[-1])
    while step is not None and graph.nodes[step]["op"] in VIEW_OPS:
        members.append(step)
        step = only_consumer(graph, step)
    return step


#: Tried in this order at every operator.
PATTERNS: tuple[Pattern, ...] = (("se", frozenset({"globalavgpool"}), squeeze_excite),)
