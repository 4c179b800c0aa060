"""Translate each TensorFlow operator to operators of the model graph.

:mod:`nnmeter_nas.ops` declares the operators. This module has entries only for operators whose attributes
TensorFlow spells in its own way, and for those that become several operators. An entry takes the
:class:`TfCall`, adds its operators to the model graph and returns one :class:`TfValue` per output. It returns
None if this use has no canonical form; the call then stays a node with TensorFlow's name. Entries work in
TensorFlow's axes and convert attributes to those of the model graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from ...errors import ReaderError, ShapeError
from ...graph.editing import Operand
from ...graph.model_graph import add_op
from ...graph.shapes import infer_operator
from ...ops import NAMES, OPERATORS, Shape, axis_of, broadcast, window_out
from ..entries import fills
from ..nhwc import MAP_RANK, to_nchw
from ..products import Factor, NoProductError, einsum
from .constants import MAX_ELEMENTS, SLICE_MASKS, Values, whole
from .nodes import TfNode

Translation = Callable[["TfCall"], "list[TfValue] | None"]

TRANSLATIONS: dict[str, Translation] = {}
tensorflow = fills(TRANSLATIONS)

#: A limit on pieces: no network cuts a tensor into this many.
_MAX_PIECES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class TfValue:
    """A value between operators of the GraphDef.

    Attributes:
        shape: in TensorFlow's order; None for a constant whose shape no rule knows.
        order: for each axis of the model graph's tensor, the axis of ``shape`` that it is.
        operand: its producer in the model graph; None for a constant that nothing there has needed yet.
        constant: whether it is the same for every input.
        value: values of a small constant.
    """

    shape: Shape | None
    order: Shape = ()
    operand: Operand | None = None
    constant: bool = False
    value: Values | None = None

    @property
    def sizes(self) -> Shape:
        """``shape``, which must be known."""
        assert self.shape is not None
        return self.shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.sizes)

    def axis(self, axis: int) -> int:
        """``axis`` counted from the front; a ShapeError if there is none."""
        return axis_of(axis, self.rank)

    def depends_on_data(self) -> bool:
        """Whether the model graph computes it from the input."""
        return self.operand is not None and not self.constant


def known(value: Values) -> TfValue:
    """The tensor of a constant whose ``value`` is known."""
    return TfValue(value.shape, tuple(range(value.ndim)), constant=True, value=value)


def layout(rank: int, channels_first: bool) -> Shape:
    """The axis order of a tensor of ``rank`` in the model graph: channels are the second axis there.

    >>> layout(4, False), layout(5, False), layout(4, True), layout(2, False)
    ((0, 3, 1, 2), (0, 3, 4, 1, 2), (0, 1, 2, 3), (0, 1))
    """
    return tuple(range(rank)) if channels_first else to_nchw(range(rank))


def _permuted(shape: Shape, order: Shape) -> Shape:
    return tuple(shape[axis] for axis in order)


@dataclass(slots=True)
class TfCall:
    """One operator of a GraphDef with its operands.

    Attributes:
        graph: the model graph under construction.
        node: the operator.
        inputs: its operands; their shapes are known.
        channels_first: whether the GraphDef computes in NCHW somewhere, so that transpositions to and from it
            are a matter of layout.
        fresh: returns an unused name that starts with the given one.
    """

    graph: nx.DiGraph
    node: TfNode
    inputs: list[TfValue]
    channels_first: bool
    fresh: Callable[[str], str]

    def values(self, index: int) -> list[int]:
        """The whole numbers in operand ``index``.

        Raises:
            ReaderError: they depend on the input, or are unknown.
        """
        value = self.inputs[index].value
        if value is None or value.dtype.kind not in "iu":
            raise ReaderError(f"its operand {index} must be constant whole numbers")
        return list(whole(value))

    def computed(self) -> list[TfValue]:
        """The operands that depend on the input, or all operands if none does."""
        return [t for t in self.inputs if not t.constant] or self.inputs

    def is_channels_first(self) -> bool:
        """Whether ``data_format`` puts channels first; the default does not."""
        return self.node.text("data_format", "NHWC").startswith("NC")

    def order(self, rank: int, like: TfValue) -> Shape:
        """Axis order of a tensor of ``rank`` made from ``like``: that of a feature map, else the graph's."""
        if like.rank >= MAP_RANK:
            return layout(rank, like.order == tuple(range(like.rank)))
        return layout(rank, self.channels_first)

    def emit(
        self,
        op: str,
        inputs: Sequence[TfValue],
        attrs: Mapping[str, Any],
        order: Shape,
        declared: Sequence[Shape] | None = None,
    ) -> list[TfValue]:
        """Add an operator whose outputs the model graph keeps in ``order``.

        ``attrs`` are in the model graph's axes, ``declared`` shapes in TensorFlow's. The first operator of a
        call takes its name.

        Raises:
            GraphError, ShapeError: the operands do not fit, or the result is larger than any tensor.
        """
        shapes = None if declared is None else [_permuted(shape, order) for shape in declared]
        name = self.add(op, [self._operand(t) for t in inputs], attrs, shapes)
        back = np.argsort(order)
        return [
            TfValue(_permuted(shape, tuple(back)), order, (name, slot), all(t.constant for t in self.inputs))
            for slot, shape in enumerate(self.graph.nodes[name]["out_shapes"])
        ]

    def add(
        self, op: str, inputs: Sequence[Operand], attrs: Mapping[str, Any], declared: Any = None
    ) -> str:
        """Add an operator in the terms of the model graph; return its name. Errors as :meth:`emit`."""
        name = self.node.name if self.node.name not in self.graph else self.fresh(f"{self.node.name}/{op}")
        add_op(self.graph, name, op, inputs, attrs, declared)
        infer_operator(self.graph, name)
        if any(math.prod(shape) > MAX_ELEMENTS for shape in self.graph.nodes[name]["out_shapes"]):
            raise ShapeError(f"its output {self.graph.nodes[name]['out_shapes']} is larger than any tensor")
        return name

    def as_listed(self, tensor: TfValue) -> TfValue:
        """``tensor`` with its axes in the model graph in TensorFlow's order."""
        return self.arranged(tensor, tuple(range(tensor.rank)))

    def value_of(self, operand: Operand) -> TfValue:
        """The tensor of an operator whose axes are in TensorFlow's order."""
        shape = self.graph.nodes[operand[0]]["out_shapes"][operand[1]]
        return TfValue(shape, tuple(range(len(shape))), operand)

    def layer(self, op: str, **attrs: Any) -> list[TfValue]:
        """Add one operator over the first operand; it keeps the order of the axes."""
        return self.emit(op, self.inputs[:1], attrs, self.inputs[0].order)

    def opaque(self, *shapes: Shape) -> list[TfValue]:
        """An operator without canonical form, under its own name, with outputs of ``shapes`` of one rank."""
        op = self.node.op.lower()
        op = f"tf_{op}" if op in OPERATORS else op
        sources = self.computed()
        return self.emit(op, sources, {}, self.order(len(shapes[0]), sources[0]), shapes)

    def arranged(self, tensor: TfValue, order: Shape, shape: Shape | None = None) -> TfValue:
        """``tensor`` seen as ``shape`` (its own if None) and kept in ``order``: a view, so at no cost."""
        target = tensor.sizes if shape is None else shape
        if math.prod(target) != math.prod(tensor.sizes):
            raise ShapeError(f"cannot reshape {tensor.shape} to {target}")
        if tensor.operand is None or _permuted(target, order) == _permuted(tensor.sizes, tensor.order):
            value = None if tensor.value is None else tensor.value.reshape(target)
            return replace(tensor, shape=target, order=order, value=value)
        name = self.fresh(f"{self.node.name}/view")
        add_op(self.graph, name, "reshape", [tensor.operand], {"shape": _permuted(target, order)})
        infer_operator(self.graph, name)
        return replace(tensor, shape=target, order=order, operand=(name, 0))

    def _operand(self, tensor: TfValue) -> Operand:
        """The operand for ``tensor`` in the model graph."""
        if tensor.operand is not None:
            return tensor.operand
        zero = tensor.value is not None and tensor.value.dtype.kind in "bif" and not tensor.value.any()
        name = self.fresh(f"{self.node.name}/constant")
        shape = _permuted(tensor.sizes, tensor.order)
        add_op(self.graph, name, "zero" if zero else "constant", [], {"shape": shape})
        infer_operator(self.graph, name)
        return name, 0


def is_known(op: str) -> bool:
    """Whether this module knows TensorFlow's ``op``."""
    return op in TRANSLATIONS or op in NAMES["tensorflow"]


def translate(call: TfCall) -> list[TfValue] | None:
    """Add ``call`` to its model graph; return one tensor per output, or None if it has no canonical form.

    Raises:
        GraphError, ShapeError: it contradicts its operands.
    """
    return TRANSLATIONS.get(call.node.op, _as_declared)(call)


def _canonical(call: TfCall) -> str:
    """Canonical name of the operator."""
    return NAMES["tensorflow"][call.node.op].name


def _as_declared(call: TfCall) -> list[TfValue] | None:
    """An operator whose attributes need no translation."""
    operator = NAMES["tensorflow"].get(call.node.op)
    if operator is None or operator.attrs is None:
        return None
    if operator.operands is None:
        return _combined(call, operator.name, call.inputs)
    attrs = {key: call.node.plain(key) for key in operator.attrs if key in call.node.attr}
    return call.emit(operator.name, call.inputs[: operator.operands], attrs, call.inputs[0].order)


@tensorflow("Identity", "IdentityN", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot",
            "EnsureShape", "PlaceholderWithDefault", "Print")  # fmt: skip
def _identity(call: TfCall) -> list[TfValue]:
    return call.inputs if call.node.op == "IdentityN" else call.inputs[:1]


@tensorflow(*OPERATORS["quantize"].tensorflow)
def _quantize(call: TfCall) -> list[TfValue]:
    """A change to or from integers; of weights, the weights. Further outputs are the limits of the range."""
    changed = call.inputs[:1] if call.inputs[0].constant else call.layer("quantize")
    return changed + _limits()


def _limits() -> list[TfValue]:
    """The least and the greatest value of a quantised tensor: two numbers, not layers."""
    return [TfValue((), constant=True)] * 2


@tensorflow("RequantizationRange")
def _range(call: TfCall) -> list[TfValue]:
    return _limits()


#: Integer operator -> number of its operands besides their limits. What follows "Quantized" in its name is
#: the float operator.
_INTEGER_FORMS = {"QuantizedConv2D": 2, "QuantizedMatMul": 2, "QuantizedBiasAdd": 2, "QuantizedRelu": 1,
                  "QuantizedRelu6": 1, "QuantizedMaxPool": 1, "QuantizedAvgPool": 1}  # fmt: skip


@tensorflow(*_INTEGER_FORMS)
def _integer_form(call: TfCall) -> list[TfValue] | None:
    """The float operator that an integer one stands for."""
    node = replace(call.node, op=call.node.op.removeprefix("Quantized"))
    plain = replace(call, node=node, inputs=call.inputs[: _INTEGER_FORMS[call.node.op]])
    outputs = TRANSLATIONS.get(node.op, _as_declared)(plain)
    if outputs is None:
        return None
    return call.emit("quantize", outputs, {}, outputs[0].order) + _limits()


@tensorflow("Cast")
def _cast(call: TfCall) -> list[TfValue]:
    """A cast; nothing if the type stays the same."""
    same = call.node.value("SrcT", "type") == call.node.value("DstT", "type")
    return call.inputs[:1] if same else call.layer("cast")


@tensorflow("NoOp", "Assert")
def _nothing(call: TfCall) -> list[TfValue]:
    return []


# Windows


def _window(call: TfCall, key: str, default: int | None = None) -> Shape:
    """The spatial part of a list with one entry per axis; the other entries must be 1."""
    rank = call.inputs[0].rank
    values = call.node.integers(key) or ([] if default is None else [default] * rank)
    return _spatial(call, key, values)


def _spatial(call: TfCall, key: str, values: list[int]) -> Shape:
    rank = call.inputs[0].rank
    axes = range(2, rank) if call.is_channels_first() else range(1, rank - 1)
    if len(values) != rank or any(values[i] != 1 for i in range(rank) if i not in axes):
        raise ReaderError(
            f"{key}={values} does not slide over the map of its input {call.inputs[0].shape} alone"
        )
    return tuple(values[i] for i in axes)


def _padding(call: TfCall) -> Any:
    """``padding`` as the model graph spells it."""
    padding, rank = call.node.text("padding"), call.inputs[0].rank
    if padding in ("SAME", "VALID"):
        return padding.lower()
    pads = call.node.integers("explicit_paddings")
    if padding != "EXPLICIT" or len(pads) != 2 * rank:
        raise ReaderError(f"padding={padding!r} with explicit_paddings={pads} is not SAME, VALID or EXPLICIT")
    axes = range(2, rank) if call.is_channels_first() else range(1, rank - 1)
    return [(pads[2 * i], pads[2 * i + 1]) for i in axes]


def _map(call: TfCall) -> TfValue:
    """The first operand as a feature map of the call's ``data_format``: NCHW in the model graph."""
    tensor = call.inputs[0]
    if tensor.rank < 3:
        raise ShapeError(f"its input of shape {tensor.shape} is no feature map")
    channels = 1 if call.is_channels_first() else tensor.rank - 1
    return call.arranged(tensor, (0, channels, *(i for i in range(1, tensor.rank) if i != channels)))


def _weights(call: TfCall) -> Shape | None:
    """Shape of the weights, or None if they alone are computed."""
    weights = call.inputs[1]
    if call.inputs[0].constant and not weights.constant:
        return None
    if weights.rank != call.inputs[0].rank:
        raise ShapeError(f"its weights of shape {weights.shape} do not fit its input {call.inputs[0].shape}")
    return weights.sizes


@tensorflow("Conv2D", "Conv3D", "_FusedConv2D")
def _conv(call: TfCall) -> list[TfValue] | None:
    """Weights are ``(*kernel, in / groups, out)``."""
    weights, source = _weights(call), _map(call)
    if weights is None:
        return None
    *kernel, channels, out_channels = weights
    in_channels = _permuted(source.sizes, source.order)[1]
    if not channels or in_channels % channels:
        raise ShapeError(f"its weights take {channels} channels, its input has {in_channels}")
    return _convolved(call, source, kernel, in_channels // channels, out_channels)


@tensorflow("DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative")
def _depthwise(call: TfCall) -> list[TfValue] | None:
    """Weights are ``(*kernel, in, multiplier)``."""
    weights, source = _weights(call), _map(call)
    if weights is None:
        return None
    *kernel, channels, multiplier = weights
    if _permuted(source.sizes, source.order)[1] != channels:
        raise ShapeError(f"its weights take {channels} channels, its input is {source.shape}")
    return _convolved(call, source, kernel, channels, channels * multiplier)


def _convolved(
    call: TfCall, source: TfValue, kernel: list[int], groups: int, out_channels: int
) -> list[TfValue]:
    attrs = {
        "kernel": tuple(kernel),
        "stride": _window(call, "strides"),
        "dilation": _window(call, "dilations", 1),
        "padding": _padding(call),
        "groups": groups,
        "in_channels": _permuted(source.sizes, source.order)[1],
        "out_channels": out_channels,
    }
    if call.inputs[1].constant:
        return _with_fused(call, call.emit("conv", [source], attrs, source.order))
    shape = (out_channels, attrs["in_channels"] // groups, *kernel)
    dynamic = {key: attrs[key] for key in ("stride", "dilation", "padding", "groups")}
    # Which of its axes come first changes nothing of the work.
    weights = call.arranged(call.as_listed(call.inputs[1]), tuple(range(len(shape))), shape)
    return _with_fused(call, call.emit("dynamicconv", [source, weights], dynamic, source.order))


_FUSED = {"BiasAdd": None, "FusedBatchNorm": "bn", "Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leakyrelu",
          "Elu": "elu", "Tanh": "tanh", "Sigmoid": "sigmoid"}  # fmt: skip


def _with_fused(call: TfCall, outputs: list[TfValue]) -> list[TfValue]:
    """Turn what TensorFlow's optimiser fused after a layer into operators again."""
    fused = call.node.value("fused_ops", "list")
    for name in [] if fused is None else fused.s:
        op = _FUSED.get(bytes(name).decode("utf-8", "replace"), "")
        if op == "":
            raise ReaderError(f"fused_ops names {name!r}, of which nothing is known")
        if op is not None:
            outputs = call.emit(op, outputs, {}, outputs[0].order)
        elif operand := outputs[0].operand:
            call.graph.nodes[operand[0]]["attrs"]["bias"] = True
    return outputs


@tensorflow("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput")
def _conv_transpose(call: TfCall) -> list[TfValue] | None:
    """Weights are ``(*kernel, out, in)``; the padding follows from the output's shape, an operand."""
    if not call.inputs[1].constant:
        return None
    wanted, weights = call.values(0), call.inputs[1].sizes
    rank = len(wanted)
    sized = replace(call, inputs=[call.inputs[2], *call.inputs[:2]])
    source = _map(sized)
    if not rank == len(weights) == source.rank:
        raise ShapeError(f"weights {weights}, input {source.shape} and output {wanted} differ in rank")
    depthwise = call.node.op.startswith("Depthwise")
    *kernel, out_channels, in_channels = weights
    if depthwise:
        in_channels, out_channels = math.prod(weights[-2:]), weights[-2]
    stride, dilation = _window(sized, "strides"), _window(sized, "dilations", 1)
    spatial = [wanted[axis] for axis in source.order[2:]]
    sizes = _permuted(source.sizes, source.order)[2:]
    padding, extra = [], []
    for i, size in enumerate(spatial):
        if window_out(size, kernel[i], stride[i], _padding(sized), i, dilation[i]) != sizes[i]:
            raise ShapeError(f"an output of {wanted} does not fit its input of shape {source.shape}")
        missing = size - (sizes[i] - 1) * stride[i] - dilation[i] * (kernel[i] - 1) - 1
        cut = max(-missing, 0)
        padding.append((cut // 2, cut - cut // 2))
        extra.append(max(missing, 0))
    attrs = {
        "kernel": tuple(kernel),
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "output_padding": tuple(extra),
        "groups": out_channels if depthwise else 1,
        "in_channels": in_channels,
        "out_channels": out_channels,
    }
    return call.emit("convtranspose", [source], attrs, source.order)


@tensorflow("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "MaxPoolWithArgmax")
def _pool(call: TfCall) -> list[TfValue]:
    pooled = _pooled(call, _window(call, "ksize"), _window(call, "strides"))
    return pooled * 2 if call.node.op == "MaxPoolWithArgmax" else pooled


@tensorflow("MaxPoolV2")
def _pool_by_operands(call: TfCall) -> list[TfValue]:
    """A pool whose kernel and stride are operands."""
    return _pooled(call, _spatial(call, "ksize", call.values(1)), _spatial(call, "strides", call.values(2)))


def _pooled(call: TfCall, kernel: Shape, stride: Shape) -> list[TfValue]:
    source = _map(call)
    op = "avgpool" if call.node.op.startswith("Avg") else "maxpool"
    return call.emit(
        op, [source], {"kernel": kernel, "stride": stride, "padding": _padding(call)}, source.order
    )


@tensorflow("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "BatchNormWithGlobalNormalization")
def _batch_norm(call: TfCall) -> list[TfValue]:
    """A batch norm. The outputs after the first, its statistics, no longer change with the input."""
    source = _map(call)
    [normalised] = call.emit("bn", [source], {}, source.order)
    return [normalised, *[TfValue((source.sizes[source.order[1]],), (0,), constant=True)] * 5]


@tensorflow("BiasAdd", "BiasAddV1")
def _bias(call: TfCall) -> list[TfValue] | None:
    """A sum with a vector along the channels."""
    source, bias = call.inputs
    if bias.rank != 1:
        raise ShapeError(f"its bias of shape {bias.shape} is no vector")
    if call.is_channels_first() and source.rank > 2:
        bias = call.arranged(bias, tuple(range(source.rank - 1)), (*bias.sizes, *[1] * (source.rank - 2)))
    return _combined(call, "add", [source, replace(bias, value=None)])


# Element-wise



def _combined(call: TfCall, op: str, tensors: list[TfValue]) -> list[TfValue]:
    """``op`` over ``tensors``, aligned at their last axes; constants become attributes."""
    live = [t for t in tensors if not t.constant] or tensors
    rank = max(t.rank for t in tensors)
    order = next((t.order for t in live if t.rank == rank), layout(rank, call.channels_first))
    attrs: dict[str, Any] = {}
    if op in ("sub", "div", "pow") and tensors[0] not in live:
        attrs["const_first"] = True
    for constant in (t for t in tensors if t not in live):
        shape = _aligned(constant.sizes, rank)
        if math.prod(shape) == 1 and constant.value is not None and constant.value.dtype.kind in "if":
            number = float(constant.value.item())
            attrs["const"] = number + attrs["const"] if "const" in attrs else number  # of an AddN
        else:
            attrs["const_shape"] = _permuted(shape, order)
    return call.emit(op, [call.arranged(t, order, _aligned(t.sizes, rank)) for t in live], attrs, order)


def _aligned(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


@tensorflow("ClipByValue")
def _clip(call: TfCall) -> list[TfValue]:
    """Clip to two limits; a limit that is not one number is left out."""
    limits = {key: t.value for key, t in zip(("min", "max"), call.inputs[1:], strict=True)}
    known_limits = {key: float(v.item()) for key, v in limits.items() if v is not None and v.size == 1}
    return call.layer("clip", **(known_limits if len(known_limits) == len(limits) else {}))


@tensorflow("Square")
def _square(call: TfCall) -> list[TfValue]:
    return call.layer("pow", const=2.0)


@tensorflow("Reciprocal", "Inv")
def _reciprocal(call: TfCall) -> list[TfValue]:
    return call.layer("div", const=1.0, const_first=True)


#: Functions of each value that have no canonical name.
_NAMELESS = (
    "Atan2", "Cumsum", "Erfc", "FloorDiv", "FloorMod", "IsFinite", "IsNan", "Mod", "OnesLike", "ReverseV2",
    "Roll", "Select", "SelectV2", "SquaredDifference", "TruncateDiv",
)  # fmt: skip


@tensorflow(*_NAMELESS)
def _broadcast(call: TfCall) -> list[TfValue]:
    """Broadcast operands, except where the others only say along which axis."""
    by_axis = call.node.op in ("Cumsum", "ReverseV2", "Roll")
    shapes = [call.inputs[0].sizes] if by_axis else [t.sizes for t in call.inputs]
    return call.opaque(broadcast(shapes))


# Reductions


@tensorflow("Mean", "Sum", "Max", "Min", "Prod")
def _reduction(call: TfCall) -> list[TfValue]:
    """Reduce constant axes."""
    source, axes, _, keep = _reduced(call)
    if not axes:
        return [source]
    order = source.order if keep else _order_without(source.order, axes)
    canonical = tuple(sorted(source.order.index(a) for a in axes))
    return call.emit(_canonical(call), [source], {"axes": canonical, "keepdims": keep}, order)


@tensorflow("All", "Any")
def _truth_reduction(call: TfCall) -> list[TfValue]:
    """Reductions without a canonical name."""
    return call.opaque(_reduced(call)[2])


@tensorflow("ArgMax", "ArgMin")
def _arg(call: TfCall) -> list[TfValue]:
    return call.opaque(_reduced(call)[2])


def _reduced(call: TfCall) -> tuple[TfValue, set[int], Shape, bool]:
    """The tensor to reduce, the axes, the output shape, and whether the axes stay as 1."""
    source, keep = call.inputs[0], call.node.flag("keep_dims")
    axes = {source.axis(a) for a in call.values(1)}
    sizes = enumerate(source.sizes)
    if keep:
        return source, axes, tuple(1 if i in axes else size for i, size in sizes), keep
    return source, axes, tuple(size for i, size in sizes if i not in axes), keep


def _order_without(order: Shape, axes: set[int]) -> Shape:
    """``order`` without the axes ``axes``.

    >>> _order_without((0, 3, 1, 2), {1})
    (0, 2, 1)
    """
    left = [axis for axis in order if axis not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


# Products of matrices


@tensorflow("MatMul", "_FusedMatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _matmul(call: TfCall) -> list[TfValue]:
    """A dense layer if the right operand is a matrix of weights, else a product of two operands."""
    flags = ("adj_x", "adj_y") if call.node.op.startswith("Batch") else ("transpose_a", "transpose_b")
    left, right = (
        _matrix(call, tensor, call.node.flag(flag)) for tensor, flag in zip(call.inputs, flags, strict=False)
    )
    if right.constant and not left.constant and right.rank == 2:
        return _with_fused(call, _dense(call, left, right.sizes))
    factors: list[TfValue] = [left, right]
    attrs: dict[str, Any] = {}
    if left.constant != right.constant:
        constant, computed = (left, right) if left.constant else (right, left)
        factors, attrs = [computed], {"const_shape": constant.sizes}
        if left.constant:
            attrs["const_first"] = True
    return _with_fused(call, call.emit("matmul", factors, attrs, tuple(range(max(left.rank, right.rank)))))


def _matrix(call: TfCall, tensor: TfValue, transposed: bool) -> TfValue:
    """``tensor`` with rows and columns last. A product reads its operands either way, so this is a view."""
    if tensor.rank < 2:
        raise ShapeError(f"its operand of shape {tensor.shape} is no matrix")
    *lead, rows, columns = tensor.sizes
    shape = (*lead, columns, rows) if transposed else tensor.sizes
    return call.arranged(call.as_listed(tensor), tuple(range(tensor.rank)), shape)


def _dense(call: TfCall, source: TfValue, weights: Shape) -> list[TfValue]:
    """A dense layer with ``(in, out)`` weights; the rows of a matrix are positions in one image."""
    in_features, out_features = weights
    rows = source.sizes[:-1]
    batched = (1, *rows) if rows[0] != 1 else rows
    image = call.arranged(source, tuple(range(len(batched) + 1)), (*batched, source.sizes[-1]))
    attrs = {"in_features": in_features, "out_features": out_features, "bias": False}
    [dense] = call.emit("fc", [image], attrs, image.order)
    return [call.arranged(dense, tuple(range(len(rows) + 1)), (*rows, out_features))]


@tensorflow("Einsum")
def _einsum(call: TfCall) -> list[TfValue] | None:
    """Dense layers, products and transposes."""
    if all(tensor.constant for tensor in call.inputs):
        return None
    factors = [Factor(None if t.constant else call.as_listed(t).operand, t.sizes) for t in call.inputs]
    try:
        done = einsum(lambda *operator: (call.add(*operator), 0), call.node.text("equation"), factors)
    except NoProductError:
        return None
    return [call.value_of(done)]


# Joining and cutting


@tensorflow("ConcatV2", "Concat")
def _concat(call: TfCall) -> list[TfValue]:
    """A concat; the axis is the last operand, or the first in the older operator."""
    index = len(call.inputs) - 1 if call.node.op == "ConcatV2" else 0
    pieces = [t for i, t in enumerate(call.inputs) if i != index]
    return _joined(call, pieces, pieces[0].axis(call.values(index)[0]))


def _joined(call: TfCall, pieces: list[TfValue], axis: int) -> list[TfValue]:
    if len(pieces) == 1:
        return pieces
    order = next((t.order for t in pieces if not t.constant), pieces[0].order)
    if any(t.rank != len(order) for t in pieces):
        raise ShapeError(f"operand shapes {[t.shape for t in pieces]} differ in rank")
    if all(t.operand is None for t in pieces):
        order = layout(len(order), call.channels_first)
    return call.emit("concat", [call.arranged(t, order) for t in pieces], {"axis": order.index(axis)}, order)


@tensorflow("Pack")
def _pack(call: TfCall) -> list[TfValue]:
    """Give each operand a new axis, and join them along it."""
    rank = call.inputs[0].rank + 1
    axis = axis_of(call.node.integer("axis"), rank)
    order = call.order(rank, call.computed()[0])
    pieces = [call.arranged(t, order, (*t.sizes[:axis], 1, *t.sizes[axis:])) for t in call.inputs]
    return _joined(call, pieces, axis)


@tensorflow("Split")
def _split(call: TfCall) -> list[TfValue]:
    """Equal parts."""
    return _cut(call, call.inputs[1], call.values(0)[0], call.node.integer("num_split", 1))


@tensorflow("SplitV")
def _split_by_sizes(call: TfCall) -> list[TfValue]:
    """Parts of given sizes; one may be -1."""
    source, sizes = call.inputs[0], call.values(1)
    axis = source.axis(call.values(2)[0])
    rest = source.sizes[axis] - sum(s for s in sizes if s != -1)
    return _cut(call, source, axis, [rest if s == -1 else s for s in sizes])


def _cut(call: TfCall, source: TfValue, axis: int, sections: int | list[int]) -> list[TfValue]:
    pieces = sections if isinstance(sections, int) else len(sections)
    if not 0 < pieces <= _MAX_PIECES:
        raise ShapeError(f"cannot cut a tensor of shape {source.shape} into {pieces} pieces")
    if pieces == 1:
        return [source]
    attrs = {"axis": source.order.index(source.axis(axis)), "sections": sections}
    return call.emit("split", [source], attrs, source.order)


@tensorflow("Unpack")
def _unpack(call: TfCall) -> list[TfValue]:
    """Cut into slices of size 1, and drop their axis."""
    source = call.inputs[0]
    axis = source.axis(call.node.integer("axis"))
    shape = source.sizes[:axis] + source.sizes[axis + 1 :]
    pieces = _cut(call, source, axis, source.sizes[axis])
    return [call.arranged(piece, call.order(len(shape), source), shape) for piece in pieces]


@tensorflow("StridedSlice")
def _strided_slice(call: TfCall) -> list[TfValue]:
    """Python's slicing: one slice per axis that is cut, then a view for new and dropped axes."""
    source, node = call.inputs[0], call.node
    begin, end, strides = (call.values(i) for i in (1, 2, 3))
    bits = {key: node.integer(f"{key}_mask") for key in SLICE_MASKS}
    consumed = sum(not (bits["ellipsis"] | bits["new_axis"]) >> i & 1 for i in range(len(begin)))
    cut, axis = source, 0
    shape: list[int] = []
    for i, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        masked = {key: mask >> i & 1 for key, mask in bits.items()}
        if masked["ellipsis"]:
            skipped = source.rank - consumed
            shape += source.sizes[axis : axis + skipped]
            axis += skipped
        elif masked["new_axis"]:
            shape.append(1)
        else:
            size = source.sizes[source.axis(axis)]
            if masked["shrink_axis"]:
                start, stop, step = start % size, start % size + 1, 1
            piece = slice(None if masked["begin"] and not masked["shrink_axis"] else start,
                          None if masked["end"] and not masked["shrink_axis"] else stop, step)  # fmt: skip
            length = len(range(*piece.indices(size)))
            cut = _sliced(call, cut, axis, piece)
            shape += [] if masked["shrink_axis"] else [length]
            axis += 1
    shape += source.sizes[axis:]
    order = source.order if tuple(shape) == cut.shape else call.order(len(shape), source)
    return [call.arranged(cut, order, tuple(shape))]


@tensorflow("Slice")
def _slice(call: TfCall) -> list[TfValue]:
    """``size`` values from ``begin`` along each axis; -1 means all."""
    cut = call.inputs[0]
    for axis, (start, size) in enumerate(zip(call.values(1), call.values(2), strict=True)):
        cut = _sliced(call, cut, axis, slice(start, None if size == -1 else start + size, 1))
    return [cut]


def _sliced(call: TfCall, source: TfValue, axis: int, piece: slice) -> TfValue:
    """``piece`` of ``source`` along ``axis``; a slice of everything is nothing."""
    size = source.sizes[source.axis(axis)]
    if piece.indices(size) == (0, size, 1):
        return source
    attrs = {"axis": source.order.index(axis), "start": piece.start, "stop": piece.stop, "step": piece.step}
    return call.emit("slice", [source], attrs, source.order)[0]


# Shapes and layout


@tensorflow("Reshape")
def _reshape(call: TfCall) -> list[TfValue]:
    """Reshape; at most one size may be -1."""
    source, target = call.inputs[0], call.values(1)
    left = math.prod(size for size in target if size != -1)
    if -1 in target and left:
        target[target.index(-1)] = math.prod(source.sizes) // left
    shape = tuple(target)
    return [_viewed(call, source, shape)]


def _viewed(call: TfCall, source: TfValue, shape: Shape) -> TfValue:
    """``source`` as ``shape``; if its channels are split, the parts stay second and third."""
    order = call.order(len(shape), source)
    is_map = source.rank == MAP_RANK and source.order != tuple(range(MAP_RANK))
    if is_map and len(shape) > 2 and shape[-2] * shape[-1] == source.sizes[-1]:
        lead = shape[0] == source.sizes[0]  # else the batch is folded into the map, whose axes stay together
        order = (*([0] * lead), len(shape) - 2, len(shape) - 1, *range(lead, len(shape) - 2))
    return call.arranged(source, order, shape)


@tensorflow("Squeeze")
def _squeeze(call: TfCall) -> list[TfValue]:
    """Drop dimensions of size 1: the listed ones, or all."""
    source = call.inputs[0]
    axes = {source.axis(a) for a in call.node.integers("squeeze_dims")}
    drop = axes or {i for i, size in enumerate(source.sizes) if size == 1}
    return [_viewed(call, source, tuple(size for i, size in enumerate(source.sizes) if i not in drop))]


@tensorflow("ExpandDims")
def _expand_dims(call: TfCall) -> list[TfValue]:
    source = call.inputs[0]
    axis = axis_of(call.values(1)[0], source.rank + 1)
    return [_viewed(call, source, (*source.sizes[:axis], 1, *source.sizes[axis:]))]


@tensorflow("Transpose")
def _transpose(call: TfCall) -> list[TfValue]:
    """Moves data, unless it only turns NHWC to NCHW or back in a graph that computes in NCHW."""
    source, perm = call.inputs[0], tuple(call.values(1))
    rank = source.rank
    if sorted(p % rank if -rank <= p < rank else -1 for p in perm) != list(range(rank)):
        raise ShapeError(f"perm={perm} is not a permutation of {rank} dimensions")
    perm = tuple(p % rank for p in perm)
    shape = _permuted(source.sizes, perm)
    last, first = layout(rank, False), layout(rank, True)
    turned = tuple(perm.index(axis) for axis in source.order)
    if call.channels_first and rank >= MAP_RANK and {source.order, turned} == {last, first}:
        return [replace(source, shape=shape, order=turned)]
    back = {axis: i for i, axis in enumerate(source.order)}
    moved = tuple(back[perm[axis]] for axis in source.order)
    if moved == first:
        return [replace(source, shape=shape)]
    return call.emit("transpose", [source], {"perm": moved}, source.order)


@tensorflow("Pad", "PadV2", "MirrorPad")
def _pad(call: TfCall) -> list[TfValue]:
    """``(before, after)`` per axis; with zeros unless the operator says otherwise."""
    source, flat = call.inputs[0], call.values(1)
    if len(flat) != 2 * source.rank or min(flat) < 0:
        raise ShapeError(f"paddings {flat} do not fit a tensor of shape {source.shape}")
    if not any(flat):
        return [source]
    value = call.inputs[2].value if call.node.op == "PadV2" else np.zeros(())
    zeros = value is not None and not value.any() and call.node.op != "MirrorPad"
    mode = "constant" if zeros else call.node.text("mode", "value").lower()
    padding = [(flat[2 * axis], flat[2 * axis + 1]) for axis in source.order]
    return call.emit("pad", [source], {"padding": padding, "mode": mode}, source.order)


@tensorflow("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea")
def _resize(call: TfCall) -> list[TfValue]:
    """To ``(height, width)``; always NHWC."""
    source = _map(call)
    mode = call.node.op.removeprefix("Resize").removesuffix("Neighbor").lower()
    return call.emit("upsample", [source], {"size": tuple(call.values(1)), "mode": mode}, source.order)


@tensorflow("DepthToSpace", "SpaceToDepth")
def _depth_to_space(call: TfCall) -> list[TfValue]:
    """Turn blocks of the map into channels, or back."""
    source = _map(call)
    return call.emit(_canonical(call), [source], {"factor": call.node.integer("block_size", 1)}, source.order)


@tensorflow("SpaceToBatchND", "BatchToSpaceND")
def _space_to_batch(call: TfCall) -> list[TfValue]:
    """Turn blocks of the map into batch, or back."""
    source, block, flat = call.inputs[0], call.values(1), call.values(2)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    area, [batch, *rest] = math.prod(block), source.sizes
    if min(block, default=1) < 1 or len(pairs) != len(block) or len(block) > len(rest):
        raise ShapeError(f"blocks {block} and {pairs} do not fit a tensor of shape {source.shape}")
    uneven = 0
    for i, (size, (before, after)) in enumerate(zip(block, pairs, strict=True)):
        if call.node.op == "SpaceToBatchND":
            uneven += (rest[i] + before + after) % size
            rest[i] = (rest[i] + before + after) // size
        else:
            rest[i] = rest[i] * size - before - after
    if call.node.op == "BatchToSpaceND":
        uneven += batch % area
    if uneven:
        raise ShapeError(f"blocks {block} do not divide a tensor of shape {source.shape} with {pairs}")
    batch = batch * area if call.node.op == "SpaceToBatchND" else batch // area
    attrs = {"block": tuple(block), "pairs": pairs}
    return call.emit(call.node.op.lower(), [source], attrs, source.order, [(batch, *rest)])


@tensorflow("RandomUniform", "RandomStandardNormal", "RandomUniformInt", "TruncatedNormal")
def _random(call: TfCall) -> list[TfValue]:
    """A random tensor; its shape is the operand, and it depends on no input."""
    shape = tuple(call.values(0))
    return [TfValue(shape, layout(len(shape), call.channels_first), constant=True)]


@tensorflow("Tile")
def _tile(call: TfCall) -> list[TfValue]:
    source, repeats = call.inputs[0], call.values(1)
    if len(repeats) != source.rank:
        raise ShapeError(f"multiples {repeats} do not fit a tensor of shape {source.shape}")
    return call.emit("tile", [source], {"repeats": _permuted(tuple(repeats), source.order)}, source.order)


@tensorflow("BroadcastTo")
def _broadcast_to(call: TfCall) -> list[TfValue]:
    """An expand; nothing if the shape stays the same."""
    source, shape = call.inputs[0], tuple(call.values(1))
    if shape == source.shape:
        return [source]
    order = source.order if len(shape) == source.rank else call.order(len(shape), source)
    aligned = call.arranged(source, order, _aligned(source.sizes, len(shape)))
    return call.emit("expand", [aligned], {"shape": _permuted(shape, order)}, order)


# Operators that select by value: shapes are the largest possible ones


@tensorflow("Fill")
def _fill(call: TfCall) -> list[TfValue] | None:
    """A shape filled with one value."""
    return call.opaque(tuple(call.values(0)))


@tensorflow("Gather", "GatherV2")
def _gather(call: TfCall) -> list[TfValue]:
    """Slices along an axis, picked by indices."""
    source, indices = call.inputs[:2]
    axis = source.axis(call.values(2)[0]) if len(call.inputs) > 2 else 0
    batch_dims = call.node.integer("batch_dims") % max(indices.rank + 1, 1)
    return call.opaque((*source.sizes[:axis], *indices.sizes[batch_dims:], *source.sizes[axis + 1 :]))


@tensorflow("GatherNd")
def _gather_nd(call: TfCall) -> list[TfValue]:
    source, indices = call.inputs
    return call.opaque((*indices.sizes[:-1], *source.sizes[indices.sizes[-1] :]))


@tensorflow("OneHot")
def _one_hot(call: TfCall) -> list[TfValue]:
    source, axis = call.inputs[0], call.node.integer("axis", -1)
    position = source.rank if axis == -1 else axis
    return call.opaque((*source.sizes[:position], *call.values(1), *source.sizes[position:]))


@tensorflow("TopK", "TopKV2")
def _top_k(call: TfCall) -> list[TfValue]:
    """Values and indices."""
    k = call.values(1)[0] if call.node.op == "TopKV2" else call.node.integer("k")
    shape = (*call.inputs[0].sizes[:-1], k)
    return call.opaque(shape, shape)


@tensorflow("Where")
def _where(call: TfCall) -> list[TfValue]:
    """Positions of all values, as if none were zero."""
    source = call.inputs[0]
    return call.opaque((math.prod(source.sizes), max(source.rank, 1)))


@tensorflow("NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4",
            "NonMaxSuppressionV5")  # fmt: skip
def _non_max_suppression(call: TfCall) -> list[TfValue]:
    """Indices of the largest number of boxes that it may select; some versions add scores and the number."""
    boxes = call.inputs[0].sizes[0]
    limit = call.inputs[2].value
    selected = boxes if limit is None else min(boxes, int(limit.item()))
    return call.opaque((selected,)) * 2 + [TfValue((), (), constant=True)]


@tensorflow("CombinedNonMaxSuppression")
def _combined_non_max_suppression(call: TfCall) -> list[TfValue]:
    """Boxes, scores and classes of the largest number that it may select, and their number."""
    [total] = call.values(3)
    boxes = call.opaque((1, total, 4))
    values = replace(boxes[0], shape=(1, total), order=(0, 1))
    return [boxes[0], values, values, TfValue((1,), (0,), constant=True)]


@tensorflow("CropAndResize")
def _crop_and_resize(call: TfCall) -> list[TfValue]:
    """A crop of the map for each box."""
    source, boxes = call.inputs[:2]
    return call.opaque((boxes.sizes[0], *call.values(3), source.sizes[-1]))
