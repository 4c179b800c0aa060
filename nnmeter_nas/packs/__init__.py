"""Predictor packs: one device's fusion rules and kernel predictors, with a card of how good they are."""

from .pack import Pack, load_pack, save_pack
from .registry import find_pack, pack_folders

__all__ = ["Pack", "find_pack", "load_pack", "pack_folders", "save_pack"]
