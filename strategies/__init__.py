"""Search strategies and filters that keep an architecture search within a latency limit."""

from .latency_filter import Candidate, LatencyFilter

__all__ = ["Candidate", "LatencyFilter"]
