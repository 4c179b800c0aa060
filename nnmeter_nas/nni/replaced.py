"""Replace attributes of NNI, and keep the originals so that they can be restored."""

from __future__ import annotations

from typing import Any

#: Owner, name and original of each replaced attribute, oldest first.
_originals: list[tuple[Any, str, Any]] = []


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace the attribute ``name`` of ``owner``, the class or module that defines it."""
    _originals.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def is_replaced(owner: Any, name: str) -> bool:
    """Return whether :func:`replace` set this attribute and it was not restored since."""
    return any(one is owner and other == name for one, other, _ in _originals)


def restore() -> None:
    """Restore every original."""
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)
