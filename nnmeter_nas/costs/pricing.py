"""Measure the model graphs of many architectures in several ways, making each graph once."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError
from ..kernels.configuration import FloatArray, kernel_type
from ..kernels.fusion import FusionRules, Kernel, fuse
from ..predictor import LatencyPredictor
from ..readers import refuse_quantized
from ..supernet.choices import architecture_at
from ..supernet.space import Space

IndexArray = npt.NDArray[np.intp]
#: An architecture: the index of the candidate at each position.
Indices = tuple[int, ...]
#: Contribution of each part of a model graph to a measure; a kernel is named by its first operator.
Parts = Mapping[str, float]
#: The kernels of a model graph, by the name of their first operator.
Kernels = Mapping[str, Kernel]
#: Called with the number of architectures measured so far.
Progress = Callable[[int], None]
#: Model graphs whose kernels are predicted in one call.
_BATCH = 64


class Meter(Protocol):
    """Measures model graphs in one or several ways.

    Attributes:
        left_out: for each measure, the unknown operators met so far: name -> canonical operator.
    """

    left_out: list[dict[str, str]]

    def seen(self, graph: nx.DiGraph) -> Any:
        """The data that the meter needs of a finished model graph; never None."""

    def parts(self, seen: Sequence[Any]) -> list[list[Parts]]:
        """For each measure, the parts of every model graph; their sum is its value.

        Of a latency it is the sum that the device's :class:`.Warmth` turns into one.
        """


class LatencyMeter:
    """Latency in ms, kernel by kernel, on one or several devices."""

    def __init__(self, predictors: Sequence[LatencyPredictor]) -> None:
        self.left_out: list[dict[str, str]] = [{} for _ in predictors]
        self._predictors = list(predictors)

    @property
    def rules(self) -> list[FusionRules]:
        """Fusion rules of each measure's device."""
        return [predictor.pack.rules for predictor in self._predictors]

    def seen(self, graph: nx.DiGraph) -> dict[FusionRules, Kernels]:
        """The kernels of a finished model graph, by the rules that fused them."""
        return {rules: dict(fuse(graph, rules).nodes(data="kernel")) for rules in dict.fromkeys(self.rules)}

    def parts(self, seen: Sequence[Mapping[FusionRules, Kernels]]) -> list[list[Parts]]:
        """Latency of each kernel in a network that is not small, for every device; see :class:`.Warmth`."""
        return [
            _priced(predictor, [of[predictor.pack.rules] for of in seen], left_out)
            for predictor, left_out in zip(self._predictors, self.left_out, strict=True)
        ]

    def priced(self, device: int, graphs: Sequence[Kernels]) -> list[Parts]:
        """Latency of each kernel on one device, priced in one call; kernels left out are not noted."""
        return _priced(self._predictors[device], graphs, {})


#: Name of the part of a latency that belongs to no kernel.
OFFSET = ""


def _priced(
    predictor: LatencyPredictor, graphs: Sequence[Kernels], left_out: dict[str, str]
) -> list[Parts]:
    """Latencies in ms by kernel name, for the kernels of each graph.

    Adds to ``left_out`` the kernels without a latency, and those estimated because their type was never
    measured on the device.
    """
    found = iter(predictor.kernel_latencies([kernel for kernels in graphs for kernel in kernels.values()]))
    parts: list[Parts] = []
    for kernels in graphs:
        latencies = {name: next(found) for name in kernels}
        for name, latency in latencies.items():
            if latency.basis == "unpredicted":
                left_out[name] = kernels[name].op
            elif latency.basis == "estimated":
                left_out[name] = f"{kernel_type(kernels[name])} (estimated)"
        known = {name: latency.ms for name, latency in latencies.items() if latency.ms is not None}
        if kernels and predictor.pack.offset_ms:
            known[OFFSET] = predictor.pack.offset_ms
        parts.append(known)
    return parts


class OperatorMeter:
    """A measure that is a sum over operators, such as flops.

    Args:
        by_operator: returns each known operator's contribution, by name, for a finished model graph.
    """

    def __init__(self, by_operator: Callable[[nx.DiGraph], Parts]) -> None:
        self.left_out: list[dict[str, str]] = [{}]
        self._by_operator = by_operator

    def seen(self, graph: nx.DiGraph) -> Parts:
        """Contribution of each operator of a finished model graph."""
        parts = self._by_operator(graph)
        ops = graph.nodes(data="op")
        self.left_out[0].update({n: op for n, op in ops if op != "input" and n not in parts})
        return parts

    def parts(self, seen: Sequence[Parts]) -> list[list[Parts]]:
        """Contribution of each operator."""
        return [list(seen)]


class FunctionMeter:
    """A measure of whole model graphs.

    Args:
        function: returns the value of a finished model graph.
    """

    def __init__(self, function: Callable[[nx.DiGraph], float]) -> None:
        self.left_out: list[dict[str, str]] = [{}]
        self._function = function

    def seen(self, graph: nx.DiGraph) -> float:
        """The value of a finished model graph."""
        return float(self._function(graph))

    def parts(self, seen: Sequence[float]) -> list[list[Parts]]:
        """The value of each model graph, as one part without a name."""
        return [[{"": value} for value in seen]]


class Pricing:
    """Sums of the parts of architectures of ``space`` in all measures; each is computed once."""

    def __init__(self, space: Space, meters: Sequence[Meter], progress: Progress | None = None) -> None:
        self.space = space
        self.meters = list(meters)
        self._progress = progress
        self._values: dict[Indices, FloatArray] = {}
        self._seen: dict[Indices, list[Any]] = {}  # by meter, for architectures that are not priced yet

    @property
    def left_out(self) -> list[dict[str, str]]:
        """For each measure, the unknown operators met so far: name -> canonical operator."""
        return [left_out for meter in self.meters for left_out in meter.left_out]

    def known(self) -> tuple[IndexArray, FloatArray]:
        """All architectures with known sums, ``[N, positions]``, and the sums, ``[N, measures]``."""
        return np.array(list(self._values)), np.array(list(self._values.values()))

    def values(self, architectures: npt.NDArray[np.integer]) -> FloatArray:
        """Sums of architectures ``[N, positions] -> [N, measures]``."""
        rows = [tuple(row) for row in architectures.tolist()]
        for _ in self._measured(row for row in dict.fromkeys(rows) if row not in self._values):
            pass
        return np.array([self._values[row] for row in rows]).reshape(len(rows), len(self.left_out))

    def parts(self, architectures: Iterable[Indices]) -> list[tuple[Parts, ...]]:
        """Contribution of each part of every architecture, in each measure."""
        return list(self._measured(architectures))

    def _measured(self, architectures: Iterable[Indices]) -> Iterator[tuple[Parts, ...]]:
        """The parts of each architecture in every measure; their sums are remembered."""
        rows = list(architectures)
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            with garbage_at_the_end():
                by_meter = zip(self.meters, zip(*map(self.seen, batch), strict=True), strict=True)
                by_measure = [parts for meter, seen in by_meter for parts in meter.parts(seen)]
            for row in batch:
                self._seen.pop(row, None)
            for row, parts in zip(batch, zip(*by_measure, strict=True), strict=True):
                self._values[row] = self._sums(row, parts)
                yield parts
            if self._progress is not None:
                self._progress(len(self._values) + len(self._seen))

    def seen(self, row: Indices) -> list[Any]:
        """The data that each meter needs of an architecture, kept until it is priced."""
        if row not in self._seen:
            with garbage_at_the_end():
                graph = self._model_graph(row)
                self._seen[row] = [meter.seen(graph) for meter in self.meters]
            if self._progress is not None and row not in self._values:
                self._progress(len(self._values) + len(self._seen))
        return self._seen[row]

    def _sums(self, row: Indices, parts: Sequence[Parts]) -> FloatArray:
        """The sums of ``parts``."""
        values = np.array([math.fsum(of_measure.values()) for of_measure in parts])
        if not np.isfinite(values).all():
            architecture = architecture_at(row, self.space.candidates)
            raise LookupTableError(
                f"a measure of {architecture} is no finite number: {values.tolist()}; let the function give "
                "one for every architecture"
            )
        return values

    def _model_graph(self, row: Indices) -> nx.DiGraph:
        """The model graph of an architecture; its input must be that of the space."""
        architecture = architecture_at(row, self.space.candidates)
        graph = self.space.model_graph(architecture)
        if not isinstance(graph, nx.DiGraph) or "shape_mismatches" not in graph.graph:
            raise LookupTableError(
                f"the space {self.space.name!r} gave no finished model graph for {architecture}, but one of "
                f"type {type(graph).__name__}; pass models through nnmeter_nas.read_model"
            )
        refuse_quantized(graph)
        return graph


def row_of(space: Space, architecture: Mapping[str, str]) -> Indices:
    """The indices of the candidates of an architecture, which maps each label to its candidate's name."""
    return tuple(known.index(architecture[label]) for label, known in space.candidates.items())


@contextmanager
def garbage_at_the_end() -> Iterator[None]:
    """Collect garbage once at the end, and only the young generation.

    Views make graphs refer to themselves, so only garbage collection frees them. Collecting while hundreds of
    graphs are made takes as long as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            gc.collect(1)
