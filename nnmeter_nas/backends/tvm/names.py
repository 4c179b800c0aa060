"""Which nodes of an ONNX file each kernel of the compiled program runs.

TVM drops the names of nodes. So each node's result gets a name that leads back to it when the file is
converted. When TVM has fused operators, the program before and after are compared call by call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .imports import load_tvm

#: Name of the result of the node of this number.
_RESULT, _NUMBER = "node{}_", re.compile(r"node(\d+)_")


class Kernel(NamedTuple):
    """A kernel of a compiled program.

    Attributes:
        function: its name in the program.
        nodes: positions in the file of the nodes that it runs.
    """

    function: str
    nodes: tuple[int, ...]


def converted(model: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Convert an ONNX model to a module of TVM's relax, where results are called after their nodes.

    Args:
        model: the model; its nodes get other names.
        shapes: those of its inputs.
    """
    frontend = load_tvm("tvm.relax.frontend.onnx.onnx_frontend")
    relax = load_tvm("tvm.relax")

    class Builder(relax.BlockBuilder):  # type: ignore[name-defined]
        """Gives results that have no name yet that of the node."""

        node = ""

        def emit(self, value: Any, name_hint: str = "") -> Any:
            return super().emit(value, name_hint or self.node)

    class Importer(frontend.ONNXGraphImporter):  # type: ignore[name-defined]
        """The frontend's own, but for the names, and for batch norms.

        TVM compiles and runs each operator on constants that it folds. Those of batch norms take it most of
        a minute in a large network, so they are folded here.
        """

        def __init__(self) -> None:
            super().__init__(dict(shapes), "float32")
            self.bb = Builder()

        def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
            self.bb.node = attrs["tvm_custom"]["name"]
            numbers: list[Any] = [getattr(one, "value", None) for one in list(inputs)[1:]]
            if op_name == "BatchNormalization" and all(hasattr(one, "numpy") for one in numbers):
                factor, shift = _of_batch_norm([one.numpy() for one in numbers], attrs.get("epsilon", 1e-5))
                sizes = (1, -1, *(1,) * (len(inputs[0].ty.shape) - 2))
                scaled = self.bb.emit(relax.op.multiply(inputs[0], relax.const(factor.reshape(sizes))))
                return self.bb.emit(relax.op.add(scaled, relax.const(shift.reshape(sizes))))
            found = super()._convert_operator(op_name, inputs, attrs, opset)
            return self.bb.emit(found) if isinstance(found, relax.Call | relax.TupleGetItem) else found

    for number, node in enumerate(model.graph.node):
        node.name = _RESULT.format(number)
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    return Importer().from_onnx(model.graph, opset)


def _of_batch_norm(numbers: Sequence[Any], epsilon: float) -> tuple[Any, Any]:
    """What a batch norm multiplies by, and what it then adds."""
    scale, shift, mean, variance = numbers
    factor = scale / np.sqrt(variance + epsilon)
    return factor.astype(np.float32), (shift - mean * factor).astype(np.float32)


def kernels(whole: Any, fused: Any, calls: Sequence[str], nodes: int) -> list[Kernel] | None:
    """Tell what each kernel of a program runs, in order of execution; None if that cannot be told.

    Args:
        whole: the module with one function for each operator, before these were fused.
        fused: the module that calls these functions kernel by kernel.
        calls: names of the functions that the finished program calls: some kernels are gone, as a reshape
            computes nothing.
        nodes: of the file.
    """
    groups = _groups(whole, fused)
    if groups is None:
        return None
    node_of = _node_of(whole, nodes)
    found = []
    waiting = iter(groups)
    for call in calls:
        group = next((group for function, group in waiting if function == call), None)
        if group is None:
            return None
        found.append(Kernel(call, tuple(sorted({node_of[step] for step in group}))))
    return found


def _bindings(function: Any) -> Iterator[tuple[Any, Any]]:
    """The variables of a function of relax, and their values."""
    for block in function.body.blocks:
        for binding in block.bindings:
            yield binding.var, binding.value


def _node_of(whole: Any, nodes: int) -> list[int]:
    """The node that each step of ``whole`` belongs to: one without a name leads to the next that has one."""
    named = [_NUMBER.match(var.name) for var, _ in _bindings(whole["main"])]
    found, following = list[int](), nodes - 1
    for match in reversed(named):
        following = int(match[1]) if match else following
        found.append(following)
    return found[::-1]


def _groups(whole: Any, fused: Any) -> list[tuple[str, list[int]]] | None:
    """For each call of ``fused``: the function, and the steps of ``whole`` that it computes.

    None if a step is not found again.
    """
    waiting: dict[Any, list[int]] = {}
    same: dict[Any, Any] = {var: f"input{i}" for i, var in enumerate(whole["main"].params)}
    for step, (var, value) in enumerate(_bindings(whole["main"])):
        same[var] = step
        waiting.setdefault(_computation(value, same), []).append(step)
    known: dict[Any, Any] = {var: f"input{i}" for i, var in enumerate(fused["main"].params)}
    functions = {name.name_hint: function for name, function in fused.functions.items()}
    found = []
    for var, value in _bindings(fused["main"]):
        function = functions.get(getattr(getattr(value, "op", None), "name_hint", ""))
        if function is None:  # an operator that is a kernel of its own
            inside, steps = known, [(var, value)]
        else:
            arguments = [_same(argument, known) for argument in value.args]
            inside, steps = dict(zip(function.params, arguments, strict=True)), list(_bindings(function))
        group = []
        for inner, computed in steps:
            candidates = waiting.get(_computation(computed, inside))
            if not candidates:
                return None
            inside[inner] = candidates.pop(0)
            group.append(inside[inner])
        if function is not None:
            known[var] = _same(function.body.body, inside)
            found.append((value.op.name_hint, group))
        elif hasattr(value, "args"):
            found.append((_computation(value, known)[0], group))
    return found


def _computation(value: Any, known: Mapping[Any, Any]) -> Any:
    """What a value computes from what, with variables as the steps that compute them."""
    if hasattr(value, "tuple_value"):
        return "item", value.index, _same(value.tuple_value, known)
    if hasattr(value, "args"):
        callee, *operands = value.args if value.op.name == "relax.call_tir" else (value.op, *value.args)
        name = getattr(callee, "name_hint", None) or callee.name
        return name, tuple(_same(operand, known) for operand in operands)
    return "same", _same(value, known)


def _same(value: Any, known: Mapping[Any, Any]) -> Any:
    """The step that computes a variable, and those of the fields of a tuple; a constant is itself."""
    if value in known:
        return known[value]
    if hasattr(value, "fields"):
        return tuple(_same(field, known) for field in value.fields)
    return value
