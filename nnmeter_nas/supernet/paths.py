"""The paths through the architectures of a space: how many there are, and what lies on them.

How deep a network is, and how many ways lead through it, tells more of its accuracy than which block stands
where. Nothing is built to count them: one walk through the supernet counts for many architectures at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..graph.model_graph import input_names, output_names
from ..graph.traversal import reachable, topological_order
from ..ops import ROLES, kernel_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Kernel types that nearly every path has where another has none: they tell paths not apart.
_USUAL = ("bn", "relu", "add", "concat", "split", "globalavgpool")
#: Architectures counted at once.
_AT_ONCE = 4096


@dataclass(frozen=True)
class _Ways:
    """The paths from the input to one operator, in each of ``N`` architectures.

    Attributes:
        number: logarithm of their number, ``[N]``; minus infinity if the result does not depend on the input.
        mean, most, least: how many operators of each sort lie on a path, ``[sorts, N]``.
    """

    number: FloatArray
    mean: FloatArray
    most: FloatArray
    least: FloatArray

    def chosen(self, taken: npt.NDArray[np.bool_], other: _Ways) -> _Ways:
        """``other`` where ``taken``, else these."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("number", "mean", "most", "least"))
        return _Ways(*(np.where(taken, new, old) for old, new in pairs))

    def joined(self, other: _Ways) -> _Ways:
        """These and the ``other`` ones together."""
        number = np.logaddexp(self.number, other.number)
        known = np.where(np.isfinite(number), number, 0.0)
        here, there = np.exp(self.number - known), np.exp(other.number - known)
        return _Ways(
            number,
            here * self.mean + there * other.mean,
            np.maximum(self.most, other.most),
            np.minimum(self.least, other.least),
        )

    def passing(self, sort: int) -> _Ways:
        """The same paths, and one more operator of a sort on them."""
        more = np.zeros((len(self.mean), 1))
        more[sort] = 1.0
        return _Ways(self.number, self.mean + more, self.most + more, self.least + more)


class Paths:
    """Counts what lies on the paths through architectures.

    An operator's sort is its name and its window. Each operator with weights counts as one of another sort as
    well: their number on a path is the depth.

    Args:
        supernet: see :mod:`nnmeter_nas.supernet.choices`.
        labels: labels of the choices, in the order of a row's positions.
    """

    def __init__(self, supernet: nx.DiGraph, labels: tuple[str, ...]) -> None:
        self._output = output_names(supernet)[0]
        needed = reachable(supernet.reverse(copy=False), [self._output])
        self._order = [name for name in topological_order(supernet) if name in needed]
        self._inputs = set(input_names(supernet))
        self._nodes: dict[str, dict[str, Any]] = {name: supernet.nodes[name] for name in self._order}
        self._position = {label: position for position, label in enumerate(labels)}
        self._sorts = list(dict.fromkeys(sort for name in self._order for sort in _sorts(self._nodes[name])))
        self._last_use: dict[str, int] = {}
        for i, name in enumerate(self._order):
            for producer, _ in self._nodes[name]["inputs"]:
                self._last_use[producer] = i

    def features(self, rows: IntArray) -> FloatArray:
        """Features of architectures, ``[N, positions] -> [N, features]``.

        The logarithm of the number of paths, then for each sort how many lie on a path: on average, at most
        and at least. All are 0 if no path leads to the output.
        """
        parts = [self._features(rows[at : at + _AT_ONCE]) for at in range(0, len(rows), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros((0, 1 + 3 * len(self._sorts)))

    def _features(self, rows: IntArray) -> FloatArray:
        ways: dict[str, _Ways] = {}
        for i, name in enumerate(self._order):
            ways[name] = self._ways(name, ways, rows)
            for producer in {producer for producer, _ in self._nodes[name]["inputs"]}:
                if self._last_use[producer] == i:
                    del ways[producer]
        found = ways[self._output]
        counted = np.concatenate([found.number[None], found.mean, found.most, found.least])
        return np.where(np.isfinite(found.number), counted, 0.0).T

    def _ways(self, name: str, ways: dict[str, _Ways], rows: IntArray) -> _Ways:
        data = self._nodes[name]
        if name in self._inputs:
            zeros = np.zeros((len(self._sorts), len(rows)))
            return _Ways(np.zeros(len(rows)), zeros, zeros, zeros)
        operands = [ways[producer] for producer, _ in data["inputs"]]
        if not operands or ROLES.get(data["op"]) == "zero" or data["attrs"].get("const") == 0.0:
            return self._none(len(rows))
        found = operands[0]
        if data["op"] == "choice":
            chosen = rows[:, self._position[data["attrs"]["label"]]]
            for candidate, operand in enumerate(operands[1:], 1):
                found = found.chosen(chosen == candidate, operand)
            return found
        for operand in operands[1:]:
            found = found.joined(operand)
        for sort in _sorts(data):
            found = found.passing(self._sorts.index(sort))
        return found

    def _none(self, count: int) -> _Ways:
        zeros = np.zeros((len(self._sorts), count))
        return _Ways(np.full(count, -np.inf), zeros, zeros - np.inf, zeros + np.inf)


def _sorts(data: dict[str, Any]) -> list[str]:
    """The sorts that an operator counts for."""
    kernel = kernel_of(data["op"])
    if kernel is None or kernel in _USUAL or data["op"] == "choice" or ROLES.get(data["op"]) == "identity":
        return []
    attrs = data["attrs"]
    grouped = "grouped " if attrs.get("groups", 1) > 1 else ""
    window = "x".join(map(str, attrs["kernel"])) if isinstance(attrs.get("kernel"), tuple) else ""
    depth = ["weights"] if kernel in ("conv", "dwconv", "fc") else []
    return [f"{grouped}{data['op']} {window}".strip(), *depth]
