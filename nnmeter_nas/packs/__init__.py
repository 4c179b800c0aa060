"""Predictor packs: a device's fusion rules and kernel predictors, and a card that says how good they are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .pack import Pack, load_pack, save_pack, verify_pack
from .registry import find_pack, pack_cards, pack_folders

if TYPE_CHECKING:
    from .nnmeter1.forest import Forest as Forest
    from .nnmeter1.forest import read_forest as read_forest
    from .nnmeter1.importing import import_predictor as import_predictor
    from .nnmeter1.importing import register_predictor as register_predictor
    from .store import remove_predictor as remove_predictor

#: Names that prediction does not need; each is loaded on first use.
_HOME = {
    "Forest": "nnmeter1.forest",
    "read_forest": "nnmeter1.forest",
    "import_predictor": "nnmeter1.importing",
    "register_predictor": "nnmeter1.importing",
    "remove_predictor": "store",
}

__all__ = [
    "Forest",
    "Pack",
    "find_pack",
    "import_predictor",
    "load_pack",
    "pack_cards",
    "pack_folders",
    "read_forest",
    "register_predictor",
    "remove_predictor",
    "save_pack",
    "verify_pack",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
