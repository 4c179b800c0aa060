"""Training and latency estimates for the candidates of an architecture search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnmeter_nas.lazy import lazy_names

if TYPE_CHECKING:
    from .digits import train_on_digits as train_on_digits
    from .latency_estimator import HardwareLatencyEstimator as HardwareLatencyEstimator
    from .penalties import AddHinge as AddHinge
    from .penalties import AddLinear as AddLinear
    from .penalties import MulLog as MulLog
    from .penalties import latency_penalty as latency_penalty

_HOME = {
    "AddHinge": "penalties",
    "AddLinear": "penalties",
    "HardwareLatencyEstimator": "latency_estimator",
    "MulLog": "penalties",
    "latency_penalty": "penalties",
    "train_on_digits": "digits",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
