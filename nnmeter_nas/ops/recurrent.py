"""Recurrent layers: one layer each, which runs its steps one after another."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import ShapeError
from ._registry import Node, Shape, operator

#: How many times the hidden size the weights of each layer yield: once per gate, and for the new state.
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _sizes(node: Node) -> tuple[int, int, int, int]:
    """Features of the input, features that are handed to the next step, hidden size, and directions."""
    attrs = node["attrs"]
    hidden, projected = attrs["hidden"], attrs.get("projected", 0)
    return node["in_shapes"][0][2], projected or hidden, hidden, attrs.get("directions", 1)


def _weights(gates: int, node: Node) -> int:
    """Weights, without biases: ``gates * hidden * (in + out)``, and ``hidden * out`` if projected."""
    features, out, hidden, directions = _sizes(node)
    projection = hidden * out if node["attrs"].get("projected") else 0
    return int(directions * (gates * hidden * (features + out) + projection))


def _macs(gates: int, node: Node) -> int:
    """Each step of each item takes all weights."""
    steps, batch, _ = node["in_shapes"][0]
    return int(steps * batch * _weights(gates, node))


def _params(gates: int, node: Node) -> int:
    """The weights, and two biases for each value of each gate if the attribute ``bias`` is true."""
    biases = 2 * gates * node["attrs"]["hidden"] * node["attrs"].get("directions", 1)
    return _weights(gates, node) + int(biases * node["attrs"].get("bias", False))


def _steps(node: Node) -> int:
    """A launch for each step and direction."""
    return int(node["in_shapes"][0][0] * node["attrs"].get("directions", 1))


@operator("gru", attrs="hidden directions bias", torch="gru", modules="GRU", onnx="GRU",
          tensorflow="GRUBlockCell",
          macs=partial(_macs, GATES["gru"]), params=partial(_params, GATES["gru"]), launches=_steps,
          like="conv")
@operator("rnn", attrs="hidden directions bias", torch="rnn_tanh rnn_relu", modules="RNN", onnx="RNN",
          macs=partial(_macs, GATES["rnn"]), params=partial(_params, GATES["rnn"]), launches=_steps,
          like="conv")
def _recurrent(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``(steps, batch, in)`` to ``(steps, batch, directions * out)``, and the last state of each direction.

    A computed first state may follow the input.
    """
    if len(shapes[0]) != 3:
        raise ShapeError(f"its input of shape {shapes[0]} has not three dimensions: steps, batch, features")
    steps, batch, _ = shapes[0]
    out, directions = attrs.get("projected") or attrs["hidden"], attrs.get("directions", 1)
    return [(steps, batch, directions * out), (directions, batch, out)]


@operator("lstm", attrs="hidden directions projected bias", torch="lstm", modules="LSTM", onnx="LSTM",
          tensorflow="BlockLSTM BlockLSTMV2 LSTMBlockCell",
          macs=partial(_macs, GATES["lstm"]), params=partial(_params, GATES["lstm"]), launches=_steps,
          like="conv")
def _lstm(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The same with the last state of its cells. The states may be ``projected`` to fewer values."""
    result, state = _recurrent(shapes, attrs)
    return [result, state, (*state[:2], attrs["hidden"])]
