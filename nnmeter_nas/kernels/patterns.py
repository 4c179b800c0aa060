"""Whole patterns that a device runs as one kernel, found among the operators of a model graph.

They stay several operators in the model graph, so that the work and weights of their parts are counted, and
so that they can be written as other programs spell them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import networkx as nx

from ..graph.shapes import Shape
from ..ops import VIEW_OPS


class Sizes(NamedTuple):
    """Attributes, input and output shapes of the kernel that a pattern makes."""

    attrs: dict[str, Any]
    in_shapes: list[Shape]
    out_shapes: list[Shape]


class Pattern(NamedTuple):
    """Operators that may be one kernel.

    Attributes:
        name: the kernel type.
        found_by: operators by one of which it is found.
        match: returns all members, producers first, from the one that it is found by; None if there is no
            such pattern.
        sizes: sizes of the kernel that the members make.
        core: operators that a runtime runs as one kernel if it knows the pattern. Empty if the pattern is one
            unit on every device.
    """

    name: str
    found_by: frozenset[str]
    match: Callable[[nx.DiGraph, str], list[str] | None]
    sizes: Callable[[nx.DiGraph, list[str]], Sizes]
    core: frozenset[str] = frozenset()


_LAYERS = frozenset({"conv", "fc"})
_BATCH_NORM = frozenset({"bn"})
_PRODUCT, _SOFTMAX, _TRANSPOSE = frozenset({"matmul"}), frozenset({"softmax"}), frozenset({"transpose"})
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
_SCALES = frozenset({"mul", "div"})
#: What may stand between the product of query and key and the softmax: a scale and a mask.
_SCORES = _SCALES | {"add", "sub"}


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


def _sizes_of_squeeze_excite(graph: nx.DiGraph, members: list[str]) -> Sizes:
    widths = [graph.nodes[m]["out_shapes"][0][1] for m in members if graph.nodes[m]["op"] in _LAYERS]
    first, last = graph.nodes[members[0]], graph.nodes[members[-1]]
    return Sizes({"squeezed": widths[0]}, first["in_shapes"][:1], last["out_shapes"])


def attention(graph: nx.DiGraph, name: str) -> list[str] | None:
    """Members of ``softmax(scale * query @ key + mask) @ value``, if ``name`` is that softmax.

    Scales of query and key, and transposes of query, value and the result, are members unless others read
    them too. See Vaswani et al., "Attention Is All You Need", 2017.
    """
    scores = [name]
    while (before := _own_producer(graph, scores[0], _SCORES)) is not None:
        scores.insert(0, before)
    first, second = _own_producer(graph, scores[0], _PRODUCT), only_consumer(graph, name)
    if first is None or second is None or not _is_over_last_axis(graph.nodes[name]):
        return None
    operands = graph.nodes[second]["inputs"]
    if graph.nodes[second]["op"] not in _PRODUCT or operands[0][0] != name or len(operands) != 2:
        return None
    query = _own_producers(graph, first, 0, _SCALES, _TRANSPOSE)
    key = _own_producers(graph, first, 1, _SCALES)
    value = _own_producers(graph, second, 1, _TRANSPOSE)
    last = only_consumer(graph, second)
    turned = [last] if last is not None and graph.nodes[last]["op"] in _TRANSPOSE else []
    return [*query, *key, *value, first, *scores, second, *turned]


def _is_over_last_axis(data: Mapping[str, Any]) -> bool:
    return data["attrs"].get("axis", -1) in (-1, len(data["in_shapes"][0]) - 1)


def _own_producers(graph: nx.DiGraph, name: str, operand: int, *ops: frozenset[str]) -> list[str]:
    """What makes an operand of ``name`` alone, producers first: at most one operator of each of ``ops``."""
    members: list[str] = []
    for choices in ops:
        before = _own_producer(graph, name, choices, operand)
        if before is not None:
            members.insert(0, before)
            name, operand = before, 0
    return members


def _own_producer(graph: nx.DiGraph, name: str, ops: frozenset[str], operand: int = 0) -> str | None:
    """The operator that makes an operand of ``name``, if it is one of ``ops`` and nothing else reads it."""
    inputs = graph.nodes[name]["inputs"]
    if operand >= len(inputs):
        return None
    producer: str = inputs[operand][0]
    own = graph.nodes[producer]["op"] in ops and only_consumer(graph, producer) == name
    return producer if own else None


def _sizes_of_attention(graph: nx.DiGraph, members: list[str]) -> Sizes:
    """Query, key, value and result as the products see them, ``(1, heads, rows, columns)``."""
    first, second = (graph.nodes[m] for m in members if graph.nodes[m]["op"] in _PRODUCT)
    shapes = [*first["in_shapes"], second["in_shapes"][-1], *second["out_shapes"]]
    *operands, result = [(1, math.prod(shape[:-2]), *shape[-2:]) for shape in shapes]
    return Sizes({}, operands, [result])


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
PATTERNS: tuple[Pattern, ...] = (
    Pattern("se", frozenset({"globalavgpool"}), squeeze_excite, _sizes_of_squeeze_excite),
    Pattern("attention", _SOFTMAX, attention, _sizes_of_attention, _PRODUCT | _SOFTMAX),
)
#: Those that are one unit on every device.
COMMON_PATTERNS = frozenset(pattern.name for pattern in PATTERNS if not pattern.core)
