"""What strategies need of NNI, the same names for 2.10.1 and 3.0.

``NniStrategy``, ``build_network`` and ``measure_trial`` are those of the line that is installed; NNI is
imported when one of them is first asked for. Without NNI, ``NniStrategy`` is what both lines have in common.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ..extras import load_extra
from .candidates import (
    build_module,
    build_space,
    carries_operators,
    origin_of,
    plain_sample,
    sample_of,
)
from .patches import mend_nni

if TYPE_CHECKING:
    from .asking import AskingStrategy as NniStrategy
    from .nas import build_network, measure_trial

__all__ = [
    "NniStrategy",
    "build_module",
    "build_network",
    "build_space",
    "carries_operators",
    "measure_trial",
    "mend_nni",
    "origin_of",
    "plain_sample",
    "sample_of",
]


def __getattr__(name: str) -> Any:
    if name not in ("NniStrategy", "build_network", "measure_trial"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "NniStrategy" and importlib.util.find_spec("nni") is None:
        return importlib.import_module(".asking", __name__).AskingStrategy
    load_extra("nni.nas", "nni", "searching for architectures")
    line = "nas" if importlib.util.find_spec("nni.mutable") is not None else "retiarii"
    return getattr(importlib.import_module(f".{line}", __name__), name)
