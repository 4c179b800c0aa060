"""The latency of a model, from units that are remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NnMeterNasError
from ..fusion import FusionRules, Kernel
from ..readers.inputs import InputShape
from ..readers.nni_content import OpaqueError
from .division import Memory, divide
from .summary import InseparableError, KernelLatencies, Summary

#: Models in a row of which most had to be read, after which no other is tried.
PATIENCE = 50
#: What dividing a model that cannot be read raises; reading it as a whole tells what is wrong.
_ERRORS = (NnMeterNasError, OpaqueError, LookupError, TypeError, ValueError, AttributeError, RecursionError)

#: Latencies in ms, None if not predicted, and whether each is extrapolated.
Price = Callable[[Sequence[Kernel]], list[tuple[float | None, bool]]]


@dataclass(frozen=True)
class Parts:
    """What a model's latency is made of.

    Attributes:
        latency_ms: sum over all predicted kernels.
        extrapolated_ms: the same of those outside the range seen in training.
        unpredicted: operators that no kernel predictor covers.
        kernels: how many there are.
    """

    latency_ms: float
    extrapolated_ms: float
    unpredicted: frozenset[str]
    kernels: int


class UnitLatencies:
    """Latencies of models, from units that are remembered.

    Args:
        rules: the device's fusion rules.
        price: gives the latencies of kernels.
    """

    def __init__(self, rules: FusionRules, price: Price) -> None:
        self._rules = rules
        self._price = price
        self._memory = Memory()
        self._wasted = 0

    def parts(self, model: Any, input_shape: InputShape | None) -> Parts | None:
        """What the latency of NNI's graph ``model`` is made of; None if it must be read as a whole to tell.

        Arguments as :func:`nnmeter_nas.readers.nni_ir.read_nni_ir` takes them.
        """
        # Where kernels with several readers are joined, the order of operators in the whole model decides.
        if self._wasted >= PATIENCE or self._rules.several_readers:
            return None
        if self._memory.is_full:
            self._memory = Memory()
        self._wasted += 1
        try:
            units = divide(model, input_shape, self._rules, self._memory)
        except (InseparableError, *_ERRORS):
            return None
        known = sum(unit.size for unit in units if unit.summary.latencies is not None)
        if known > sum(unit.size for unit in units) - known:
            self._wasted = 0
        return self._sum([unit.summary for unit in units]) if units else None

    def _sum(self, summaries: Sequence[Summary]) -> Parts:
        """The latencies of ``summaries`` together; kernels of new ones are priced in one call."""
        new = list({id(summary): summary for summary in summaries if summary.latencies is None}.values())
        if new:
            priced = iter(self._price([kernel for summary in new for kernel in summary.kernels]))
            for summary in new:
                summary.latencies = _kernel_latencies(summary.kernels, priced)
                summary.kernels = []
        found = [summary.latencies for summary in summaries if summary.latencies is not None]
        return Parts(
            math.fsum(ms for latencies in found for ms in latencies.ms),
            math.fsum(ms for latencies in found for ms in latencies.extrapolated_ms),
            frozenset().union(*(latencies.unpredicted for latencies in found)),
            sum(latencies.kernels for latencies in found),
        )


def _kernel_latencies(
    kernels: Sequence[Kernel], priced: Iterator[tuple[float | None, bool]]
) -> KernelLatencies:
    """Takes as many of ``priced`` as there are ``kernels``."""
    rows = [(kernel.op, *next(priced)) for kernel in kernels]
    return KernelLatencies(
        tuple(ms for _, ms, _ in rows if ms is not None),
        tuple(ms for _, ms, outside in rows if ms is not None and outside),
        frozenset(op for op, ms, _ in rows if ms is None),
        len(rows),
    )
