"""Replace attributes of NNI, and keep the originals so that they can be restored."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

#: Owner, name and original of each replaced attribute, oldest first.
_originals: list[tuple[Any, str, Any]] = []


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace the attribute ``name`` of ``owner``, the class or module that defines it."""
    _originals.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def wrap(owner: Any, name: str, around: Callable[..., Any], gain: str = "") -> None:
    """Let calls of the function ``name`` of ``owner`` go to ``around``, which gets the original first.

    Does nothing if that function is replaced already, or if ``owner`` is a class that a user put in the place
    of NNI's. ``gain`` is what the log then says.
    """
    if is_replaced(owner, name) or not _is_of_nni(owner):
        return
    original = vars(owner)[name]

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    replace(owner, name, patched)
    if gain:
        logger.info("NNI patched: %s", gain)


def is_replaced(owner: Any, name: str) -> bool:
    """Return whether :func:`replace` set this attribute and it was not restored since."""
    return any(one is owner and other == name for one, other, _ in _originals)


def _is_of_nni(owner: Any) -> bool:
    module: str = owner.__module__ if isinstance(owner, type) else owner.__name__
    return module.partition(".")[0] == "nni"


def restore() -> None:
    """Restore every original."""
    while _originals:
        owner, name, original = _originals.pop()
        setattr(owner, name, original)
