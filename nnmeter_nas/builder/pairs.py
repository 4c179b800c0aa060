"""Fusion rules of a device that does not tell what it ran, found by timing pairs of operators.

Two operators are one kernel if they take less time together than one after the other, by more than half of
what the quicker one takes: ``T(a) + T(b) - T(ab) > T(min) / 2``. This is nn-Meter's test. A pair is measured
at several sizes; where these disagree or are lost in noise, the pair is uncertain and keeps the common rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import networkx as nx

from ..kernels.fusion import folds_bn, fuse, parse_rules
from ..ops import RULE_NAMES, VIEW_OPS
from .networks import random_network
from .observations import Observation
from .pieces import can_be_alone, cost
from .rules import COMMON_RULES, Found
from .workspace import Workspace

#: Pairs are looked for in networks of these seeds; each is measured at so many sizes, seen so often at least.
_SEEDS, _SIZES, _LEAST_SEEN = range(3_000_000, 3_000_100), 3, 3
#: Operators that runtimes let join those before them: functions of each value.
_JOIN = frozenset(
    {"bn", "relu", "relu6", "leakyrelu", "hswish", "swish", "gelu", "sigmoid", "hsigmoid", "add"}
)
#: Saved share of the quicker operator above which a pair is fused.
_ALPHA = 0.5
#: Relative error of a latency at least, however well its visits agree.
_LEAST_ERROR = 0.01
#: So many sizes must tell, and all the same, for a verdict.
_LEAST_VOTES = 2
#: Parts of a pair that are measured.
_FIRST, _SECOND, _BOTH = "first", "second", "both"


class _Pair(NamedTuple):
    """One occurrence of a pair in a random network.

    Attributes:
        seed: of the network.
        first, second: the operators; a batch norm that folds into the first is with it.
        visible, size: what the second takes, in what the first takes and in values moved.
    """

    seed: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    visible: float
    size: float


def choose_pairs(workspace: Workspace) -> list[str]:
    """Names of the pieces of all pairs, which are added to the workspace if they are not there."""
    names = []
    for (first, second), found in _pairs().items():
        for i, pair in enumerate(found):
            for part, operators in (
                (_FIRST, pair.first), (_SECOND, pair.second), (_BOTH, pair.first + pair.second),
            ):  # fmt: skip
                names.append(f"{first}-{second}.{i}.{part}")
                if names[-1] not in workspace.networks:
                    workspace.add(names[-1], pair.seed, held_out=False, operators=operators)
    return names


@cache
def _pairs() -> dict[tuple[str, str], list[_Pair]]:
    """Occurrences of each pair, in the words of fusion rules: those that show best, at different sizes."""
    found: dict[tuple[str, str], dict[object, _Pair]] = {}
    for seed in _SEEDS:
        graph = random_network(seed)
        units = fuse(graph, parse_rules([])).nodes(data="kernel")
        kernels = {kernel.members[0]: kernel for _, kernel in units if len(kernel.members) == 1}
        for name, data in graph.nodes(data=True):
            before = _before(graph, name) if data["op"] in _JOIN and name in kernels else ()
            if not before or before[0] not in kernels:
                continue
            head, second = kernels[before[0]], kernels[name]
            if not (can_be_alone(head) and can_be_alone(second)):
                continue
            words = tuple(RULE_NAMES.get(kernel.op, kernel.op) for kernel in (head, second))
            pair = _Pair(seed, before, (name,), cost(second) / cost(head), cost(second))
            found.setdefault((words[0], words[1]), {}).setdefault((head.form, second.form), pair)
    return {
        words: _spread(list(of_pair.values()))
        for words, of_pair in sorted(found.items())
        if len(of_pair) >= _LEAST_SEEN
    }


def _spread(pairs: list[_Pair]) -> list[_Pair]:
    """Those of ``pairs`` whose second operator shows best, from the smallest to the largest."""
    best = sorted(pairs, key=lambda pair: -pair.visible)[: max(_SIZES, len(pairs) // 3)]
    by_size = sorted(best, key=lambda pair: pair.size)
    last, steps = len(by_size) - 1, min(_SIZES, len(by_size)) - 1
    return [by_size[round(i * last / max(1, steps))] for i in range(steps + 1)]


def _before(graph: nx.DiGraph, name: str) -> tuple[str, ...]:
    """The operator that ``name`` may join, which nobody else reads, and a batch norm between them."""
    for producer, _ in graph.nodes[name]["inputs"]:
        op = graph.nodes[producer]["op"]
        if graph.out_degree(producer) != 1 or op == "input" or op in VIEW_OPS:
            continue
        if op == "bn":
            head = graph.nodes[producer]["inputs"][0][0]
            if graph.out_degree(head) == 1 and folds_bn(graph.nodes[head]["op"]):
                return head, producer
        return (producer,)
    return ()


def pair_rules(pieces: Iterable[Observation]) -> tuple[list[str], list[Found]]:
    """Find the fusion rules that explain the latencies of the pieces of pairs.

    Returns:
        The rules, as :func:`nnmeter_nas.kernels.fusion.parse_rules` takes them, and the votes of each pair.
    """
    parts: dict[str, dict[str, dict[str, Observation]]] = {}
    for seen in pieces:
        pair, _, rest = seen.name.partition(".")
        size, _, part = rest.partition(".")
        if part in (_FIRST, _SECOND, _BOTH):
            parts.setdefault(pair, {}).setdefault(size, {})[part] = seen
    found = []
    for pair, sizes in sorted(parts.items()):
        votes = [vote for of_size in sizes.values() if (vote := _vote(of_size)) is not None]
        fused = sum(votes)
        uncertain = len(votes) < _LEAST_VOTES or 0 < fused < len(votes)
        found.append(Found(tuple(pair.split("-")), fused, len(votes), uncertain))
    told = {"->".join(one.names): one for one in found if not one.uncertain}
    rules = {name for name, one in told.items() if one.fused}
    return sorted(rules | (set(COMMON_RULES) - told.keys())), found


def _vote(parts: Mapping[str, Observation]) -> bool | None:
    """Whether a pair of one size is one kernel; None if that is lost in noise."""
    if len(parts) < 3:
        return None
    first, second, both = parts[_FIRST], parts[_SECOND], parts[_BOTH]
    least = min(first.ms, second.ms)
    saved = (first.ms + second.ms - both.ms) / least
    error = math.hypot(*(max(seen.disagreement, _LEAST_ERROR) * seen.ms for seen in parts.values())) / least
    return None if abs(saved - _ALPHA) <= error else saved > _ALPHA
