"""Make model graphs of any size from the blocks of published CNNs."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np

from nnmeter_nas.graph.editing import Operand
from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph

#: Sides of the maps that the blocks work on; each stage has the same number of operators.
_MAPS = (56, 28, 14, 7)
#: Number of operators in the stem, the pools between stages, and the classifier.
_AROUND = 3 + (len(_MAPS) - 1) + 3
#: Number of operators of the smallest graph.
SMALLEST = 2 * _AROUND


def synthetic_graph(operators: int, seed: int = 0) -> nx.DiGraph:
    """Make an unfinished model graph with this many operators; pruning removes none of them.

    Blocks and their widths are random: plain, residual and inverted ones, parallel branches, squeeze-excite,
    h-swish and channel shuffles. The last two are written in parts, which rewrites make one operator each.
    Blocks seldom repeat, so nearly every kernel is different.

    Args:
        operators: number of operators without the input, at least :data:`SMALLEST`.
        seed: seed of everything random.

    Raises:
        ValueError: ``operators`` is too small.
    """
    if operators < SMALLEST:
        raise ValueError(f"operators={operators} must be at least {SMALLEST}")
    return _Maker(operators, seed).made()


class _Maker:
    """A graph that grows block by block."""

    def __init__(self, operators: int, seed: int) -> None:
        self._operators = operators
        self._random = np.random.default_rng(seed)
        self._graph = new_graph(f"synthetic-{operators}")
        self._last = add_input(self._graph, "input", (1, 3, 2 * _MAPS[0], 2 * _MAPS[0]))
        self._width, self._map = 3, 2 * _MAPS[0]

    def made(self) -> nx.DiGraph:
        """Add stem, stages and classifier; return the graph."""
        self._conv_bn(self._drawn_width(), 3, stride=2)
        self._add("relu")
        blocks = self._operators - _AROUND
        for stage, size in enumerate(_MAPS):
            if stage:
                self._add("maxpool", kernel=(2, 2), stride=(2, 2), padding="valid")
            self._map = size
            self._fill(blocks * (stage + 1) // len(_MAPS) - blocks * stage // len(_MAPS))
        self._add("globalavgpool")
        self._add("flatten", start=1)
        self._add("fc", out_features=1000)
        return self._graph

    def _fill(self, room: int) -> None:
        """Add blocks until they have ``room`` operators in total."""
        while room:
            fitting = [(count, block) for count, block in _BLOCKS if count <= room]
            count, block = fitting[self._random.integers(len(fitting))]
            block(self)
            room -= count

    def _add(self, op: str, *operands: str | Operand, **attrs: object) -> str:
        """Add an operator that reads ``operands``, by default the last operator."""
        name = f"{op}_{len(self._graph)}"
        self._last = add_op(self._graph, name, op, operands or (self._last,), attrs)
        return self._last

    def _drawn_width(self) -> int:
        return 8 * int(self._random.integers(2, 65))

    def _conv(self, width: int, kernel: int, *operands: str | Operand, stride: int = 1) -> str:
        self._width = width
        window, strides = (kernel, kernel), (stride, stride)
        return self._add("conv", *operands, out_channels=width, kernel=window, stride=strides, padding="same")

    def _conv_bn(self, width: int, kernel: int, *operands: str | Operand, stride: int = 1) -> str:
        self._conv(width, kernel, *operands, stride=stride)
        return self._add("bn")

    def _relu(self) -> None:
        self._add("relu")

    def _single(self) -> None:
        self._conv(self._drawn_width(), 1)

    def _plain(self) -> None:
        self._conv_bn(self._drawn_width(), int(self._random.choice((1, 3, 5))))
        self._relu()

    def _residual(self) -> None:
        entry, width = self._last, self._width
        self._conv_bn(self._drawn_width(), 3)
        self._relu()
        self._add("add", self._conv_bn(width, 3), entry)
        self._relu()

    def _inverted(self) -> None:
        """As in MobileNetV2."""
        entry, width = self._last, self._width
        inner, kernel = self._drawn_width(), int(self._random.choice((3, 5, 7)))
        self._conv_bn(inner, 1)
        self._add("relu6")
        window = (kernel, kernel)
        self._add("conv", out_channels=inner, groups=inner, kernel=window, stride=(1, 1), padding="same")
        self._add("bn")
        self._add("relu6")
        self._add("add", self._conv_bn(width, 1), entry)

    def _branches(self) -> None:
        """As in Inception: 1x1, 1x1 and 3x3, pool and 1x1."""
        entry, widths = self._last, [self._drawn_width() // 4 * 2 for _ in range(3)]
        self._conv(widths[0], 1)
        parts = [self._add("relu")]
        self._conv(widths[1], 1, entry)
        self._relu()
        self._conv(widths[1], 3)
        parts.append(self._add("relu"))
        self._add("avgpool", entry, kernel=(3, 3), stride=(1, 1), padding="same")
        self._conv(widths[2], 1)
        parts.append(self._add("relu"))
        self._add("concat", *parts)
        self._width = sum(widths)

    def _squeeze_excite(self) -> None:
        entry, width = self._last, self._width
        self._add("globalavgpool")
        self._conv(8 * int(self._random.integers(1, 17)), 1)
        self._relu()
        self._conv(width, 1)
        self._add("mul", self._add("sigmoid"), entry)

    def _hswish(self) -> None:
        """As in MobileNetV3, written out: x * relu6(x + 3) / 6."""
        entry = self._conv_bn(self._drawn_width(), 1)
        self._add("add", const=3.0)
        self._add("mul", self._add("relu6"), entry)
        self._add("mul", const=1 / 6)

    def _shuffle(self) -> None:
        """As in ShuffleNetV2: half of the channels pass unchanged, then both halves are mixed."""
        half, size = self._width // 2, self._map
        halves = self._add("split", sections=2)
        self._conv_bn(half, 3, (halves, 1))
        self._add("concat", (halves, 0), self._add("relu"))
        self._width = 2 * half
        self._add("reshape", shape=(1, 2, half, size, size))
        self._add("transpose", perm=(0, 2, 1, 3, 4))
        self._add("reshape", shape=(1, 2 * half, size, size))


#: Number of operators of each block.
_BLOCKS: tuple[tuple[int, Callable[[_Maker], None]], ...] = (
    (1, _Maker._single),
    (3, _Maker._plain),
    (7, _Maker._residual),
    (9, _Maker._inverted),
    (10, _Maker._branches),
    (6, _Maker._squeeze_excite),
    (6, _Maker._hswish),
    (8, _Maker._shuffle),
)
