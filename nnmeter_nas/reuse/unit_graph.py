"""The model graph of a unit alone, which takes the unit's arguments and hands out its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import add_op, finish, set_outputs
from ..readers.nni_ir import GraphBuilder
from ..readers.nni_operators import Tensor, tensors_in
from ..shapes import Shape
from .application import Application, UnitTensor
from .arguments import Arguments
from .summary import InseparableError

#: Operator that stands for whatever reads a result of the unit.
OUTSIDE = "<outside>"


class UnitGraph(GraphBuilder):
    """Builds the model graph of a unit.

    Args:
        model: NNI's, in which the unit is at work.
        arguments: of the unit, and the parts that are read with it.

    Attributes:
        names: a tensor for each name among the arguments.
    """

    def __init__(self, model: Any, arguments: Arguments) -> None:
        super().__init__(model)
        self.names: list[Tensor] = []
        self._arguments = arguments
        self._parts: dict[Application | None, Any] = {}
        for tensor, place in arguments.names:
            self.names.append(self._add_name(place, tensor.shape))

    @property
    def inputs(self) -> list[str]:
        """The input that stands for each tensor among the arguments."""
        return [_input(place) for place in range(len(self._arguments.tensors))]

    @property
    def runs(self) -> bool:
        """Whether anything but arguments was read."""
        return len(self.graph) > len(self.names)

    def read(self, node: Any, operands: Sequence[Any]) -> Any:
        """What ``node`` of the model evaluates to on ``operands``, with tensors of this graph."""
        # In the order in which the whole model has their operators.
        for part in sorted(self._arguments.parts, key=lambda part: part.order):
            self._parts[part] = self._evaluate_node(part.node, self._read_operands(part.operands))
        return self._evaluate_node(node, self._read_operands(operands))

    def hand_out(self, result: Any) -> dict[Tensor, str]:
        """Finish the graph, which hands out the tensors in ``result``.

        Returns:
            The operator that reads each of them.

        Raises:
            InseparableError: there is no tensor, or one that depends on no argument.
            GraphError, ShapeError: as :func:`nnmeter_nas.graph.finish` raises them.
        """
        outside: dict[Tensor, str] = {}
        for tensor in dict.fromkeys(tensors_in(result)):
            name, operand = f"{OUTSIDE} {len(outside)}", (tensor.producer, tensor.slot)
            outside[tensor] = add_op(self.graph, name, OUTSIDE, [operand], declared=[self.shape(tensor)])
        if not outside:
            raise InseparableError("the unit hands out no tensor")
        set_outputs(self.graph, outside.values())
        finish(self.graph, self.inferred)
        if not all(name in self.graph for name in outside.values()):
            raise InseparableError("a result depends on no argument")
        return outside

    def _add_name(self, place: int, shape: Shape) -> Tensor:
        name = _input(place)
        if name not in self.graph:
            return Tensor(self.add_input(name, shape))
        # Another tensor until pruning, as it is in the model.
        alias = add_op(self.graph, f"{name}, name {len(self.names)}", "identity", [name])
        self._uninferred.append(alias)
        return Tensor(alias)

    def _read_operands(self, value: Any) -> Any:
        """``value`` with tensors of this graph."""
        kind = type(value)
        if kind is UnitTensor:
            if value.sole_result_of in self._parts:
                return self._parts[value.sole_result_of]
            return self.names[self._arguments.name(value)]
        if kind is list or kind is tuple:
            return kind(map(self._read_operands, value))
        if kind is dict:
            return {key: self._read_operands(item) for key, item in value.items()}
        return value

    def _unknown(self, operation: Any, operands: list[Any]) -> Any:
        raise InseparableError("what the IR claims for an unknown operator is no part of its content")


def _input(place: int) -> str:
    return f"<argument {place}>"
