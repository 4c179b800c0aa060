"""Models of one kernel or of a pair of operators, as nn-Meter's builder measures them.

What is in a kernel, and how the operators of a fusion test are put together, is as nn-Meter 2.0's
documentation and its TensorFlow models have it (``docs/builder``, ``nn_meter/builder/nn_modules``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx as nx

from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.shapes import Shape, infer_operator

#: Sizes of a kernel, by nn-Meter's names.
Sizes = Mapping[str, int]

#: Operators of each kernel type, where they are not the type itself.
_OPERATORS = {
    "conv-bn-relu": ("conv", "bn", "relu"),
    "dwconv-bn-relu": ("dwconv", "bn", "relu"),
    "bnrelu": ("bn", "relu"),
    "addrelu": ("add", "relu"),
    "global-avgpool": ("globalavgpool",),
}
#: Operators of two operands.
_BINARY = frozenset({"add", "concat"})
#: Part of the channels between the two layers of squeeze-excite.
_SQUEEZED = 4
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


def lone_kernel(kernel_type: str, sizes: Sizes) -> nx.DiGraph:
    """Return the model of one kernel.

    >>> [data["op"] for _, data in lone_kernel("bnrelu", {"HW": 7, "CIN": 8}).nodes(data=True)]
    ['input', 'bn', 'relu']
    """
    model = _Model()
    if kernel_type == "fc":
        operands = [model.input((1, sizes["CIN"]))]
    elif kernel_type == "concat":
        channels = [sizes[f"CIN{i}"] for i in range(1, 5)]
        operands = [model.input((1, c, sizes["HW"], sizes["HW"])) for c in channels if c]
    else:
        shape = (1, sizes["CIN"], sizes["HW"], sizes["HW"])
        operands = [model.input(shape) for _ in range(2 if kernel_type.startswith("add") else 1)]
    for op in _OPERATORS.get(kernel_type, (kernel_type,)):
        operands = [model.add(op, operands, sizes)]
    return finish(model.graph)


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
        model = _Model()
        between = model.add(first, model.operands(first, shape), sizes)
        between_shape = model.shape(between)
        others = model.operands(second, between_shape)[1:]
        model.add(second, [between, *others], sizes)
        alone = self._alone(first, shape), self._alone(second, between_shape)
        return Pair(first, second, alone, finish(model.graph))

    def _alone(self, op: str, shape: Shape) -> nx.DiGraph:
        if (op, shape) not in self._made:
            model = _Model()
            model.add(op, model.operands(op, shape), self._sizes)
            self._made[op, shape] = finish(model.graph)
        return self._made[op, shape]


class _Model:
    """A model that grows operator by operator."""

    def __init__(self) -> None:
        self.graph = new_graph()

    def shape(self, name: str) -> Shape:
        """Shape of a tensor."""
        found: Shape = self.graph.nodes[name]["out_shapes"][0]
        return found

    def input(self, shape: Shape) -> str:
        """Add an input."""
        name = add_input(self.graph, f"input_{len(self.graph)}", shape)
        infer_operator(self.graph, name)
        return name

    def operands(self, op: str, shape: Shape) -> list[str]:
        """Add as many inputs as ``op`` reads."""
        return [self.input(shape) for _ in range(2 if op in _BINARY else 1)]

    def add(self, op: str, operands: Sequence[str], sizes: Sizes) -> str:
        """Add an operator of nn-Meter, and return the name of its result."""
        if op == "se":
            return self._squeeze_excite(operands[0])
        return self._add(op, operands, **self._attributes(op, self.shape(operands[0])[1], sizes))

    def _add(self, op: str, operands: Sequence[str], **attributes: object) -> str:
        name = add_op(self.graph, f"{op}_{len(self.graph)}", op, operands, attributes)
        infer_operator(self.graph, name)
        return name

    @staticmethod
    def _attributes(op: str, channels: int, sizes: Sizes) -> dict[str, object]:
        """Attributes of an operator that reads ``channels``."""
        if op in ("conv", "dwconv", "maxpool", "avgpool"):
            is_pool = op.endswith("pool")
            kernel = (sizes["KERNEL_SIZE"],) * 2
            stride = (sizes.get("POOL_STRIDES", sizes["STRIDES"]) if is_pool else sizes["STRIDES"],) * 2
            window: dict[str, object] = {"kernel": kernel, "stride": stride, "padding": "same"}
            if is_pool:
                return window
            width = channels if op == "dwconv" else sizes["COUT"]
            return {**window, "out_channels": width, "groups": width if op == "dwconv" else 1, "bias": True}
        if op == "fc":
            return {"out_features": sizes["COUT"]}
        if op == "concat":
            return {"axis": 1}
        if op == "split":
            return {"axis": 1, "sections": [channels // 2, channels - channels // 2]}
        return {"groups": 2} if op == "channelshuffle" else {}

    def _squeeze_excite(self, x: str) -> str:
        channels = self.shape(x)[1]
        layer: dict[str, object] = {"kernel": (1, 1), "stride": (1, 1), "padding": "same", "bias": True}
        y = self._add("globalavgpool", [x])
        y = self._add("conv", [y], out_channels=max(1, channels // _SQUEEZED), **layer)
        y = self._add("conv", [self._add("relu", [y])], out_channels=channels, **layer)
        return self._add("mul", [x, self._add("hswish", [y])])
