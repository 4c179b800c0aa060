"""Norms over groups of channels: views around a norm, and a scale and a shift behind it.

``torch.onnx.export`` writes ``GroupNorm`` so: an instance norm of a view that has the groups as its channels.
"""

from __future__ import annotations

import networkx as nx

from ..editing import bypass, replace, sole_source
from ._rule import ELEMENTWISE, VIEWS, rule
from .batchnorm import is_affine, is_vector

SPELLINGS = (
    "F.instance_norm(x.view(1, 2, 256)).view(1, 8, 8, 8)",
    "F.instance_norm(x.view(1, 2, 256)).view(1, 8, 8, 8) * scale + bias",
    "F.instance_norm(x.view(1, 2, 256)).view(1, 8, 8, 8) * scale",
    "F.group_norm(x, 2) * scale + bias",
    "F.layer_norm(x, [8]) * scale.view(8) + bias.view(8)",
)
_CHANNELS = 1


@rule(*VIEWS, needs={"norm"})
def leave_out_views(graph: nx.DiGraph, name: str) -> bool:
    """Normalise the tensor itself instead of a view of it, if another view gives its shape back."""
    norm = sole_source(graph, name, {"norm"})
    view = sole_source(graph, norm, VIEWS) if norm else None
    if norm is None or view is None or graph.nodes[view]["in_shapes"] != graph.nodes[name]["out_shapes"]:
        return False
    source, attrs = graph.nodes[view]["inputs"], graph.nodes[norm]["attrs"]
    replace(graph, name, "norm", source, attrs, [view, norm])
    return True


@rule(*ELEMENTWISE, needs={"norm"})
def fold_into_norm(graph: nx.DiGraph, name: str) -> bool:
    """Make a product or a sum with a constant per channel, or per feature, the scale or shift of the norm."""
    data, norm = graph.nodes[name], sole_source(graph, name, {"norm"})
    if norm is None or not is_affine(data):
        return False
    if not any(is_vector(data, axis) for axis in (_CHANNELS, len(data["out_shapes"][0]) - 1)):
        return False
    bypass(graph, name, (norm, 0))
    return True
