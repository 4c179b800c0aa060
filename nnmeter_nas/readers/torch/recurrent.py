"""Recurrent layers of ATen, which computes all layers of one module at once."""

from __future__ import annotations

from ...graph.editing import Operand
from ...ops.recurrent import GATES
from ..recurrent import Stack
from .operators import AtenCall, reads


@reads("lstm", "gru", "rnn")
def _recurrent(call: AtenCall) -> list[Operand] | None:
    """Weights are two matrices, biases and a projection for each layer and direction, in one list."""
    args, weights = call.args, call.args["params"]
    states = args["hx"] if isinstance(args["hx"], list | tuple) else [args["hx"]]
    first = [operand for operand in map(call.operand, states) if operand is not None]
    x = call.operand(args.get("input"))
    # Sequences of different lengths, packed into one tensor, have no shape that is known without data.
    if x is None or any(call.operand(tensor) is not None for tensor in weights):
        return None
    out = weights[1].shape[1]
    op = call.op.split("_")[0]
    hidden = weights[0].shape[0] // GATES[op]
    stack = Stack(
        op, hidden, args["num_layers"], 2 if args["bidirectional"] else 1, out if out != hidden else 0,
        args["has_biases"], args["batch_first"],
    )  # fmt: skip
    return stack.build(lambda op, inputs, attrs: call.add(op, inputs, attrs, []), x, first)
