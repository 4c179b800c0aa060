"""Fusion rules of a device, found in what its runtime ran of whole networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import networkx as nx

from ..backends.base import KernelTime
from ..graph.traversal import topological_order
from ..kernels.fusion import FusionRules, Kernel, folds_bn, fuse, parse_rules
from ..kernels.patterns import PATTERNS
from ..ops import RULE_NAMES, VIEW_OPS

#: Rules of every runtime that we know; they hold where a device does not tell.
COMMON_RULES = ("add->relu", "conv->bn", "conv->relu", "dwconv->bn", "dwconv->relu")
#: A pair that is seen less often tells nothing.
_LEAST_SEEN = 3
#: Share of its occurrences in which a pair must be fused to become a rule.
_MOST = 0.5
#: Shares at which a pair is neither always nor never fused, so that what comes before it may decide.
_MIXED = (0.1, 0.9)


#: Operators that could be one kernel, in the words of fusion rules, and whether they were.
_Vote = tuple[tuple[str, ...], bool]


class Found(NamedTuple):
    """How often operators that could have fused were fused.

    Attributes:
        names: the operators in the words of fusion rules, the last of which may join those before it; or a
            whole pattern alone.
        fused, seen: number of occurrences.
        uncertain: whether they do not tell if there is a rule.
    """

    names: tuple[str, ...]
    fused: int
    seen: int
    uncertain: bool = False

    @property
    def share(self) -> float:
        """Share of occurrences that were fused; 0 if none of them tells."""
        return self.fused / self.seen if self.seen else 0.0


def find_rules(runs: Iterable[tuple[nx.DiGraph, Sequence[KernelTime]]]) -> tuple[list[str], list[Found]]:
    """Find the fusion rules that explain what a runtime ran.

    Args:
        runs: finished model graphs, and the kernels that the runtime executed of each.

    Returns:
        The rules, as :func:`nnmeter_nas.kernels.fusion.parse_rules` takes them, and all votes.
    """
    runs = list(runs)
    patterns = _counted((name, fused) for graph, kernels in runs for name, fused in _whole(graph, kernels))
    rules = [one for one in patterns if one.seen >= _LEAST_SEEN and one.share > _MOST]
    units = parse_rules("->".join(one.names) for one in rules)
    found = _counted(
        (names[-length:], fused)
        for graph, kernels in runs
        for names, fused in _occurrences(graph, kernels, units)
        for length in (2, 3)
        if len(names) >= length
    )
    known = [one for one in found if one.seen >= _LEAST_SEEN]
    for pair in (one for one in known if len(one.names) == 2):
        longer: list[Found] = []
        if _MIXED[0] < pair.share < _MIXED[1]:
            longer = [one for one in known if one.names[1:] == pair.names]
        rules += [one for one in longer if one.share > _MOST]
        # The rest, where no more operators come before.
        seen = pair.seen - sum(one.seen for one in longer)
        joined = pair.fused - sum(one.fused for one in longer)
        if seen and joined / seen > _MOST:
            rules.append(pair)
    return sorted("->".join(one.names) for one in rules), [*patterns, *found]


def _counted(votes: Iterable[_Vote]) -> list[Found]:
    """Count the votes of each name."""
    of_names: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    for names, fused in votes:
        of_names[names].append(fused)
    return [Found(names, sum(votes), len(votes)) for names, votes in sorted(of_names.items())]


def _whole(graph: nx.DiGraph, kernels: Sequence[KernelTime]) -> Iterator[_Vote]:
    """Yield each whole pattern that only some runtimes know, and whether its core ran as one kernel."""
    owner = _owners(kernels)
    patterns = {pattern.name: pattern for pattern in PATTERNS if pattern.core}
    units = FusionRules(frozenset(), units=frozenset(patterns))
    for unit in _patterns(graph, units):
        core = [name for name in unit.members if graph.nodes[name]["op"] in patterns[unit.op].core]
        if all(name in owner for name in core):
            yield (unit.op,), len({owner[name] for name in core}) == 1


def _owners(kernels: Sequence[KernelTime]) -> dict[str, int]:
    """For each operator, the number of the kernel that it ran in."""
    return {name: i for i, kernel in enumerate(kernels) for name in kernel.operators}


def _occurrences(graph: nx.DiGraph, kernels: Sequence[KernelTime], units: FusionRules) -> Iterator[_Vote]:
    """Yield each chain of operators that could be one kernel, and whether the last joined those before.

    A whole pattern such as squeeze-excite, one of ``units``, counts as one operator.
    """
    owner = _owners(kernels)
    unit = {name: pattern for pattern in _patterns(graph, units) for name in pattern.members}
    chains: dict[str, tuple[str, ...]] = {}
    for name in topological_order(graph):
        op = graph.nodes[name]["op"]
        if op == "input" or op in VIEW_OPS or name not in owner:
            continue
        if name in unit:
            chains[name] = (unit[name].op,)
            continue
        before = [producer for producer, _ in graph.nodes[name]["inputs"] if producer in chains]
        joined = [producer for producer in before if owner[producer] == owner[name]]
        rule_name = RULE_NAMES.get(op, op)
        for producer in dict.fromkeys(before):
            if graph.out_degree(producer) == 1 and producer not in graph.graph["outputs"]:
                yield (*chains[producer], rule_name), producer in joined
        head = chains[joined[-1]] if joined else ()
        chains[name] = head if op == "bn" and len(head) == 1 and folds_bn(head[0]) else (*head, rule_name)


def _patterns(graph: nx.DiGraph, units: FusionRules) -> list[Kernel]:
    """The whole patterns of a graph, those that are ``units``."""
    # Without pairs, only patterns have more than one member.
    kernels = [kernel for _, kernel in fuse(graph, units).nodes(data="kernel")]
    return [kernel for kernel in kernels if len(kernel.members) > 1]
