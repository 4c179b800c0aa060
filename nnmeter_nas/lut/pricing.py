"""Full-graph predictions of many architectures on several devices, which share the model graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError
from ..kernels import FloatArray
from ..predictor import Explanation, LatencyPredictor
from .space import Space

#: An architecture: the index of the candidate at each position.
Indices = tuple[int, ...]
#: Called with how many architectures have been priced.
Progress = Callable[[int], None]
#: Model graphs whose kernels are predicted in one call.
_BATCH = 64


class Pricing:
    """Latencies of architectures of ``space`` by each of ``predictors``, remembered once they are known."""

    def __init__(
        self, space: Space, predictors: Sequence[LatencyPredictor], progress: Progress | None = None
    ) -> None:
        self.space = space
        self.predictors = list(predictors)
        self._progress = progress
        self._latencies: dict[Indices, FloatArray] = {}
        self.unpredicted: list[dict[str, str]] = [{} for _ in self.predictors]

    def latencies(self, architectures: npt.NDArray[np.intp]) -> FloatArray:
        """Full-graph latency in ms of architectures ``[N, positions] -> [N, predictors]``."""
        rows = [tuple(row) for row in architectures.tolist()]
        self.prices(row for row in dict.fromkeys(rows) if row not in self._latencies)
        return np.array([self._latencies[row] for row in rows]).reshape(len(rows), len(self.predictors))

    def prices(self, architectures: Iterable[Indices]) -> list[list[Explanation]]:
        """What each architecture takes, kernel by kernel, on each device."""
        rows, found = list(architectures), []
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            graphs = [self._model_graph(row) for row in batch]
            by_device = [predictor.explain_many(graphs) for predictor in self.predictors]
            for row, prices in zip(batch, zip(*by_device, strict=True), strict=True):
                self._latencies[row] = np.array([p.latency_ms for p in prices])
                for device, p in enumerate(prices):
                    self.unpredicted[device].update(p.unpredicted)
                found.append(list(prices))
            if self._progress is not None:
                self._progress(len(self._latencies))
        return found

    def _model_graph(self, row: Indices) -> nx.DiGraph:
        """The model graph of an architecture, which has to take the input that the space takes."""
        chosen = zip(self.space.candidates.items(), row, strict=True)
        architecture = {label: known[i] for (label, known), i in chosen}
        graph = self.space.model_graph(architecture)
        if not isinstance(graph, nx.DiGraph) or "shape_mismatches" not in graph.graph:
            raise LookupTableError(
                f"the space {self.space.name!r} gave no finished model graph for {architecture}, but one of "
                f"type {type(graph).__name__}; pass models through nnmeter_nas.read_model"
            )
        return graph
