"""The place of an operator in a space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Place:
    """The place of an operator or a module in a space.

    Attributes:
        conditions: label -> the candidates with which it runs, for each label that decides whether it runs.
        labels: labels of its own arguments.
    """

    conditions: Mapping[str, frozenset[Hashable]]
    labels: frozenset[str] = frozenset()
