"""Functions of a reader by an outside format's names; a decorator fills them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Entry = TypeVar("Entry")


def fills(table: dict[str, Entry]) -> Callable[..., Callable[[Entry], Entry]]:
    """Return a decorator that puts a function into ``table`` under the names that it is given.

    >>> table = {}
    >>> @fills(table)("Relu", "Relu6")
    ... def activation(): ...
    >>> list(table)
    ['Relu', 'Relu6']
    """

    def under(*names: str) -> Callable[[Entry], Entry]:
        def put(entry: Entry) -> Entry:
            table.update(dict.fromkeys(names, entry))
            return entry

        return put

    return under
