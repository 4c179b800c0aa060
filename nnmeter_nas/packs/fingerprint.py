"""What tells one predictor pack from another."""

from __future__ import annotations

import hashlib

from ..files import digest
from . import Pack


def pack_fingerprint(pack: Pack) -> str:
    """Hash of a pack's card and weights; the card of forests has the hash of where they come from."""
    weights = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in pack.weights.items()}
    return digest([pack.card, weights])
