"""What a rewrite is: a function that is tried at every operator that it may end in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import networkx as nx

#: Rewrites the spelling that ends in the operator of that name, in place; says whether it did.
Apply = Callable[[nx.DiGraph, str], bool]

#: Operators that only see a tensor as another shape, which takes no work.
VIEWS = frozenset({"reshape", "flatten", "squeeze", "unsqueeze"})
#: Operators with a scalar or a vector that may be a scale or a shift.
ELEMENTWISE = frozenset({"add", "sub", "mul", "div"})


@dataclass(frozen=True)
class Rule:
    """One rewrite.

    Attributes:
        apply: tries it.
        ends: the operators that a spelling may end in.
        needs: sets of operators; a graph without one of each holds no such spelling.
        makes: operators that it leaves behind.
    """

    apply: Apply
    ends: frozenset[str]
    needs: tuple[frozenset[str], ...] = ()
    makes: frozenset[str] = frozenset()


def rule(*ends: str, needs: Iterable[str] = (), makes: Iterable[str] = ()) -> Callable[[Apply], Rule]:
    """Make the decorated function a rule; ``needs`` names operators of which a graph must hold one."""

    def made(apply: Apply) -> Rule:
        wanted = frozenset(needs)
        return Rule(apply, frozenset(ends), (wanted,) if wanted else (), frozenset(makes))

    return made
