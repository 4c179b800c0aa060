"""Search strategies and filters that keep an architecture search within a latency limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnmeter_nas.lazy import lazy_names

if TYPE_CHECKING:
    from nnmeter_nas.solve.problem import Problem as Problem

    from .latency_constrained_random import LatencyConstrainedRandom as LatencyConstrainedRandom
    from .latency_filter import Candidate as Candidate
    from .latency_filter import LatencyFilter as LatencyFilter
    from .latency_ranked import LatencyRanked as LatencyRanked
    from .latency_strategy import LatencyStrategy as LatencyStrategy
    from .learned_pareto import LearnedPareto as LearnedPareto
    from .pareto_evolution import ParetoEvolution as ParetoEvolution

_HOME = {
    "Candidate": "latency_filter",
    "LatencyConstrainedRandom": "latency_constrained_random",
    "LatencyFilter": "latency_filter",
    "LatencyRanked": "latency_ranked",
    "LatencyStrategy": "latency_strategy",
    "LearnedPareto": "learned_pareto",
    "ParetoEvolution": "pareto_evolution",
    "Problem": ".solve.problem",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
