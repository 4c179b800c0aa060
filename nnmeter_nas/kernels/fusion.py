"""Fusion: turn a model graph into a kernel graph by joining operators that a device runs as one kernel.

First, each whole pattern such as squeeze-excite becomes one unit. Then pairwise rules let an operator join
the kernel of its operand. Both take one pass in topological order, so the cost is linear in the size of the
graph. The rules in nn-Meter's own files use pairs differently; see
:mod:`nnmeter_nas.packs.nnmeter1.rules`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import networkx as nx

from ..graph.traversal import topological_order
from ..graph.unknown import UNKNOWN_WORK
from ..ops import RULE_NAMES, VIEW_OPS
from .patterns import COMMON_PATTERNS, PATTERNS, Pattern

#: Batch norm folds into the weights of these, so rules that hold after them hold after it too.
_FOLDS_BN = frozenset({"conv", "dwconv", "convtranspose", "fc"})
#: Most operators that a rule looks at before the one that may join.
_LOOKS_BACK = 2


@dataclass
class Kernel:
    """One kernel: its head operator, the operators that joined it, and its input and output shapes.

    Attributes:
        op: canonical operator, or name of a pattern such as ``se``; it determines the kernel type.
        members: names of all its operators in the model graph, in topological order.
        attrs: attributes of the head operator.
        in_shapes: shapes of the head's operands.
        out_shapes: output shapes of the kernel.
        joined: operators fused after the head, e.g. ``["bn", "relu"]``.
    """

    op: str
    members: list[str]
    attrs: dict[str, Any]
    in_shapes: list[tuple[int, ...]]
    out_shapes: list[tuple[int, ...]]
    joined: list[str] = field(default_factory=list)

    @property
    def type(self) -> str:
        """Name such as ``conv-bn-relu``."""
        return "-".join([self.op, *self.joined])

    @property
    def has_unknown_work(self) -> bool:
        """Whether nobody knows how much it does: the size of a tensor is unknown, or data decides."""
        return UNKNOWN_WORK in self.attrs

    @property
    def form(self) -> Hashable:
        """Everything that a kernel predictor can see of it: kernels with equal forms take the same time."""
        attrs = repr(sorted(self.attrs.items()))
        return self.type, tuple(self.in_shapes), tuple(self.out_shapes), attrs

    @property
    def chain(self) -> tuple[str, ...]:
        """Its operators as the rules name them, without a batch norm that folds into the weights."""
        folds = folds_bn(self.op)
        ops = (self.op, *(op for op in self.joined if not (folds and op == "bn")))
        return tuple(RULE_NAMES.get(op, op) for op in ops)


@dataclass(frozen=True)
class FusionRules:
    """Which operator may join which kernel.

    Attributes:
        pairs: ``(a, b)`` lets ``b`` join a kernel that ends in ``a``, in the words of RULE_NAMES;
            ``(a, b, c)`` lets ``c`` join one that ends in ``a`` and ``b``.
        several_readers: whether operators may join a kernel that several operators read; each of them may.
        earliest_kernel: which kernel an operator joins if it could join several: the kernel of its first
            operand, or the one that starts earliest in topological order.
        units: names of the whole patterns that become one unit.
    """

    pairs: frozenset[tuple[str, ...]]
    several_readers: bool = False
    earliest_kernel: ClassVar[bool] = False
    units: frozenset[str] = COMMON_PATTERNS

    @property
    def patterns(self) -> Sequence[Pattern]:
        """Whole patterns that become one unit before any pair is tried, in the order to try them."""
        return [pattern for pattern in PATTERNS if pattern.name in self.units]

    def name(self, data: Mapping[str, Any]) -> str:
        """Name that a kernel uses for the operator of a model-graph node."""
        return str(data["op"])

    def allow(self, kernel: Kernel, op: str) -> bool:
        """Whether ``op`` may join ``kernel``."""
        chain, name = kernel.chain, RULE_NAMES.get(op, op)
        return any((*chain[-n:], name) in self.pairs for n in range(1, min(_LOOKS_BACK, len(chain)) + 1))


def parse_rules(lines: Iterable[str]) -> FusionRules:
    """Parse rules such as ``"conv->relu"``, ``"conv->add->relu"`` or ``"attention"``, a whole pattern.

    >>> rules = parse_rules(["conv->relu", "add->relu", "attention"])
    >>> sorted(rules.pairs), sorted(rules.units)
    ([('add', 'relu'), ('conv', 'relu')], ['attention', 'se'])
    """
    rules = {tuple(name.strip() for name in line.split("->")) for line in lines}
    units = {(pattern.name,) for pattern in PATTERNS} & rules
    for names in rules - units:
        if not 2 <= len(names) <= _LOOKS_BACK + 1 or not all(names):
            raise ValueError(f"{'->'.join(names)!r} is no rule such as 'conv->relu' or 'conv->add->relu'")
    return FusionRules(frozenset(rules - units), units=COMMON_PATTERNS.union(*units))


def folds_bn(op: str) -> bool:
    """Whether a batch norm after ``op`` becomes part of its weights."""
    return op in _FOLDS_BN


def fuse(graph: nx.DiGraph, rules: FusionRules) -> nx.DiGraph:
    """Kernel graph of a finished model graph under ``rules``.

    Nodes are named after each kernel's first operator and carry ``kernel``. Every operator of
    ``graph`` except inputs and views is in exactly one kernel. ``graph`` is not changed.
    """
    owner: dict[str, str] = {}
    kernels: dict[str, Kernel] = {}
    patterns = _find_patterns(graph, rules.patterns)
    starts: dict[str, int] = {}
    nodes, order = dict(graph.nodes(data=True)), topological_order(graph)
    followed = _followed_by_one_unit(graph, patterns)
    for name in order:
        data = nodes[name]
        if data["op"] == "input":
            continue
        unit = patterns.get(name)
        if unit is None:
            if data["op"] in VIEW_OPS:
                continue
            unit = Kernel(rules.name(data), [name], data["attrs"], data["in_shapes"], data["out_shapes"])
        elif name != unit.members[-1]:
            continue
        heads = _joinable_kernels(nodes, unit, owner, kernels, followed, rules)
        if rules.earliest_kernel and len(heads) > 1:
            starts = starts or _starts(graph, patterns)
            heads.sort(key=lambda kernel: starts[kernel.members[0]])
        _place(unit, heads[0] if heads else None, owner, kernels)
    return _kernel_graph(graph.graph.get("name", ""), {name: nodes[name] for name in order}, kernels, owner)


def _starts(graph: nx.DiGraph, patterns: dict[str, Kernel]) -> dict[str, int]:
    """For each operator, the place of its unit (by the unit's first member) in topological order."""
    first = {name: patterns[name].members[0] if name in patterns else name for name in graph}
    units = nx.DiGraph()
    units.add_nodes_from(first.values())
    units.add_edges_from((first[a], first[b]) for a, b in graph.edges if first[a] != first[b])
    return {name: i for i, name in enumerate(topological_order(units))}


def _place(unit: Kernel, head: Kernel | None, owner: dict[str, str], kernels: dict[str, Kernel]) -> None:
    """Record ``unit`` as part of ``head``, or as a kernel of its own."""
    if head is None:
        kernels[unit.members[0]] = unit
    else:
        head.members += unit.members
        head.joined.append(unit.type)
        head.out_shapes = unit.out_shapes
    name = (head or unit).members[0]
    owner.update(dict.fromkeys(unit.members, name))


def _joinable_kernels(
    nodes: Mapping[str, dict[str, Any]],
    unit: Kernel,
    owner: dict[str, str],
    kernels: dict[str, Kernel],
    followed: set[str],
    rules: FusionRules,
) -> list[Kernel]:
    """The kernels that the rules let ``unit`` join, in the order of its operands.

    ``followed`` holds the operators that only one unit reads.
    """
    found = []
    operands = [operand for member in unit.members for operand in nodes[member]["inputs"]]
    for producer in dict.fromkeys([producer for producer, _ in operands]):
        if producer not in owner:
            continue
        kernel = kernels[owner[producer]]
        ends_there = kernel.members[-1] == producer and producer in followed
        if (ends_there or rules.several_readers) and rules.allow(kernel, unit.type):
            found.append(kernel)
    return found


def _kernel_graph(
    name: str, nodes: Mapping[str, dict[str, Any]], kernels: dict[str, Kernel], owner: dict[str, str]
) -> nx.DiGraph:
    """Connect kernels as their members are connected, across views; ``nodes`` come producers first."""
    out = nx.DiGraph(name=name)
    out.add_nodes_from((name, {"kernel": kernel}) for name, kernel in kernels.items())
    source: dict[str, list[str]] = {}
    edges: list[tuple[str, str]] = []
    for operator, data in nodes.items():
        before = [s for producer, _ in data["inputs"] for s in source[producer]]
        kernel = owner.get(operator)
        if kernel is None:
            source[operator] = before
        else:
            edges += [(s, kernel) for s in before if s != kernel]
            source[operator] = [kernel]
    out.add_edges_from(edges)
    return out


def _followed_by_one_unit(graph: nx.DiGraph, patterns: dict[str, Kernel]) -> set[str]:
    """Operators that are no output and that only one operator, or only members of one pattern, read."""
    followed = set()
    for name, consumers in graph.adjacency():
        if len(consumers) > 1:
            consumers = {patterns[c].members[0] if c in patterns else c for c in consumers}
        if len(consumers) == 1:
            followed.add(name)
    return followed.difference(graph.graph["outputs"])


def _find_patterns(graph: nx.DiGraph, patterns: Sequence[Pattern]) -> dict[str, Kernel]:
    """Member operator -> its pattern. The first pattern found takes an operator."""
    found: dict[str, Kernel] = {}
    by_start: dict[str, list[Pattern]] = {}
    for pattern in patterns:
        for op in pattern.found_by:
            by_start.setdefault(op, []).append(pattern)
    for name, op in graph.nodes(data="op"):
        for pattern in by_start.get(op, ()):
            members = pattern.match(graph, name)
            if members and found.keys().isdisjoint(members):
                found.update(dict.fromkeys(members, _pattern_unit(graph, pattern, members)))
                break
    return found


def _pattern_unit(graph: nx.DiGraph, pattern: Pattern, members: list[str]) -> Kernel:
    """Make one unit of a pattern. The first operator of a chain such as ``conv-bn-relu`` names it."""
    op, *joined = pattern.name.split("-")
    attrs, in_shapes, out_shapes = pattern.sizes(graph, members)
    return Kernel(op, members, attrs, in_shapes, out_shapes, joined)
