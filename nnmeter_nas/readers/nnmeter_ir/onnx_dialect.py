"""Rewrite the nn-Meter IR of nn-Meter's ONNX converter into that of its TensorFlow converter.

The ONNX converter drops the model's input and all values, stores weights as nodes without a type, and mixes
axes in NCHW order with shapes in NHWC order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..nhwc import MAP_RANK, axis_to_nhwc, perm_to_nhwc, to_nhwc

#: Types that only the ONNX converter writes.
_ONNX_TYPES = frozenset(
    {"Conv", "BatchNormalization", "Gemm", "GlobalAveragePool", "ReduceMean", "AveragePool", "Clip", "Concat"}
)
#: The constants of a hard sigmoid. The file names these operands but lacks their values.
_HSIGMOID_SHIFT, _HSIGMOID_SCALE = 3.0, 6.0


def is_onnx_dialect(nodes: Mapping[str, Any]) -> bool:
    """Whether ``nodes`` came from ONNX: they have no input and use ONNX's operator names."""
    bodies = (record.get("attr") for record in nodes.values())
    types = {str(body.get("type")) for body in bodies if isinstance(body, Mapping)}
    return "Placeholder" not in types and not _ONNX_TYPES.isdisjoint(types)


def from_onnx_dialect(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``nodes`` with inputs and constants added, axes in NHWC order and the shapes of weights."""
    constants = {name for name, record in nodes.items() if not record["attr"]}
    rewritten: dict[str, Any] = {}
    inputs: dict[tuple[int, ...], str] = {}
    for name, record in nodes.items():
        if name in constants:
            rewritten[name] = _node("Const", {}, [], [])
            continue
        body = record["attr"]
        before, after = body["input_shape"], body["output_shape"]
        inbounds = list(record["inbounds"])
        if constants.issuperset(inbounds):
            shape = tuple(before[0])
            if shape not in inputs:
                inputs[shape] = "input" if not inputs else f"input_{len(inputs)}"
                rewritten[inputs[shape]] = _node("Placeholder", {}, [], [list(shape)])
            inbounds.insert(0, inputs[shape])
        kind, attrs = _operator(body["type"], body["attr"], before, after)
        const = _lost_constant(name, nodes, constants)
        if const is not None:
            rewritten[f"{name}/const"] = _node("Const", {"constant": [const]}, [], [])
            inbounds = [f"{name}/const" if i in constants else i for i in inbounds]
        rewritten[name] = _node(kind, attrs, inbounds, [_nhwc(s) for s in after], [_nhwc(s) for s in before])
    return rewritten


def _node(
    kind: str, attrs: dict[str, Any], inbounds: list[str], after: list[Any], before: list[Any] | None = None
) -> dict[str, Any]:
    body = {"type": kind, "attr": attrs, "input_shape": before or [], "output_shape": after}
    return {"attr": body, "inbounds": inbounds}


def _nhwc(shape: Sequence[int]) -> list[int]:
    """Return the shape in NHWC. The converter has already done this for rank 4, but for no higher rank."""
    return list(shape) if len(shape) <= MAP_RANK else to_nhwc(shape)


def _operator(
    kind: str, attrs: dict[str, Any], before: list[Any], after: list[Any]
) -> tuple[str, dict[str, Any]]:
    """Return an operator's type and attributes in the TensorFlow dialect."""
    rank = len(before[0])
    if kind == "Conv":
        groups, width, breadth = attrs.get("group", 1), before[0][-1], after[0][-1]
        weights = [*attrs["kernel_shape"], width // groups, breadth]
        return "Conv", {**_window(attrs), "weight_shape": weights, "group": groups}
    if kind in ("MaxPool", "AveragePool"):
        return kind, {**_window(attrs), "ksize": attrs["kernel_shape"]}
    if kind == "Clip":
        # Up to opset 10 the bounds are attributes. Later they are lost; ReLU6 is the usual clip.
        return ("Relu6" if attrs.get("max", _HSIGMOID_SCALE) == _HSIGMOID_SCALE else "Relu"), {}
    if kind == "Concat":
        return "ConcatV2", {"axis": axis_to_nhwc(attrs["axis"], rank)}
    if kind == "ReduceMean":
        return "Mean", {"reduction_indices": [axis_to_nhwc(axis, rank) for axis in attrs["axes"]]}
    if kind == "Transpose":
        return "Transpose", {"perm": perm_to_nhwc(attrs["perm"])}
    if kind == "Split":
        axis = axis_to_nhwc(attrs.get("axis", 0), rank)
        return "Split", {"axis": axis, "num_split": [shape[axis] for shape in map(_nhwc, after)]}
    if kind == "Slice":
        return _slices(before[0], after)
    return kind, attrs


def _window(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return stride, padding, dilation and ceil mode of a window operator, with ONNX's defaults."""
    return {
        "strides": attrs.get("strides", [1, 1]),
        "pads": attrs.get("pads", [0, 0, 0, 0]),
        "dilations": attrs.get("dilations", [1, 1]),
        "ceil_mode": attrs.get("ceil_mode", 0),
    }


def _slices(before: list[int], after: list[list[int]]) -> tuple[str, dict[str, Any]]:
    """Return a Slice node's type and attributes: a split if its outputs partition the tensor along an axis.

    The converter merges all slices of a tensor into one node.
    """
    for axis, size in enumerate(before):
        parts = [shape[axis] for shape in after if len(shape) == len(before)]
        if len(parts) > 1 and sum(parts) == size:
            return "Split", {"axis": axis, "num_split": parts}
    return "StridedSlice", {}


def _lost_constant(name: str, nodes: Mapping[str, Any], constants: set[str]) -> float | None:
    """Recover the scalar operand of a hard sigmoid's addition or division; None for other nodes.

    The clip between the two tells that they form a hard sigmoid.
    """
    record = nodes[name]
    kind = record["attr"]["type"]
    if constants.isdisjoint(record["inbounds"]):
        return None
    if kind == "Add" and [_type(nodes, o) for o in record["outbounds"]] == ["Clip"]:
        return _HSIGMOID_SHIFT
    if kind == "Div" and "Clip" in (_type(nodes, i) for i in record["inbounds"]):
        return _HSIGMOID_SCALE
    return None


def _type(nodes: Mapping[str, Any], name: str) -> str | None:
    return nodes[name]["attr"].get("type") if name in nodes else None
