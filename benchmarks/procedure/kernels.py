"""Models of pairs of operators, as nn-Meter's builder measures them to find fusion rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx as nx

from nnmeter_nas.compat.builder.models import Model
from nnmeter_nas.graph.model_graph import finish
from nnmeter_nas.graph.shapes import Shape

#: Operators of the fusion test without an effect on a prediction: views are in no kernel graph of ours, and
#: nn-Meter has no forest for transposed convolutions.
_WITHOUT_EFFECT = frozenset({"reshape", "convtrans"})


class Pair(NamedTuple):
    """One fusion test: two operators, and the models of each alone and of both."""

    first: str
    second: str
    alone: tuple[nx.DiGraph, nx.DiGraph]
    both: nx.DiGraph

    @property
    def rule(self) -> str:
        """Name of the rule in nn-Meter's rule files."""
        return f"BF_{self.first}_{self.second}"


def pairs(settings: Mapping[str, object]) -> list[Pair]:
    """Return the fusion tests that nn-Meter's settings name, with equal models only once."""
    found, alone = [], _Alone(settings)
    names = settings["BASIC_TESTCASES"]
    assert isinstance(names, Sequence)
    for first, _, second in (str(name).partition("_") for name in names):
        if _WITHOUT_EFFECT.isdisjoint((first, second)):
            found.append(alone.pair(first, second))
    return found


class _Alone:
    """The models of one operator, of each operator and shape once."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._flat = settings["LAYERS_1D"]
        self._sizes = {key: value for key, value in settings.items() if isinstance(value, int)}
        self._made: dict[tuple[str, Shape], nx.DiGraph] = {}

    def pair(self, first: str, second: str) -> Pair:
        """Make the models of a fusion test."""
        sizes, flat = self._sizes, self._flat
        assert isinstance(flat, Sequence)
        shape: Shape = (1, sizes["CIN"], sizes["HW"], sizes["HW"])
        if first in flat or second in flat:
            shape = (1, sizes["SHAPE_1D"])
        model = Model()
        between = model.add(first, model.operands(first, shape), sizes)
        between_shape = model.shape(between)
        model.add(second, model.operands(second, between_shape, between), sizes)
        alone = self._alone(first, shape), self._alone(second, between_shape)
        return Pair(first, second, alone, finish(model.graph))

    def _alone(self, op: str, shape: Shape) -> nx.DiGraph:
        if (op, shape) not in self._made:
            model = Model()
            model.add(op, model.operands(op, shape), self._sizes)
            self._made[op, shape] = finish(model.graph)
        return self._made[op, shape]
