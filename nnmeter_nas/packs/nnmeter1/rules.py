"""Fusion rules with the meaning that they have in nn-Meter's rule files.

There a pair names the operator that a kernel starts with, not the one it ends with. A rule of three or more
operators is a whole pattern, which nothing joins. If several kernels could take an operator, the one that
starts earliest takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import networkx as nx

from ...errors import PackError
from ...kernels.fusion import FusionRules, Kernel
from ...kernels.patterns import Pattern, Sizes, chain

#: nn-Meter's names of canonical operators, where the two differ.
NNMETER_NAMES = {"relu6": "relu", "clip": "relu", "globalavgpool": "gap"}
#: Prefix of the names of rules that say what fuses.
_PREFIX = "BF_"
#: Name of the rule that says whether an operator may join one that several operators read.
_SEVERAL_READERS = "MON"


@dataclass(frozen=True)
class NnMeterRules(FusionRules):
    """Fusion rules of a rule file.

    Attributes:
        pairs: ``(a, b)`` lets ``b`` join a kernel that starts with ``a``, in nn-Meter's names.
        several_readers: as in :class:`FusionRules`.
        chains: rules of three or more operators, each a whole pattern.
    """

    chains: tuple[tuple[str, ...], ...] = ()
    earliest_kernel: ClassVar[bool] = True

    @property
    def patterns(self) -> Sequence[Pattern]:
        """The chains, and the patterns that nn-Meter looks for on every device."""
        # An operator with another name here may have the name of the first operator of a chain.
        chains = (
            Pattern(
                "-".join(ops), frozenset({ops[0], *NNMETER_NAMES}), partial(_find_chain, ops), _sizes_of_chain
            )
            for ops in self.chains
        )
        return (*chains, *super().patterns)

    def name(self, data: Mapping[str, Any]) -> str:
        """nn-Meter's name of a model-graph node's operator."""
        return _nnmeter_name(data)

    def allow(self, kernel: Kernel, op: str) -> bool:
        """Whether ``op`` may join ``kernel``; nothing joins a whole chain."""
        whole = (kernel.op, *kernel.joined) in self.chains
        return not whole and (kernel.op, op) in self.pairs


def parse_nnmeter_rules(rules: Mapping[str, Any]) -> NnMeterRules:
    """Parse a ``fusion_rules.json``: ``{"BF_conv_relu": {"obey": true}, ..., "MON": {"obey": 0}}``.

    Raises:
        PackError: the content is not an object of rules with ``obey``.

    >>> rules = parse_nnmeter_rules({"BF_conv_relu": {"obey": True}, "BF_conv_add": {"obey": False}})
    >>> sorted(rules.pairs), rules.several_readers
    ([('conv', 'relu')], False)
    """
    if not isinstance(rules, Mapping):
        raise PackError(f"fusion rules are an object of rules by name, not {type(rules).__name__}")
    for name, rule in rules.items():
        if not isinstance(rule, Mapping) or "obey" not in rule:
            raise PackError(f'fusion rule {name!r} is {rule!r}, not an object with "obey"')
    obeyed = [
        tuple(name.split("_")[1:])
        for name, rule in rules.items()
        if name.startswith(_PREFIX) and rule["obey"]
    ]
    return NnMeterRules(
        pairs=frozenset((ops[0], ops[1]) for ops in obeyed if len(ops) == 2),
        several_readers=bool(rules.get(_SEVERAL_READERS, {}).get("obey")),
        chains=tuple(ops for ops in obeyed if len(ops) > 2),
    )


def _nnmeter_name(data: Mapping[str, Any]) -> str:
    """nn-Meter's name of a model-graph node's operator.

    An average pool whose window is the whole map counts as an ordinary pool there.
    """
    op = str(data["op"])
    if op == "globalavgpool" and "kernel" in data["attrs"]:
        return "avgpool"
    return NNMETER_NAMES.get(op, op)


def _find_chain(ops: tuple[str, ...], graph: nx.DiGraph, name: str) -> list[str] | None:
    return chain(graph, name, *((op,) for op in ops), called=_nnmeter_name)


def _sizes_of_chain(graph: nx.DiGraph, members: list[str]) -> Sizes:
    """The attributes and inputs of the first operator, and the outputs of the last."""
    first, last = graph.nodes[members[0]], graph.nodes[members[-1]]
    return Sizes(first["attrs"], first["in_shapes"], last["out_shapes"])
