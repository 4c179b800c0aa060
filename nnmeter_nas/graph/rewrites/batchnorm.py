"""Turn products and sums with one constant per channel into a bias of the layer before, or a batch norm.

After a layer with weights, a sum is its bias, and a product folds into it as a batch norm does. After a batch
norm, both become part of it, and so do products and sums with a plain number. Elsewhere, a product and a sum
together are a batch norm if at least one of them has a constant per channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx

from ..editing import bypass, replace, sole_source
from ..shapes import Shape
from ._rule import ELEMENTWISE, VIEWS, rule

SPELLINGS = (
    "conv(x) + bias",
    "conv(x) * scale + bias",
    "(conv(x) - mean) / deviation * scale + bias",
    "bn(conv(x)) * scale",
    "relu(x) * scale + bias",
    "(relu(x) - mean) * scale",
    "fc(x) + bias",
)
_LAYERS = frozenset({"conv", "dwconv", "convtranspose", "fc"})
_SUMS = frozenset({"add", "sub"})
_CHANNELS = 1


@rule(*ELEMENTWISE, needs=_LAYERS | {"bn"}, makes={"bn"})
def fold_into_layer(graph: nx.DiGraph, name: str) -> bool:
    """Fold into the weights of the layer before, or into the batch norm behind that layer."""
    data = graph.nodes[name]
    if not is_affine(data):
        return False
    step = sole_source(graph, name, _LAYERS | VIEWS | {"bn"})
    before, viewed = step, False
    while step and graph.nodes[step]["op"] in VIEWS:
        viewed = True
        step = sole_source(graph, step, _LAYERS | VIEWS | {"bn"})
    if step is None or before is None:
        return False
    layer = graph.nodes[step]
    channels = layer["out_shapes"][0][-1 if layer["op"] == "fc" else _CHANNELS]
    axis = len(data["out_shapes"][0]) - 1 if viewed or layer["op"] == "fc" else _CHANNELS
    number = _is_number(data) and not viewed and layer["op"] == "bn"
    if not number and not (is_vector(data, axis) and data["out_shapes"][0][axis] == channels):
        return False
    if layer["op"] != "bn" and data["op"] not in _SUMS:
        replace(graph, name, "bn", data["inputs"])
        return True
    if layer["op"] != "bn":
        layer["attrs"]["bias"] = True
    bypass(graph, name, (before, 0))
    return True


@rule(*ELEMENTWISE, needs=ELEMENTWISE, makes={"bn"})
def join_scale_and_shift(graph: nx.DiGraph, name: str) -> bool:
    """Join a product and a sum, in either order; one of them has a constant per channel."""
    data = graph.nodes[name]
    before = sole_source(graph, name, ELEMENTWISE)
    if before is None or not is_affine(data):
        return False
    first = graph.nodes[before]
    pair = (first, data)
    fits = [is_vector(step, _CHANNELS) for step in pair]
    if not is_affine(first) or (first["op"] in _SUMS) == (data["op"] in _SUMS) or not any(fits):
        return False
    if not all(fit or _is_number(step) for fit, step in zip(fits, pair, strict=True)):
        return False
    if first["out_shapes"] != data["out_shapes"] or first["in_shapes"] != first["out_shapes"]:
        return False
    replace(graph, name, "bn", first["inputs"], gone=[before])
    return True


def is_affine(data: Mapping[str, Any]) -> bool:
    """Whether the operator scales or shifts its only operand by a constant and keeps its shape."""
    attrs = data["attrs"]
    constant = ("const" in attrs) != ("const_shape" in attrs)
    one = len(data["inputs"]) == 1 and data["in_shapes"] == data["out_shapes"]
    return one and constant and "alpha" not in attrs and not attrs.get("const_first")


def _is_number(data: Mapping[str, Any]) -> bool:
    return "const" in data["attrs"]


def is_vector(data: Mapping[str, Any], axis: int) -> bool:
    """Whether the constant of an operator varies along all of ``axis`` and along no other axis."""
    out: Shape = data["out_shapes"][0]
    shape = data["attrs"].get("const_shape", ())
    aligned: Shape = (1,) * (len(out) - len(shape)) + tuple(shape)
    return bool(shape) and len(out) > axis and aligned[axis] == out[axis] == math.prod(aligned)
