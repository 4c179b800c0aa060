"""Recurrent layers as every reader builds them: one operator a layer, steps first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..graph.editing import Operand

#: Adds an operator ``(op, operands, attributes)`` to the model graph, and returns its name.
Add = Callable[[str, Sequence[Operand], Mapping[str, Any]], str]


@dataclass(frozen=True)
class Stack:
    """Recurrent layers of one kind and size, each on the result of the one before.

    Attributes:
        op: canonical operator: ``lstm``, ``gru`` or ``rnn``.
        hidden: values of the state for each item and direction.
        layers: number of layers.
        directions: 2 if each layer also goes through the steps backwards, else 1.
        projected: values that the state is projected to; 0 if it is not.
        bias: whether they have biases.
        batch_first: whether the batch comes before the steps, in the input and in the result.
    """

    op: str
    hidden: int
    layers: int = 1
    directions: int = 1
    projected: int = 0
    bias: bool = False
    batch_first: bool = False

    def build(self, add: Add, x: Operand, states: Sequence[Operand]) -> list[Operand]:
        """Add the layers; return their result, and each of the last states of all layers.

        Args:
            add: adds an operator.
            x: the input.
            states: the computed first states, of all layers.
        """
        attrs: dict[str, Any] = {"hidden": self.hidden, "directions": self.directions, "bias": self.bias}
        if self.projected:
            attrs["projected"] = self.projected
        if self.batch_first:
            x = add("transpose", [x], {"perm": (1, 0, 2)}), 0
        names = []
        for layer in range(self.layers):
            names.append(add(self.op, [x, *self._states_of(add, states, layer)], attrs))
            x = names[-1], 0
        result = (add("transpose", [x], {"perm": (1, 0, 2)}), 0) if self.batch_first else x
        last = range(1, 3 if self.op == "lstm" else 2)
        return [result, *(_joined(add, [(name, slot) for name in names]) for slot in last)]

    def _states_of(self, add: Add, states: Sequence[Operand], layer: int) -> list[Operand]:
        """The first states of one layer."""
        if self.layers == 1:
            return list(states)
        start = layer * self.directions
        cut = {"axis": 0, "start": start, "stop": start + self.directions, "step": 1}
        return [(add("slice", [state], cut), 0) for state in states]


def _joined(add: Add, states: list[Operand]) -> Operand:
    """The states of all layers in one tensor."""
    return states[0] if len(states) == 1 else (add("concat", states, {"axis": 0}), 0)
