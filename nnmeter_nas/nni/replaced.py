"""Attributes of NNI that patches replace; the originals are kept, so that they can be put back."""

from __future__ import annotations

from typing import Any

#: Owner, name and original of each attribute that is replaced, oldest first.
_originals: list[tuple[Any, str, Any]] = []


def replace(owner: Any, name: str, value: Any) -> None:
    """Set the attribute ``name`` that ``owner``, a class or a module, itself defines."""
    _originals.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def is_replaced(owner: Any, name: str) -> bool:
    """Whether :func:`replace` has set this attribute, and it was not put back since."""
    return any(one is owner and other == name for one, other, _ in _originals)


def restore() -> None:
    """Put back every original."""
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)
