"""Recurrent layers that are one operator in TensorFlow. Others are loops, which the reader refuses."""

from __future__ import annotations

from ...errors import ShapeError
from ..recurrent import Stack
from .operators import TfCall, TfValue, tensorflow


def _built(call: TfCall, stack: Stack, x: TfValue, states: list[TfValue]) -> list[TfValue] | None:
    """The result of ``stack`` and its last states; None if ``x`` is constant."""
    if x.rank != 3:
        raise ShapeError(f"its input of shape {x.shape} has not three dimensions: steps, batch, features")
    if x.constant:
        return None
    source, *first = (call.as_listed(tensor).operand for tensor in (x, *states) if not tensor.constant)
    assert source is not None
    computed = [operand for operand in first if operand is not None]
    return [call.value_of(operand) for operand in stack.build(call.add, source, computed)]


@tensorflow("CudnnRNN", "CudnnRNNV2", "CudnnRNNV3")
def _cudnn_rnn(call: TfCall) -> list[TfValue] | None:
    """All layers in one operator; what follows the states is for training."""
    x, state, cells = call.inputs[:3]
    op = call.node.text("rnn_mode", "lstm").split("_")[0]
    directions = 2 if call.node.text("direction", "unidirectional") == "bidirectional" else 1
    out = state.sizes[2]
    hidden = cells.sizes[2] if op == "lstm" else out
    batch_first = "time_major" in call.node.attr and not call.node.flag("time_major")
    layers = state.sizes[1 if batch_first else 0] // directions
    stack = Stack(op, hidden, layers, directions, out if out != hidden else 0, True, batch_first)
    states = [state, cells] if op == "lstm" else [state]
    built = _built(call, stack, x, [] if batch_first else states)
    if built is None:
        return None
    return [*built, *[TfValue((1,), (0,), constant=True)] * (5 - len(built))]


@tensorflow("BlockLSTM", "BlockLSTMV2")
def _block_lstm(call: TfCall) -> list[TfValue] | None:
    """Its seven outputs are the gates, the cells and the states of all steps."""
    _, x, cells, state, weights = call.inputs[:5]
    built = _built(call, Stack("lstm", weights.sizes[1] // 4, bias=True), x, [state, cells])
    return None if built is None else [built[0]] * 7


@tensorflow("LSTMBlockCell")
def _lstm_cell(call: TfCall) -> list[TfValue] | None:
    """One step; its seven outputs are the gates, the cells and the state."""
    x, cells, state, weights = call.inputs[:4]
    return _step(call, Stack("lstm", weights.sizes[1] // 4, bias=True), x, [state, cells], 7)


@tensorflow("GRUBlockCell")
def _gru_cell(call: TfCall) -> list[TfValue] | None:
    """One step; its four outputs are the gates and the state."""
    x, state, _, weights = call.inputs[:4]
    return _step(call, Stack("gru", weights.sizes[1], bias=True), x, [state], 4)


def _step(
    call: TfCall, stack: Stack, x: TfValue, states: list[TfValue], outputs: int
) -> list[TfValue] | None:
    """One step of a layer, whose outputs all are ``(batch, hidden)``."""
    x, *states = (call.arranged(call.as_listed(t), (0, 1, 2), (1, *t.sizes)) for t in (x, *states))
    built = _built(call, stack, x, states)
    if built is None:
        return None
    return [call.arranged(built[0], (0, 1), built[0].sizes[1:])] * outputs
