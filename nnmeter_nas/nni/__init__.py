"""The one place that knows NNI: which line is installed, how it is patched, and how its engines are used.

The same names serve 2.10.1 and 3.0. The first use of ``NniStrategy``, ``MeasuredEvaluator``,
``build_network`` or ``try_architecture`` imports that of the installed line. Without NNI, ``NniStrategy`` is
the part common to both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..extras import load_extra
from .candidates import (
    Origin,
    build_module,
    carries_operators,
    origin_of,
    plain_sample,
    sample_of,
    traced_shape,
)
from .line import NAS, RETIARII, nni_line
from .patches import no_longer_need_patches, patch, patch_when_experiment_starts, unpatch

if TYPE_CHECKING:
    from .asking import AskingStrategy as NniStrategy
    from .nas import MeasuredEvaluator, build_network, try_architecture

__all__ = [
    "NAS",
    "RETIARII",
    "MeasuredEvaluator",
    "NniStrategy",
    "Origin",
    "build_module",
    "build_network",
    "carries_operators",
    "nni_line",
    "no_longer_need_patches",
    "origin_of",
    "patch",
    "patch_when_experiment_starts",
    "plain_sample",
    "sample_of",
    "traced_shape",
    "try_architecture",
    "unpatch",
]


def __getattr__(name: str) -> Any:
    if name not in ("MeasuredEvaluator", "NniStrategy", "build_network", "try_architecture"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    line = nni_line()
    if name == "NniStrategy" and line is None:
        return importlib.import_module(".asking", __name__).AskingStrategy
    load_extra("nni.nas", "nni", "searching for architectures")
    return getattr(importlib.import_module(".nas" if line == NAS else ".retiarii", __name__), name)
