"""Latency of a kernel as a pack predicts it, and the basis of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from ..kernels.fusion import Kernel

#: ``measured``: inside the range measured; ``extrapolated``: of a measured type, but outside the range;
#: ``estimated``: of a type that was never measured on the device; ``unpredicted``: there is no latency.
Basis = Literal["measured", "extrapolated", "estimated", "unpredicted"]


class KernelLatency(NamedTuple):
    """Latency of a kernel in ms (None if it is not predicted), and its basis."""

    ms: float | None
    basis: Basis


UNPREDICTED = KernelLatency(None, "unpredicted")


class KernelPredictors(Protocol):
    """A pack's predictors of kernel latency on its device."""

    def covers(self, kernel: Kernel) -> bool:
        """Whether the pack was made from measurements of kernels of this type."""

    def latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel, with one vectorised call per type."""
