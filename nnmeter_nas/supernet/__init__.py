"""A search space as data: its choices, where each choice acts, and the model graph of each architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .named import SPACES as SPACES
    from .named import load_space as load_space
    from .named import make_space as make_space
    from .nni_space import space_of as space_of
    from .space import Space as Space
    from .tracing import read_supernet as read_supernet

_HOME = {
    "SPACES": "named",
    "Space": "space",
    "load_space": "named",
    "make_space": "named",
    "read_supernet": "tracing",
    "space_of": "nni_space",
}

__all__ = ["SPACES", "Space", "load_space", "make_space", "read_supernet", "space_of"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
