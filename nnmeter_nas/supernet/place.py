"""Where in a space an operator stands."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Place:
    """Where in a space an operator, or a module, stands.

    Attributes:
        conditions: labels that decide whether it runs, and for each the candidates with which it does.
        labels: labels of its own arguments.
    """

    conditions: Mapping[str, frozenset[Hashable]]
    labels: frozenset[str] = frozenset()
