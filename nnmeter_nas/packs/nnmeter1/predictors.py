"""Kernel predictors of nn-Meter 1.0: a random forest for each kernel type, and its features.

A forest reads a feature map as the side ``h`` of a square, a window as ``k`` of ``k x k``, and a stride as
one number. The side of a map that is not square is the square root of its area. So the work (``flops``) and
weights (``params``), which forests also read, are the true ones. For square maps the features are nn-Meter's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...graph.shapes import Shape
from ...kernels.fusion import Kernel
from ..latency import UNPREDICTED, KernelLatency
from .forest import Forest

FeatureRow = list[float]

#: Forest of a kernel type, where their names differ.
_FOREST_OF_TYPE = {
    "fc-relu": "fc",
    "gap": "global-avgpool",
    "se-relu": "se",
    "bn-relu": "bnrelu",
    "add-relu": "addrelu",
}
#: Forest of all kernels that start with an operator, for any operators that joined it.
_FOREST_OF_HEAD = {"conv": "conv-bn-relu", "dwconv": "dwconv-bn-relu"}
#: Number of branches of a concatenation that its forest sees.
_CONCAT_BRANCHES = 4


class ForestPredictors:
    """The kernel predictors of an nn-Meter 1.0 pack.

    Args:
        forests: by file name in nn-Meter, such as ``conv-bn-relu`` and ``global-avgpool``.
    """

    def __init__(self, forests: Mapping[str, Forest]) -> None:
        self._forests = forests

    def covers(self, kernel: Kernel) -> bool:
        """Whether a forest predicts ``kernel``; without one, nn-Meter silently adds 0."""
        name = forest_name(kernel)
        return name in FEATURES and name in self._forests

    def latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel.

        All count as measured: a forest does not know its training range.
        """
        found = [UNPREDICTED] * len(kernels)
        positions: dict[str, list[int]] = {}
        for i, kernel in enumerate(kernels):
            if self.covers(kernel):
                positions.setdefault(forest_name(kernel), []).append(i)
        for name, where in positions.items():
            rows = np.array([FEATURES[name](kernels[i]) for i in where], dtype=float)
            distinct, back = np.unique(rows, axis=0, return_inverse=True)
            latency = self._forests[name].predict(distinct)[back.reshape(-1)]
            for i, ms in zip(where, latency.tolist(), strict=True):
                found[i] = KernelLatency(ms, "measured")
        return found


def forest_name(kernel: Kernel) -> str:
    """Name of the forest for ``kernel``, whether or not it exists."""
    if kernel.op == "fc" and math.prod(kernel.in_shapes[0][1:-1]) > 1:
        return "conv-bn-relu"
    return _FOREST_OF_HEAD.get(kernel.op) or _FOREST_OF_TYPE.get(kernel.type, kernel.type)


def _side(sizes: Sequence[int]) -> float:
    """Side of the square, or edge of the window, of the same area as ``sizes``."""
    return math.sqrt(math.prod(sizes))


def _conv(kernel: Kernel) -> FeatureRow:
    """``[h, cin, cout, k, stride, flops / 2e6, params / 1e6]``.

    A grouped convolution multiplies as much as a dense one over the channels of one group, so it gets the
    features of that. A dense layer over a map is a 1x1 convolution of it.
    """
    if kernel.op == "fc":
        *positions, channels = kernel.in_shapes[0][1:]
        window = stride = (1,) * len(positions)
        return _conv_row(positions, channels, kernel.attrs["out_features"], window, stride, channels)
    _, channels, *sizes = kernel.in_shapes[0]
    channels //= kernel.attrs.get("groups", 1)
    cout, window = kernel.attrs["out_channels"], kernel.attrs["kernel"]
    return _conv_row(sizes, channels, cout, window, _stride(kernel), channels)


def _dwconv(kernel: Kernel) -> FeatureRow:
    """As for a convolution, with weights for one channel."""
    _, channels, *sizes = kernel.in_shapes[0]
    cout, window = kernel.attrs["out_channels"], kernel.attrs["kernel"]
    return _conv_row(sizes, channels, cout, window, _stride(kernel), 1)


def _stride(kernel: Kernel) -> Sequence[int]:
    stride: Sequence[int] = kernel.attrs.get("stride") or (1,) * len(kernel.attrs["kernel"])
    return stride


def _conv_row(
    sizes: Sequence[int], cin: int, cout: int, window: Sequence[int], stride: Sequence[int], depth: int
) -> FeatureRow:
    """Features of a convolution whose weights reach ``depth`` channels deep.

    The formulas are nn-Meter's: biases count as weights, and a map whose size the stride does not divide is
    not rounded up.
    """
    params = cout * (math.prod(window) * depth + 1)
    positions = 2.0
    for size, step in zip(sizes, stride, strict=True):
        positions = positions * size / step
    return [_side(sizes), cin, cout, _side(window), _side(stride), positions * params / 2e6, params / 1e6]


def _fc(kernel: Kernel) -> FeatureRow:
    """``[cin, cout, flop / 2e6, flop / 1e6]``."""
    cin, cout = kernel.in_shapes[0][-1], kernel.attrs["out_features"]
    flop = (2 * cin + 1) * cout
    return [cin, cout, flop / 2e6, flop / 1e6]


def _pool(kernel: Kernel) -> FeatureRow:
    """``[h, cin, cout, k, stride]``."""
    h, channels = _map(kernel.in_shapes[0])
    return [h, channels, channels, _side(kernel.attrs["kernel"]), _side(_stride(kernel))]


def _global_pool(kernel: Kernel) -> FeatureRow:
    """``[1, cin]``: nn-Meter never finds the side and uses 1, and totals must equal nn-Meter's."""
    return [1, _map(kernel.in_shapes[0])[1]]


def _elementwise(kernel: Kernel) -> FeatureRow:
    """``[h, cin]``."""
    return _map(kernel.in_shapes[0])


def _add(kernel: Kernel) -> FeatureRow:
    """``[h, cin1, cin2]`` of the operands, which are broadcast to the shape of the sum."""
    h, channels = _map(kernel.out_shapes[0])
    return [h, channels, channels]


def _concat(kernel: Kernel) -> FeatureRow:
    """``[h, n, c1, c2, c3, c4]``; above four branches ``n`` is 6, as in nn-Meter."""
    channels = [_map(shape)[1] for shape in kernel.in_shapes]
    known = [*channels, *[0.0] * _CONCAT_BRANCHES][:_CONCAT_BRANCHES]
    count = len(channels) if len(channels) <= _CONCAT_BRANCHES else 6
    return [_map(kernel.in_shapes[0])[0], count, *known]


def _map(shape: Shape) -> FeatureRow:
    """Side and channels of a tensor; without a map the side is 1."""
    return [_side(shape[2:]), shape[1] if len(shape) > 1 else 1]


#: Features by forest, in nn-Meter's order.
FEATURES: dict[str, Callable[[Kernel], FeatureRow]] = {
    "conv-bn-relu": _conv,
    "dwconv-bn-relu": _dwconv,
    "fc": _fc,
    "maxpool": _pool,
    "avgpool": _pool,
    "global-avgpool": _global_pool,
    "channelshuffle": _elementwise,
    "split": _elementwise,
    "se": _elementwise,
    "hswish": _elementwise,
    "bn": _elementwise,
    "relu": _elementwise,
    "bnrelu": _elementwise,
    "add": _add,
    "addrelu": _add,
    "concat": _concat,
}
