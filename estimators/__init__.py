"""Training and latency estimates for the candidates of an architecture search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .digits import train_on_digits as train_on_digits
    from .latency_estimator import HardwareLatencyEstimator as HardwareLatencyEstimator
    from .penalties import AddLinear as AddLinear
    from .penalties import MulLog as MulLog
    from .penalties import latency_penalty as latency_penalty

_HOME = {
    "AddLinear": "penalties",
    "HardwareLatencyEstimator": "latency_estimator",
    "MulLog": "penalties",
    "latency_penalty": "penalties",
    "train_on_digits": "digits",
}

__all__ = [
    "AddLinear",
    "HardwareLatencyEstimator",
    "MulLog",
    "latency_penalty",
    "train_on_digits",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: an estimate of latency does not need what training needs."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
