"""Write nn-Meter IR: a model graph as a dict of TensorFlow-style nodes in NHWC.

nn-Meter 2.0 identifies operators by the names that its TensorFlow converter gives them, and finds whole
patterns (squeeze-excite, h-swish, channel shuffle) only in the spellings that it knows. So the writer uses
those names, and spells these patterns as TensorFlow does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import networkx as nx

from ...graph.editing import Operand
from ...kernels.fusion import fuse, parse_rules
from ...ops import OPERATORS, VIEW_OPS, spatial_attrs
from ..nhwc import MAP_RANK, axis_to_nhwc, perm_to_nhwc, to_nhwc

#: Operators that nn-Meter IR spells as another operator.
_SPELT_AS = {"globalavgpool": "mean", **dict.fromkeys(("flatten", "squeeze", "unsqueeze"), "reshape")}

Nodes = dict[str, dict[str, Any]]


def to_nnmeter_ir(graph: nx.DiGraph) -> Nodes:
    """Convert a finished model graph to nn-Meter IR, for nn-Meter 2.0 and :mod:`.readers.nnmeter_ir`.

    The IR does not name a model's outputs: nn-Meter takes every node without a consumer as an output, so an
    output that the model also computes with is lost. Nor does it have operand slots: ``name:slot`` appears
    only if an operator's outputs differ in shape, and nn-Meter takes that operand for a weight.

    Args:
        graph: a finished model graph; it is not changed.

    Returns:
        Nodes by name, in topological order; JSON values only. Shapes are NHWC.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> _ = add_op(graph, "act", "relu", [add_input(graph, "image", (1, 3, 8, 8))])
    >>> to_nnmeter_ir(finish(graph))["act"]["attr"]["output_shape"]
    [[1, 8, 8, 3]]
    """
    writer = _Writer(graph)
    for name in nx.topological_sort(graph):
        writer.write(name)
    for name, record in writer.nodes.items():
        for inbound in record["inbounds"]:
            if inbound in writer.nodes and name not in writer.nodes[inbound]["outbounds"]:
                writer.nodes[inbound]["outbounds"].append(name)
    return writer.nodes


class _Writer:
    """Collects the nodes of an IR dict; it is given the operators of a model graph in order."""

    def __init__(self, graph: nx.DiGraph) -> None:
        self.nodes: Nodes = {}
        self._graph = graph
        # Name that an operator's consumers use, if several nodes spell the operator.
        self._last: dict[str, str] = {}
        # Without rules, only patterns have more than one member.
        kernels = [kernel for _, kernel in fuse(graph, parse_rules([])).nodes(data="kernel")]
        self._pattern = {m: k.op for k in kernels for m in k.members if len(k.members) > 1}

    def write(self, name: str) -> None:
        """Write one operator as the node or nodes that spell it."""
        data = self._graph.nodes[name]
        shapes = [to_nhwc(shape) for shape in data["in_shapes"]]
        inbounds = [self._inbound(operand) for operand in data["inputs"]]
        if data["op"] == "hsigmoid":
            self._write_hsigmoid(name, inbounds, shapes)
        elif data["op"] == "hswish":
            gate = self._write_hsigmoid(f"{name}/gate", inbounds, shapes)
            self._node(name, "Mul", [*inbounds, gate], shapes * 2, shapes, {})
        elif data["op"] == "channelshuffle":
            self._write_channelshuffle(name, inbounds, data)
        elif self._pattern.get(name) == "se" and data["op"] == "globalavgpool" and _keeps_map(data):
            attrs = {**_window(data["in_shapes"][0][2:], (1, 1)), "padding": "VALID"}
            self._node(name, "AvgPool", inbounds, shapes, _out_shapes(data), attrs)
        elif self._pattern.get(name) == "se" and data["op"] == "conv":
            self._node(name, "Conv2D", inbounds, shapes, _out_shapes(data), _attrs(data))
            self._last[name] = self._same_shape(f"{name}/BiasAdd", "BiasAdd", name)
        else:
            self._write_operator(name, data, inbounds, shapes)

    def _write_operator(
        self, name: str, data: dict[str, Any], inbounds: list[str], shapes: list[list[int]]
    ) -> None:
        """Write one operator as one node, plus a node for its constant if it has one."""
        kind = _ir_type(data["op"])
        for constant in _constants(data):
            made, shape = self._constant(f"{name}/y", **constant), constant["shape"]
            first = data["attrs"].get("const_first")
            inbounds = [made, *inbounds] if first else [*inbounds, made]
            shapes = [shape, *shapes] if first else [*shapes, shape]
        self._node(name, kind, inbounds, shapes, _out_shapes(data), _attrs(data))

    def _write_hsigmoid(self, name: str, inbounds: list[str], shapes: list[list[int]]) -> str:
        """Write ``relu6(x + 3) / 6``, which nn-Meter looks for; the last node is called ``name``."""
        three = self._constant(f"{name}/add/y", [], [3.0])
        self._node(f"{name}/add", "Add", [*inbounds, three], [*shapes, []], shapes, {})
        clipped = self._same_shape(f"{name}/Relu6", "Relu6", f"{name}/add")
        sixth = self._constant(f"{name}/y", [], [1 / 6])
        return self._same_shape(name, "Mul", clipped, sixth)

    def _write_channelshuffle(self, name: str, inbounds: list[str], data: dict[str, Any]) -> None:
        """Write a shuffle: split channels into groups, swap groups and members, and join again."""
        shape, groups = data["in_shapes"][0], data["attrs"]["groups"]
        batch, channels, *spatial = shape
        split = (batch, groups, channels // groups, *spatial)
        swapped = (batch, channels // groups, groups, *spatial)
        perm = (0, 2, 1, *range(3, len(split)))
        for step, kind, before, after, attrs in (
            (f"{name}/split", "Reshape", shape, split, {"shape": to_nhwc(split)}),
            (f"{name}/transpose", "Transpose", split, swapped, {"perm": perm_to_nhwc(perm)}),
            (name, "Reshape", swapped, shape, {"shape": to_nhwc(shape)}),
        ):
            self._node(step, kind, inbounds, [to_nhwc(before)], [to_nhwc(after)], attrs)
            inbounds = [step]

    def _same_shape(self, name: str, kind: str, source: str, *constants: str) -> str:
        """Add a node with the shape of ``source``, and scalar ``constants`` as further operands."""
        shapes = self.nodes[source]["attr"]["output_shape"]
        self._node(name, kind, [source, *constants], [*shapes, *([] for _ in constants)], shapes, {})
        return name

    def _constant(self, name: str, shape: list[int], values: list[float]) -> str:
        attrs = {"tensor_shape": shape, "constant": values}
        self._node(name, "Const", [], [], [shape], attrs)
        return name

    def _node(
        self,
        name: str,
        kind: str,
        inbounds: list[str],
        in_shapes: list[list[int]],
        out_shapes: list[list[int]],
        attrs: dict[str, Any],
    ) -> None:
        self.nodes[name] = {
            "inbounds": inbounds,
            "attr": {
                "name": name,
                "type": kind,
                "output_shape": out_shapes,
                "attr": attrs,
                "input_shape": in_shapes,
            },
            "outbounds": [],
        }

    def _inbound(self, operand: Operand) -> str:
        """Name of an operand in a node: its producer, plus the slot only if it matters."""
        producer, slot = operand
        shapes = self._graph.nodes[producer]["out_shapes"]
        return self._last.get(producer, producer) if shapes[slot] == shapes[0] else f"{producer}:{slot}"


def _ir_type(op: str) -> str:
    """Type of operator ``op`` in nn-Meter IR; its own name if the IR has none."""
    operator = OPERATORS.get(_SPELT_AS.get(op, op))
    return operator.nnmeter[0] if operator is not None and operator.nnmeter else op


def _out_shapes(data: dict[str, Any]) -> list[list[int]]:
    """Output shapes of an operator, NHWC."""
    return [to_nhwc(shape) for shape in data["out_shapes"]]


def _keeps_map(data: dict[str, Any]) -> bool:
    return len(data["out_shapes"][0]) == len(data["in_shapes"][0]) == MAP_RANK


def _constants(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Shape and values of the constant operand of an element-wise operator, if it has one."""
    attrs = data["attrs"]
    if "const" in attrs:
        yield {"shape": [], "values": [float(attrs["const"])]}
    elif "const_shape" in attrs:
        missing = (1,) * (len(data["out_shapes"][0]) - len(attrs["const_shape"]))
        yield {"shape": to_nhwc((*missing, *attrs["const_shape"])), "values": []}


def _attrs(data: dict[str, Any]) -> dict[str, Any]:
    """Attributes of one operator, as nn-Meter IR spells them."""
    op, attrs, out = data["op"], data["attrs"], data["out_shapes"][0]
    rank = len(data["in_shapes"][0]) if data["in_shapes"] else 0
    if op == "input":
        return {"shape": to_nhwc(out)}
    if op in ("conv", "dwconv"):
        return _convolution(data)
    if op in ("maxpool", "avgpool"):
        kernel, stride, _ = spatial_attrs(attrs, rank - 2)
        return {**_window(kernel, stride), **_padding(data)}
    if op == "globalavgpool":
        return {"reduction_indices": [axis_to_nhwc(axis, rank) for axis in range(2, rank)]}
    if op == "mean":
        return {"reduction_indices": sorted(axis_to_nhwc(axis, rank) for axis in attrs["axes"])}
    if op == "concat":
        return {"axis": axis_to_nhwc(attrs.get("axis", 1), rank)}
    if op == "split":
        axis = attrs.get("axis", 1) % rank
        sizes = [shape[axis] for shape in data["out_shapes"]]
        return {"axis": axis_to_nhwc(axis, rank), "num_split": len(sizes) if len(set(sizes)) == 1 else sizes}
    if op == "transpose":
        return {"perm": perm_to_nhwc(tuple(p % rank for p in attrs["perm"]))}
    if op in ("pixelshuffle", "pixelunshuffle"):
        return {"block_size": attrs["factor"]}
    if op in VIEW_OPS:
        return {"shape": to_nhwc(out)}
    operator = OPERATORS.get(op)
    names = (operator.attrs or ()) if operator is not None else ()
    return {key: attrs[key] for key in names if key in attrs}


def _convolution(data: dict[str, Any]) -> dict[str, Any]:
    channels, out_channels = data["in_shapes"][0][1], data["out_shapes"][0][1]
    kernel, stride, dilation = spatial_attrs(data["attrs"], len(data["in_shapes"][0]) - 2)
    found = {
        "data_format": "NHWC",
        "strides": list(stride),
        "dilations": list(dilation),
        "kernel_shape": list(kernel),
        **_padding(data),
    }
    if data["op"] == "dwconv":
        return {**found, "weight_shape": [*kernel, channels, out_channels // channels]}
    groups = data["attrs"].get("groups", 1)
    if groups > 1:
        found["group"] = groups
    return {**found, "weight_shape": [*kernel, channels // groups, out_channels]}


def _window(kernel: Sequence[int], stride: Sequence[int]) -> dict[str, Any]:
    return {"data_format": "NHWC", "ksize": list(kernel), "strides": list(stride)}


def _padding(data: dict[str, Any]) -> dict[str, Any]:
    """``padding`` SAME or VALID, or else ``pads``: first all leading pads, then all trailing ones.

    Windows that begin inside the map and end outside it, as in pools that round up, get enough padding.
    """
    attrs, spatial, out = data["attrs"], data["in_shapes"][0][2:], data["out_shapes"][0][2:]
    padding = attrs.get("padding", "valid")
    if padding == "same":
        return {"padding": "SAME"}
    pads = [(0, 0)] * len(spatial) if padding == "valid" else [tuple(pair) for pair in padding]
    if attrs.get("ceil_mode"):
        kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
        windows = zip(out, kernel, stride, dilation, strict=True)
        reach = [(o - 1) * s + d * (k - 1) + 1 for o, k, s, d in windows]
        pads = [(b, max(a, r - size - b)) for (b, a), r, size in zip(pads, reach, spatial, strict=True)]
    if not any(map(any, pads)):
        return {"padding": "VALID"}
    before, after = zip(*pads, strict=True)
    return {"pads": [*before, *after]}
