"""Search strategies and filters that keep an architecture search within a latency limit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .latency_constrained_random import LatencyConstrainedRandom as LatencyConstrainedRandom
    from .latency_filter import Candidate as Candidate
    from .latency_filter import LatencyFilter as LatencyFilter
    from .latency_ranked import LatencyRanked as LatencyRanked
    from .latency_strategy import LatencyStrategy as LatencyStrategy
    from .pareto_evolution import ParetoEvolution as ParetoEvolution
    from .problem import Problem as Problem

_HOME = {
    "Candidate": "latency_filter",
    "LatencyConstrainedRandom": "latency_constrained_random",
    "LatencyFilter": "latency_filter",
    "LatencyRanked": "latency_ranked",
    "LatencyStrategy": "latency_strategy",
    "ParetoEvolution": "pareto_evolution",
    "Problem": "problem",
}

__all__ = [
    "Candidate",
    "LatencyConstrainedRandom",
    "LatencyFilter",
    "LatencyRanked",
    "LatencyStrategy",
    "ParetoEvolution",
    "Problem",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the filter needs none of what the strategies need."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
