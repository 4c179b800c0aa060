"""Networks of blocks as in ``spelt_networks``, spelled as TensorFlow and Keras do: channels last."""

# ruff: noqa: E501 - a spelling stands on one line, however long it is

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tensorboard.compat.proto import graph_pb2

from nnmeter_nas.graph.rewrites import gelu, hswish, mish, sigmoid, swish
from tf_graphs import TfBuilder

#: Squeeze-excite: a gate of the second layer, and an activation of the first.
_GATES = (
    ("x * sigmoid({})", "relu({})"),
    ("x * (relu6({} + 3) / 6)", "relu6({})"),
    ("x * relu6({} + 3) / 6", "leaky_relu({})"),
    ("(relu6({} + 3) * 0.16667) * x", "elu({})"),
    ("x / (1 + exp(-{}))", "relu(bn4({}))"),
    ("x * sigmoid(bn({}))", "tanh({})"),
    ("x * (tanh({}) + 1) / 2", "{}"),
)
#: Global average pools.
_POOLS = (
    "mean(x, [1, 2], True)",
    "reshape(mean(x, [1, 2]), [-1, 1, 1, 8])",
    "avg_pool(x, 8, 8, 'VALID')",
    "mean(mean(x, [2], True), [1], True)",
    "sum(x, [1, 2], True) / 64",
    "expand_dims(expand_dims(sum(sum(x, [1]), [1]), 1), 1) / 64",
)
#: By block, spellings of ``x``, a map of 8 x 8 with 8 channels.
BLOCKS: dict[str, list[str]] = {
    op: [formula for formula in formulas if "clip" not in formula and "hsigmoid" not in formula]
    for module in (gelu, hswish, mish, sigmoid, swish)
    for op, formulas in module.SPELLINGS.items()
    if op != "softplus"
} | {
    "softplus": ["softplus(x)", *mish.SPELLINGS["softplus"]],
    "hsigmoid": ["relu6(x + 3) / 6", "clip(x / 6 + 0.5, 0., 1.)", "minimum(maximum(0.2 * x + 0.5, 0.), 1.)", "relu6(3 + x) * 0.16667"],
    "relu6": ["relu6(x)", "minimum(relu(x), 6.)", "clip(x, 0., 6.)", "maximum(minimum(x, 6.), 0.)"],
    "leaky relu": ["leaky_relu(x)", "maximum(0.2 * x, x)", "maximum(x, x * 0.2)"],
    "square": ["x * x + exp(x)", "x ** 2 + exp(x)", "square(x) + exp(x)"],
    "gate": ["x * max(x, [1, 2], True)", "max(x, [1, 2], True) * x"],
    "nothing": ["conv(x)", "conv(x + 0)", "conv(1 * x)", "conv(transpose(transpose(x, [0, 2, 3, 1]), [0, 3, 1, 2]))",
                "conv(reshape(reshape(x, [1, 64, 8]), [-1, 8, 8, 8]))", "conv(identity(x) / 1)"],
    "scaled": ["x * 0.25 + exp(x)", "x / 4 + exp(x)"],
    "sum": ["x + exp(x)", "addn([x, exp(x)])", "sum(stack([x, exp(x)], 0), [0])"],
    "sum of three": ["x + exp(x) + tanh(x)", "addn([x, exp(x), tanh(x)])", "sum(stack([x, exp(x), tanh(x)], -1), [-1])"],
    "average of two": ["(x + exp(x)) / 2", "mean(stack([x, exp(x)], 0), [0])", "addn([x, exp(x)]) * 0.5"],
    "bias": ["conv(x)", "plain(x) + vector", "conv(x) + vector"],
    "batch norm": ["bn(plain(x))", "plain(x) * vector + vector", "(plain(x) - vector) * vector + vector",
                   "bn(plain(x)) * vector"],
    "scale": ["bn(relu(x))", "relu(x) * vector + vector"],
    "padding": ["conv(x)", "valid(pad(x))"],
    "average": ["avg_pool(pad(x), 3, 1, 'VALID')"],
    "largest": ["max_pool(pad(relu(x)), 3, 1, 'VALID')"],
    "pool": [f"x * {pool}" for pool in _POOLS],
    "shuffle": ["reshape(transpose(reshape(x, [1, 8, 8, 2, 4]), [0, 1, 2, 4, 3]), [1, 8, 8, 8])",
                "concat([every(x, 4, 0), every(x, 4, 1), every(x, 4, 2), every(x, 4, 3)])"],
    "join": ["wide(concat([x, exp(x), x]))", "wide(concat([concat([x, exp(x)]), x]))"],
    "pixel shuffle": ["shrink(depth_to_space(x))"],
    "pixel unshuffle": ["depth_to_space(keep(space_to_depth(x)))"],
    "se": [
        gate.format(f"up({act.format(f'down({pool})')})")
        for (gate, act), pool in zip(_GATES, itertools.cycle(_POOLS), strict=False)
    ] + [
        f"x * reshape({gate}, [-1, 1, 1, 8])"
        for gate in ("sigmoid(widen(relu(narrow(mean(x, [1, 2])))))", "relu6(widen(relu6(narrow(sum(x, [1, 2]) / 64))) + 3) / 6")
    ],
}  # fmt: skip
#: Operators of one tensor, by what spellings call them.
_UNARY = {
    "relu6": "Relu6", "relu": "Relu", "exp": "Exp", "log": "Log", "log1p": "Log1p", "tanh": "Tanh",
    "sigmoid": "Sigmoid", "softplus": "Softplus", "erf": "Erf", "erfc": "Erfc", "elu": "Elu",
    "leaky_relu": "LeakyRelu", "identity": "Identity", "square": "Square",
}  # fmt: skip


class _Tensor:
    """An output of a graph that is being built; arithmetic with it adds nodes."""

    def __init__(self, builder: TfBuilder, name: str) -> None:
        self._builder, self._name = builder, name

    def to(self, op: str, *others: Any, **attrs: Any) -> _Tensor:
        """Add ``op`` of this tensor and ``others``, which are tensors, or values of constants."""
        return self._add(op, [self, *others], attrs)

    def _add(self, op: str, operands: Sequence[Any], attrs: Any = None) -> _Tensor:
        name = f"{op}_{len(self._builder.graph_def.node)}"
        names = [
            operand._name if isinstance(operand, _Tensor) else self._builder.const(f"{name}/{i}", operand)
            for i, operand in enumerate(operands)
        ]
        return _Tensor(self._builder, self._builder.add(name, op, names, **(attrs or {})))

    def weights(self, *shape: int) -> _Tensor:
        """Add weights of ``shape`` to the graph of this tensor."""
        name = f"weights_{len(self._builder.graph_def.node)}"
        return _Tensor(self._builder, self._builder.weights(name, *shape))

    def conv(self, *weights: int, stride: int = 1, padding: str = "SAME", biased: bool = True) -> _Tensor:
        """A convolution with weights ``(*kernel, in, out)``."""
        strides = [1, stride, stride, 1]
        out = self.to("Conv2D", self.weights(*weights), strides=strides, padding=padding)
        return out.to("BiasAdd", self.weights(weights[-1])) if biased else out

    def dense(self, *weights: int) -> _Tensor:
        """A dense layer with weights ``(in, out)``."""
        return self.to("MatMul", self.weights(*weights)).to("BiasAdd", self.weights(weights[-1]))

    def bn(self, channels: int) -> _Tensor:
        """A batch norm."""
        return self.to("FusedBatchNormV3", *(self.weights(channels) for _ in range(4)), is_training=False)

    def pool(self, op: str, size: int, stride: int, padding: str) -> _Tensor:
        """A pool with square windows."""
        return self.to(op, ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding=padding)

    def every(self, step: int, first: int) -> _Tensor:
        """One of ``step`` channels, from the ``first`` on."""
        bounds = [0, 0, 0, first], [0, 0, 0, 0], [1, 1, 1, step]
        return self.to("StridedSlice", *bounds, begin_mask=7, end_mask=15)

    def _with(self, op: str, *operands: Any) -> _Tensor:
        return self._add(op, [o if isinstance(o, _Tensor) else float(o) for o in operands])

    def __add__(self, other: Any) -> _Tensor:
        return self._with("AddV2", self, other)

    def __radd__(self, other: Any) -> _Tensor:
        return self._with("AddV2", other, self)

    def __sub__(self, other: Any) -> _Tensor:
        return self._with("Sub", self, other)

    def __mul__(self, other: Any) -> _Tensor:
        return self._with("Mul", self, other)

    def __rmul__(self, other: Any) -> _Tensor:
        return self._with("Mul", other, self)

    def __truediv__(self, other: Any) -> _Tensor:
        return self._with("RealDiv", self, other)

    def __rtruediv__(self, other: Any) -> _Tensor:
        return self._with("RealDiv", other, self)

    def __pow__(self, power: int) -> _Tensor:
        return self._with("Pow", self, power)

    def __neg__(self) -> _Tensor:
        return self._with("Neg", self)


def _reduced(op: str) -> Any:
    return lambda x, axes, keep=False: x.to(op, axes, keep_dims=keep)


#: What spellings call.
_NAMES: dict[str, Any] = {name: lambda x, op=op: x.to(op) for name, op in _UNARY.items()} | {
    "conv": lambda x: x.conv(3, 3, 8, 8),
    "valid": lambda x: x.conv(3, 3, 8, 8, padding="VALID"),
    "plain": lambda x: x.conv(3, 3, 8, 8, biased=False),
    "wide": lambda x: x.conv(1, 1, 24, 8),
    "down": lambda x: x.conv(1, 1, 8, 4),
    "up": lambda x: x.conv(1, 1, 4, 8),
    "shrink": lambda x: x.conv(2, 2, 2, 8, stride=2),
    "keep": lambda x: x.conv(1, 1, 32, 32),
    "narrow": lambda x: x.dense(8, 4),
    "widen": lambda x: x.dense(4, 8),
    "bn": lambda x: x.bn(8),
    "bn4": lambda x: x.bn(4),
    "avg_pool": lambda x, *window: x.pool("AvgPool", *window),
    "max_pool": lambda x, *window: x.pool("MaxPool", *window),
    "pad": lambda x: x.to("Pad", [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "mean": _reduced("Mean"),
    "sum": _reduced("Sum"),
    "max": _reduced("Max"),
    "maximum": lambda x, low: x.to("Maximum", low),
    "minimum": lambda x, high: x.to("Minimum", high),
    "clip": lambda x, low, high: x.to("ClipByValue", low, high),
    "reshape": lambda x, shape: x.to("Reshape", shape),
    "transpose": lambda x, perm: x.to("Transpose", perm),
    "expand_dims": lambda x, axis: x.to("ExpandDims", axis),
    "every": _Tensor.every,
    "concat": lambda tensors: tensors[0].to("ConcatV2", *tensors[1:], -1),
    "stack": lambda tensors, axis: tensors[0].to("Pack", *tensors[1:], axis=axis),
    "addn": lambda tensors: tensors[0].to("AddN", *tensors[1:]),
    "depth_to_space": lambda x: x.to("DepthToSpace", block_size=2),
    "space_to_depth": lambda x: x.to("SpaceToDepth", block_size=2),
}


def tf_network(chosen: Sequence[tuple[str, int]]) -> graph_pb2.GraphDef:
    """A network of ``(block, spelling)``, one after the other, with a convolution and a relu before each."""
    builder = TfBuilder((1, 8, 8, 8))
    x = _Tensor(builder, "input")
    for block, spelling in chosen:
        for line in ("relu(conv(x))", BLOCKS[block][spelling]):
            x = eval(line, {**_NAMES, "x": x, "vector": x.weights(8)})
    return builder.graph_def
