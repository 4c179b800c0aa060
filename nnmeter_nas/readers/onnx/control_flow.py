"""Read ``If``, ``Loop`` and ``Scan``: run what is certain beforehand, and say what data decides.

Where the model itself fixes the branch or the number of steps, their operators join the model graph. Of an
``If`` on data, the branch that multiplies more counts, if both return the same shapes; a note says so.
Anything else stays one operator of unknown work, and what follows it has the shapes that the file declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import networkx as nx
import numpy as np

from ...errors import NnMeterNasError, ReaderError
from ...graph.model_graph import add_note, add_op, notes_of
from ...graph.shapes import infer_operator
from ...graph.unknown import GIVEN
from ...graph.work import flops
from .operators import OnnxNode, OutputType, translate
from .values import Value, folded

if TYPE_CHECKING:
    from onnx import GraphProto

#: Most operators that the steps of one loop may become.
MAX_UNROLLED = 2000
_BRANCHES = ("then_branch", "else_branch")
T = TypeVar("T")


@dataclass(frozen=True)
class Bodies:
    """What the reader of the model does for the graphs inside an operator.

    Attributes:
        read: adds the operators of a graph under a name, with its inputs bound, and returns its outputs.
        captured: the computed tensors that a graph reads from outside.
        types: the types of a graph's outputs, as far as it declares them.
    """

    read: Callable[[GraphProto, str, Mapping[str, Value]], list[Value]]
    captured: Callable[[GraphProto], list[Value]]
    types: Callable[[GraphProto], list[OutputType]]


def attempt(graph: nx.DiGraph, read: Callable[[], T]) -> T | None:
    """Return what ``read`` returns; if it raises one of our errors, undo what it added and return None."""
    before, notes = len(graph), notes_of(graph)
    try:
        return read()
    except NnMeterNasError:
        graph.remove_nodes_from(list(graph)[before:])
        graph.graph["notes"] = notes
        return None


def read_control_flow(node: OnnxNode, bodies: Bodies) -> list[Value]:
    """Add ``node``, an ``If``, ``Loop`` or ``Scan``, to its model graph and return its outputs."""
    if node.op == "If":
        return _if(node, bodies)
    steps = _loop if node.op == "Loop" else _scan
    body: GraphProto = node.attrs["body"]
    values = attempt(node.graph, lambda: steps(node, body, bodies))
    if values is not None:
        return values
    _note(node, "runs as often as data decides, or very often, so its work is unknown")
    told = bodies.types(body)
    # A loop's body returns its condition first. The shapes of what the steps collect are not in the body.
    told = told[1:] if node.op == "Loop" else told
    carried = len(node.inputs) - (2 if node.op == "Loop" else node.attrs["num_scan_inputs"])
    return _unknown(node, bodies.captured(body), told[:carried])


def _note(node: OnnxNode, text: str) -> None:
    way_out = "to be sure, export the model without control flow, or cut it off with onnx.utils.extract_model"
    add_note(node.graph, f"operator {node.name!r} ({node.op}) {text}; {way_out}")


def _unknown(node: OnnxNode, captured: Sequence[Value], told: Sequence[OutputType]) -> list[Value]:
    """One operator of unknown work, which reads all that its graphs read."""
    known = node.types()
    known = [a if a[0] is not None or i >= len(told) else told[i] for i, a in enumerate(known)]
    return translate(replace(node, inputs=[*node.inputs, *captured], types=lambda: known))


def _if(node: OnnxNode, bodies: Bodies) -> list[Value]:
    """The taken branch; if data decides, the one that multiplies more."""
    graph, flag = node.graph, node.required(0)
    condition = flag.numbers()
    if condition is not None:
        if condition.size != 1:
            raise ReaderError(f"its condition has {condition.size} values instead of one")
        return bodies.read(node.attrs[_BRANCHES[0 if condition.any() else 1]], "", {})
    before = len(graph)
    found = {}
    for branch in _BRANCHES:
        start = len(graph)
        values = attempt(graph, partial(bodies.read, node.attrs[branch], f"{branch}/", {}))
        found[branch] = values, graph.subgraph(list(graph)[start:])
    shapes = [[value.shape for value in values] if values else [None] for values, _ in found.values()]
    if shapes[0] != shapes[1] or None in shapes[0]:
        graph.remove_nodes_from(list(graph)[before:])
        _note(node, "runs one of two branches, as data decides, so its work is unknown")
        return _unknown(node, [v for branch in _BRANCHES for v in bodies.captured(node.attrs[branch])], ())
    # What a branch writes decides between two that multiply nothing.
    costlier = max(_BRANCHES, key=lambda branch: (flops(found[branch][1]), len(found[branch][1])))
    values, _ = found[costlier]
    for branch in set(_BRANCHES) - {costlier}:
        graph.remove_nodes_from(list(found[branch][1]))
    _note(node, f"runs one of two branches, as data decides; its {costlier}, the costlier, is counted")
    return _chosen(node, values or [])


def _chosen(node: OnnxNode, values: list[Value]) -> list[Value]:
    """The outputs of a branch once its condition is known."""
    operands = [v.operand for v in (node.required(0), *values) if v.operand is not None]
    add_op(node.graph, node.name, GIVEN, operands, {"shapes": [value.shape for value in values]})
    infer_operator(node.graph, node.name)
    return node.results(node.name, [value.elem_type for value in values])


def _loop(node: OnnxNode, body: GraphProto, bodies: Bodies) -> list[Value]:
    """The steps of a loop one after another.

    Raises:
        ReaderError: data decides how many there are, or there are too many.
    """
    most, start = node.input(0), node.input(1)
    trips, flag = (None if value is None else value.numbers() for value in (most, start))
    if trips is None or (start is not None and flag is None):
        raise ReaderError("data decides how often it runs")
    count = int(trips.item()) if flag is None or flag.any() else 0
    carried = [node.required(i) for i in range(2, len(node.inputs))]
    _check_length(count, body)
    collected: list[list[Value]] = [[] for _ in body.output[1 + len(carried):]]
    for step in range(count):
        given = (folded(np.array(step)), folded(np.array(True)), *carried)
        go_on, *outputs = _step(node, body, step, given, bodies)
        carried = outputs[: len(carried)]
        for rows, row in zip(collected, outputs[len(carried):], strict=True):
            rows.append(row)
        if (more := go_on.numbers()) is None:
            raise ReaderError("data decides when it ends")
        if not more.any():
            break
    return [*carried, *(_stacked(node, rows, 0) for rows in collected)]


def _scan(node: OnnxNode, body: GraphProto, bodies: Bodies) -> list[Value]:
    """The steps of a scan one after another: each reads a slice of its last inputs.

    Raises:
        ReaderError: there are too many, or a shape is unknown.
    """
    count = int(node.attrs["num_scan_inputs"])
    values = [node.required(i) for i in range(len(node.inputs))]
    state, scanned = values[:-count], values[-count:]
    if len(body.input) != len(node.inputs) or any(value.shape is None for value in scanned):
        raise ReaderError("the number of its steps is unknown")
    given = node.attrs.get("scan_input_axes") or [0] * count
    axes = [axis % value.rank for axis, value in zip(given, scanned, strict=True)]
    steps = (scanned[0].shape or ())[axes[0]]
    _check_length(steps, body)
    collected: list[list[Value]] = [[] for _ in body.output[len(state):]]
    for step in range(steps):
        parts = [_part(node, value, axis, step) for value, axis in zip(scanned, axes, strict=True)]
        outputs = _step(node, body, step, (*state, *parts), bodies)
        state = outputs[: len(state)]
        for rows, row in zip(collected, outputs[len(state):], strict=True):
            rows.append(row)
    into = node.attrs.get("scan_output_axes") or [0] * len(collected)
    return [*state, *(_stacked(node, rows, axis) for rows, axis in zip(collected, into, strict=True))]


def _check_length(steps: int, body: GraphProto) -> None:
    if steps * max(len(body.node), 1) > MAX_UNROLLED:
        raise ReaderError(f"its {steps} steps are too many")


def _step(
    node: OnnxNode, body: GraphProto, step: int, given: Sequence[Value | None], bodies: Bodies
) -> list[Value]:
    """One step of a loop. What is to be said of its operators is said for the first step alone."""
    notes = notes_of(node.graph)
    names = [info.name for info in body.input]
    inputs = {name: value for name, value in zip(names, given, strict=True) if value is not None}
    outputs = bodies.read(body, f"{step}/", inputs)
    if step:
        node.graph.graph["notes"] = notes
    return outputs


def _part(node: OnnxNode, value: Value, axis: int, step: int) -> Value:
    """The slice of ``value`` that a step reads."""
    shape = value.shape or ()
    if value.operand is None:
        return Value((*shape[:axis], *shape[axis + 1 :]), value.elem_type)
    cut = {"axis": axis, "start": step, "stop": step + 1, "step": 1}
    [part] = node.emit("slice", [value.operand], cut)
    [part] = node.emit("squeeze", [part.operand], {"axes": (axis,)})
    return replace(part, elem_type=value.elem_type)


def _stacked(node: OnnxNode, rows: Sequence[Value], axis: int) -> Value:
    """The results of all steps as one tensor."""
    if not rows or any(row.shape is None for row in rows):
        raise ReaderError("what it collects has no known shape")
    axis %= rows[0].rank + 1
    shape = (*(rows[0].shape or ())[:axis], len(rows), *(rows[0].shape or ())[axis:])
    if all(row.operand is None for row in rows):
        return Value(shape, rows[0].elem_type)
    parts: list[Any] = []
    for row in rows:
        made = row if row.operand is not None else node.emit("constant", [], {"shape": row.shape})[0]
        parts += [part.operand for part in node.emit("unsqueeze", [made.operand], {"axes": (axis,)})]
    return replace(node.emit("concat", parts, {"axis": axis})[0], elem_type=rows[0].elem_type)
