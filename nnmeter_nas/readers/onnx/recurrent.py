"""Recurrent layers of ONNX: one layer each, in one direction or two."""

from __future__ import annotations

from ...graph.editing import Operand
from ..recurrent import Stack
from .operators import NoCanonicalFormError, OnnxNode, onnx_op
from .products import adder, value_of
from .values import Value


@onnx_op("LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM")
def _recurrent(node: OnnxNode) -> list[Value]:
    """The result has an axis for the directions, which comes after the steps."""
    if node.x.operand is None or any(value is not None and value.operand for value in node.inputs[1:4]):
        raise NoCanonicalFormError
    states = [value.operand for value in node.inputs[5:7] if value is not None and value.operand is not None]
    directions = 2 if node.attrs.get("direction") == "bidirectional" else 1
    op = node.op.lower() if "." not in node.op else "lstm"
    batch_first = bool(node.attrs.get("layout"))

    add = adder(node)

    def swapped(operand: Operand) -> Operand:
        """Batch and directions of a state in the other order, if the batch comes first."""
        return add("transpose", [operand], {"perm": (1, 0, 2)}) if batch_first else operand

    stack = Stack(op, node.attrs["hidden_size"], directions=directions, bias=node.input(3) is not None,
                  batch_first=batch_first)  # fmt: skip
    first = [swapped(state) for state in states]
    result, *last = stack.build(lambda *operator: add(*operator)[0], node.x.operand, first)
    outer, inner, _ = value_of(node, result).shape or ()
    result = add("reshape", [result], {"shape": (outer, inner, directions, stack.hidden)})
    if not batch_first:
        result = add("transpose", [result], {"perm": (0, 2, 1, 3)})
    return [value_of(node, operand) for operand in (result, *map(swapped, last))]
