"""What the converters of all runtimes fold before a device sees a TensorFlow graph.

TensorFlow has spellings where a runtime has attributes or weights: a dilated convolution as blocks moved to
the batch and back, padding as an operator of its own, a batch norm or bias as a product or sum with a vector.
Each function here rewrites one of them, in place; operators that nothing is left of become ``identity``.
"""

from __future__ import annotations

import math
from typing import Any

import networkx as nx

from ...graph.shapes import Shape
from ...ops import VIEW_OPS

_CONVOLUTIONS = frozenset({"conv", "dwconv"})
_LAYERS = _CONVOLUTIONS | {"convtranspose", "fc"}


def fold_spellings(graph: nx.DiGraph) -> None:
    """Rewrite every spelling in ``graph``, which has shapes and its outputs declared."""
    for name in list(nx.topological_sort(graph)):
        data = graph.nodes[name]
        if data["op"] == "batchtospacend":
            _fold_dilation(graph, name)
        elif data["op"] == "pad":
            _fold_padding(graph, name)
        elif data["op"] in ("add", "sub", "mul", "div") and "const_shape" in data["attrs"]:
            _fold_vector(graph, name)


def _vanish(data: dict[str, Any]) -> None:
    data.update(op="identity", attrs={}, declared=None)


def _sole_producer(graph: nx.DiGraph, name: str) -> str | None:
    """What feeds ``name``, if it feeds nothing else and the model does not hand it out."""
    producers = graph.nodes[name]["inputs"]
    if len(producers) != 1:
        return None
    producer: str = producers[0][0]
    alone = graph.out_degree(producer) == 1 and producer not in graph.graph["outputs"]
    return producer if alone else None


def _fold_dilation(graph: nx.DiGraph, name: str) -> None:
    """Blocks to batch, convolution, batch to blocks: a dilated convolution."""
    after = graph.nodes[name]
    conv = _sole_producer(graph, name)
    before = _sole_producer(graph, conv) if conv and graph.nodes[conv]["op"] in _CONVOLUTIONS else None
    if conv is None or before is None or graph.nodes[before]["op"] != "spacetobatchnd":
        return
    attrs, blocks = graph.nodes[conv]["attrs"], graph.nodes[before]["attrs"]
    plain = {*attrs["stride"], *attrs["dilation"]} == {1} and attrs["padding"] == "valid"
    whole_map = len(blocks["block"]) == len(attrs["kernel"])
    if not plain or not whole_map or blocks["block"] != after["attrs"]["block"]:
        return
    pairs = zip(blocks["pairs"], after["attrs"]["pairs"], strict=True)
    padding = [(padded[0] - cropped[0], padded[1] - cropped[1]) for padded, cropped in pairs]
    if min(map(min, padding)) < 0:
        return
    attrs.update(dilation=blocks["block"], padding=padding)
    _vanish(graph.nodes[before])
    _vanish(after)


def _fold_padding(graph: nx.DiGraph, name: str) -> None:
    """Zeros around the map, and nothing else, become the padding of the one convolution behind them."""
    data = graph.nodes[name]
    batch_and_channels, spatial = data["attrs"]["padding"][:2], data["attrs"]["padding"][2:]
    consumers = list(graph.successors(name))
    if len(consumers) != 1 or name in graph.graph["outputs"] or data["attrs"]["mode"] != "constant":
        return
    consumer = graph.nodes[consumers[0]]
    own = consumer["attrs"].get("padding")
    if consumer["op"] not in _CONVOLUTIONS or own == "same" or batch_and_channels != [(0, 0), (0, 0)]:
        return
    pairs = [(0, 0)] * len(spatial) if own == "valid" else own
    merged = [(b + before, a + after) for (b, a), (before, after) in zip(spatial, pairs, strict=True)]
    consumer["attrs"]["padding"] = merged
    _vanish(data)


def _fold_vector(graph: nx.DiGraph, name: str) -> None:
    """A product with a vector along the channels is batch norm; a sum is the bias of what is before it."""
    data = graph.nodes[name]
    is_sum = data["op"] in ("add", "sub")
    if data["attrs"].get("const_first"):
        return
    if layer := _layer_before(graph, name):
        data.update(op="identity" if is_sum else "bn", attrs={})
        if is_sum:
            graph.nodes[layer]["attrs"]["bias"] = True
    elif is_sum and _is_vector(data, 1):
        product = _sole_producer(graph, name)
        scale = graph.nodes[product] if product else {}
        if scale.get("op") == "mul" and "const_shape" in scale["attrs"] and _is_vector(scale, 1):
            scale.update(op="bn", attrs={})
            _vanish(data)


def _layer_before(graph: nx.DiGraph, name: str) -> str | None:
    """The layer whose weights the vector of ``name`` folds into."""
    step, viewed = _sole_producer(graph, name), False
    while step and graph.nodes[step]["op"] in VIEW_OPS | {"identity", "bn"}:
        viewed |= graph.nodes[step]["op"] in VIEW_OPS
        step = _sole_producer(graph, step)
    if step is None or graph.nodes[step]["op"] not in _LAYERS:
        return None
    layer = graph.nodes[step]
    channels = layer["attrs"].get("out_channels") or layer["attrs"]["out_features"]
    axis = len(graph.nodes[name]["out_shapes"][0]) - 1 if viewed or layer["op"] == "fc" else 1
    data = graph.nodes[name]
    return step if _is_vector(data, axis) and data["out_shapes"][0][axis] == channels else None


def _is_vector(data: dict[str, Any], axis: int) -> bool:
    """Whether the constant of an operator varies along ``axis`` alone, over all of it."""
    out: Shape = data["out_shapes"][0]
    constant: Shape = (1,) * (len(out) - len(data["attrs"]["const_shape"])) + data["attrs"]["const_shape"]
    return len(out) > axis and constant[axis] == out[axis] == math.prod(constant)
