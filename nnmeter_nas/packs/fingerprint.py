"""Fingerprints that tell one predictor pack from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..files import digest
from . import Pack

#: Entries of a card that change no latency; entries unknown here may.
_TOLD = frozenset(
    {
        *("hardware", "runtime", "trained_on", "date", "code_version"),
        *("training", "accuracy", "intervals"),
    }
)
#: The same of entries inside an entry.
_TOLD_OF = {
    "calibration": frozenset({"made_from", "models", "latency_ms", "one_model_left_out"}),
    "source": frozenset({"from"}),
}


def pack_fingerprint(pack: Pack) -> str:
    """Hash of all of a pack that latencies depend on: rules, predictors, rates and constants of calibration.

    What a card tells besides, such as accuracy and intervals, may change without making tables stale. The
    card of a forest pack holds the hash of its source.
    """
    card = {
        name: _without(entry, _TOLD_OF.get(name)) for name, entry in pack.card.items() if name not in _TOLD
    }
    told = pack.prototypes.to_arrays() if pack.prototypes else {}
    weights = {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in pack.weights.items()
        if name not in told
    }
    return digest([card, weights])


def _without(entry: Any, told: frozenset[str] | None) -> Any:
    """``entry`` without what is ``told`` in it."""
    if told is None or not isinstance(entry, Mapping):
        return entry
    return {name: value for name, value in entry.items() if name not in told}
