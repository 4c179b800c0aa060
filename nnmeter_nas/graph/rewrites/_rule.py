"""A rewrite: a function tried at every operator that its spelling may end in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import networkx as nx

#: Rewrites, in place, the spelling that ends in the named operator; returns whether it did.
Apply = Callable[[nx.DiGraph, str], bool]

#: Operators that only give a tensor another shape, which takes no work.
VIEWS = frozenset({"reshape", "flatten", "squeeze", "unsqueeze"})
#: Operators that may scale or shift by a scalar or a vector.
ELEMENTWISE = frozenset({"add", "sub", "mul", "div"})


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        apply: tries the rewrite.
        ends: operators that a spelling may end in.
        needs: sets of operators; a spelling occurs only in a graph that has at least one of each set.
        makes: operators that the rewrite creates.
    """

    apply: Apply
    ends: frozenset[str]
    needs: tuple[frozenset[str], ...] = ()
    makes: frozenset[str] = frozenset()


def rule(*ends: str, needs: Iterable[str] = (), makes: Iterable[str] = ()) -> Callable[[Apply], Rule]:
    """Make the decorated function a rule; the graph must hold one of the operators in ``needs``."""

    def made(apply: Apply) -> Rule:
        wanted = frozenset(needs)
        return Rule(apply, frozenset(ends), (wanted,) if wanted else (), frozenset(makes))

    return made
