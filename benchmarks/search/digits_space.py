"""The task of the digits: a space whose every network can be trained, and how each of them is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnmeter_nas.search_spaces import spos

#: Five layers at the digits' size: 4^5 = 1024 architectures.
SPACE: Mapping[str, Any] = {
    "input_size": 8,
    "in_channels": 1,
    "depths": (3, 2),
    "channels": (16, 32),
    "stem_channels": 8,
    "head_channels": 64,
}
#: Arguments of each training, which takes about 0.4 s on one core.
TRAINING: Mapping[str, Any] = {"epochs": 2, "batch_size": 64, "learning_rate": 0.2, "seed": 0, "threads": 1}


def digits_space() -> Any:
    """Make the NNI space whose architectures are trained."""
    return spos("small", **SPACE)
