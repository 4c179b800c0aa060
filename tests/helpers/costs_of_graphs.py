"""What a model graph costs on every device with a bundled predictor."""

from __future__ import annotations

from typing import Any

import networkx as nx

from nnmeter_nas.kernels.configuration import configuration, kernel_type
from recorded import predictors


def cost(graph: nx.DiGraph) -> dict[str, Any]:
    """Latency in ms to 12 digits, and the kernels as predictors see them, by device."""
    found: dict[str, Any] = {}
    for predictor in predictors():
        explained = predictor.explain(graph)
        kernels = [kernel for _, kernel in explained.kernel_graph.nodes(data="kernel")]
        seen = sorted((k.type, str(configuration(k)) if kernel_type(k) else "") for k in kernels)
        found[predictor.device] = float(f"{explained.latency_ms:.12g}"), seen
    return found
