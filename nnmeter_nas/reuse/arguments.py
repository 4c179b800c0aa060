"""The arguments of a unit, told apart as it has to tell them apart."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..readers.nni_operators import Weight
from .application import Application, UnitTensor
from .summary import InseparableError


class Arguments:
    """The tensors among a unit's operands, in the order in which :meth:`code` meets them.

    Args:
        parts: units whose operands are to be seen in place of what they hand out.

    Attributes:
        tensors: distinct after pruning.
        names: distinct before pruning, each with its place among ``tensors``.
        parts: as given.
    """

    def __init__(self, parts: frozenset[Application] = frozenset()) -> None:
        self.tensors: list[UnitTensor] = []
        self.names: list[tuple[UnitTensor, int]] = []
        self.parts = parts
        self._seen: list[Application] = []
        self._places: dict[Hashable, int] = {}
        self._name_places: dict[Hashable, int] = {}

    def code(self, value: Any) -> Hashable:
        """What the unit can see of an operand: equal codes, and it does the same.

        Raises:
            InseparableError: the operand is of a kind of which nothing is known.
        """
        kind = type(value)
        if kind is UnitTensor:
            if value.sole_result_of in self.parts:
                return self._code_of_part(value.sole_result_of)
            place, name = self._add(value)
            return value.shape, value.source.pooled, place, name
        if kind is list or kind is tuple:
            return kind, *map(self.code, value)
        if kind is dict:
            return kind, *((self.code(key), self.code(item)) for key, item in value.items())
        if kind is Weight:
            return kind, value.shape
        if kind is float:
            return kind, repr(value)
        if value is None or kind is bool or kind is int or kind is str:
            return kind, value
        raise InseparableError(f"an operand is a {kind.__name__}")

    def name(self, tensor: UnitTensor) -> int:
        """Place among ``names`` of a tensor that :meth:`code` has met."""
        return self._name_places[_name(tensor)]

    def _add(self, tensor: UnitTensor) -> tuple[int, int]:
        """Places of ``tensor`` in ``tensors`` and in ``names``."""
        place = self._places.setdefault((tensor.source, tensor.slot), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(tensor)
        name = self._name_places.setdefault(_name(tensor), len(self.names))
        if name == len(self.names):
            self.names.append((tensor, place))
        return place, name

    def _code_of_part(self, part: Application) -> Hashable:
        if part in self._seen:
            return Application, self._seen.index(part)
        self._seen.append(part)
        return Application, part.content, *map(self.code, part.operands)


def _name(tensor: UnitTensor) -> Hashable:
    return tensor.source, tensor.slot, tensor.alias
