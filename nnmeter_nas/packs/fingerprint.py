"""Fingerprints that tell one predictor pack from another."""

from __future__ import annotations

import hashlib

from ..files import digest
from . import Pack


def pack_fingerprint(pack: Pack) -> str:
    """Hash of a pack's card and weights. The card of a forest pack holds the hash of its source."""
    weights = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in pack.weights.items()}
    return digest([pack.card, weights])
