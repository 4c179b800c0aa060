"""Translate each ONNX operator to operators of the model graph.

:mod:`nnmeter_nas.ops` declares the operators. This module has entries only for operators whose attributes
ONNX spells in its own way, and for those that become several operators. An entry takes the :class:`Node` that
was read, adds its operators to the model graph, and returns one value per output. If a use has no canonical
form (a gather of scattered positions, for example), the entry raises :class:`NoCanonicalFormError`, and the
node keeps ONNX's own name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from ...errors import ReaderError
from ...graph.editing import Operand
from ...graph.model_graph import add_op
from ...graph.shapes import infer_operator
from ...graph.unknown import GIVEN, is_unknown, mark_unknown
from ...ops import NAMES, OPERATORS, VIEW_OPS, Padding, Shape
from ..entries import fills
from .folding import Arithmetic, fold, slices, split_evenly
from .quantised import FLOAT_FORMS
from .values import Value, constant_node, folded, is_small, weights

#: Type of an output: its shape (None if it depends on data), and ONNX's number of its element type.
OutputType = tuple[Shape | None, int]
Translation = Callable[["OnnxNode"], "list[Value]"]

TRANSLATIONS: dict[str, Translation] = {}
onnx_op = fills(TRANSLATIONS)

#: Operators that return a constant even if their inputs are computed.
_CONSTANTS = frozenset({"Constant", "ConstantOfShape", "Shape", "Size"})
#: Operators that cost nothing, as they only ask for sizes.
_SIZES = frozenset({"Shape", "Size"})
#: Operators that run other graphs.
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


class NoCanonicalFormError(Exception):
    """No canonical operator does the same as this use of an ONNX operator."""


@dataclass(slots=True)
class OnnxNode:
    """One ONNX operator with its inputs read.

    Attributes:
        graph: the model graph under construction.
        op: type of the operator, with its domain if that is not ONNX's own.
        name: its name in the model graph.
        attrs: its attributes.
        inputs: its inputs; None for optional ones that are absent.
        outputs: number of outputs.
        batch: the batch size that the model was exported with, if it is read at batch 1.
        types: returns the types of its outputs, as far as inference or the model itself knows them.
    """

    graph: nx.DiGraph
    op: str
    name: str
    attrs: dict[str, Any]
    inputs: list[Value | None]
    outputs: int
    batch: int
    types: Callable[[], list[OutputType]]

    def input(self, index: int) -> Value | None:
        """Input ``index``; None if it is missing."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def x(self) -> Value:
        """The first input."""
        return self.required(0)

    @property
    def shape(self) -> Shape:
        """Shape of the first input."""
        return self.x.shape or ()

    @property
    def operands(self) -> list[Operand]:
        """The computed inputs."""
        return [value.operand for value in self.inputs if value is not None and value.operand is not None]

    def required(self, index: int) -> Value:
        """Input ``index``.

        Raises:
            ReaderError: it is absent.
        """
        value = self.input(index)
        if value is None:
            raise ReaderError(f"input {index} is missing")
        return value

    def weights(self, index: int) -> Shape:
        """Shape of input ``index``, which must be constant."""
        value = self.required(index)
        if not value.is_constant or value.shape is None:
            raise NoCanonicalFormError
        return value.shape

    def numbers(self, attribute: str, index: int) -> list[Any] | None:
        """Numbers that are an attribute in older opsets and a constant input in newer ones.

        None if neither is there.

        Raises:
            NoCanonicalFormError: the input is computed, or large.
            ReaderError: the input is stored outside the model.
        """
        if attribute in self.attrs:
            given = self.attrs[attribute]
            return list(given) if isinstance(given, list) else [given]
        value = self.input(index)
        if value is None:
            return None
        if value.is_external and is_small(value.shape):
            raise ReaderError(
                f"the values of its input {index}, of shape {value.shape}, are needed but stored outside the "
                "model, and external data is not read; keep small tensors inside it, with "
                "onnx.save(..., save_as_external_data=True, size_threshold=1024)"
            )
        numbers = value.numbers()
        if numbers is None:
            raise NoCanonicalFormError
        return numbers.reshape(-1).tolist()

    def ints(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """:meth:`numbers` that are sizes or axes."""
        given = self.numbers(attribute, index)
        return None if given is None else tuple(int(number) for number in given)

    def emit(
        self,
        op: str,
        inputs: Sequence[Operand | None],
        attrs: dict[str, Any] | None = None,
        shape: Shape | None = None,
    ) -> list[Value]:
        """Add an operator and infer its shapes; ``shape`` is for operators without a shape rule.

        Raises:
            NoCanonicalFormError: one of ``inputs`` is constant.
        """
        operands = [operand for operand in inputs if operand is not None]
        if len(operands) < len(inputs):
            raise NoCanonicalFormError
        name = base = self.name if self.name not in self.graph else f"{self.name}.{op}"
        repeats = 1
        while name in self.graph:
            repeats += 1
            name = f"{base}_{repeats}"
        add_op(self.graph, name, op, operands, attrs, None if shape is None else [shape])
        infer_operator(self.graph, name)
        elem_type = self.x.elem_type if self.inputs and self.inputs[0] is not None else 0
        return self.results(name, [elem_type] * len(self.graph.nodes[name]["out_shapes"]))

    def results(self, name: str, elem_types: Sequence[int]) -> list[Value]:
        """The outputs of the operator ``name``, by the types of their elements."""
        shapes = self.graph.nodes[name]["out_shapes"]
        return [
            Value(None if is_unknown(self.graph, (name, slot)) else shapes[slot], elem_type, (name, slot))
            for slot, elem_type in enumerate(elem_types)
        ]

    def layer(self, op: str, **attrs: Any) -> list[Value]:
        """One operator over the first input; the others must be weights."""
        if len(self.operands) != 1:
            raise NoCanonicalFormError
        return self.emit(op, [self.x.operand], attrs)

    def axis(self, default: int | None = None) -> int:
        """The attribute ``axis``, counted from the front."""
        axis = self.attrs["axis"] if default is None else self.attrs.get("axis", default)
        return self.dimension(axis)

    def dimension(self, axis: int) -> int:
        """``axis`` of the first input, counted from the front."""
        rank = len(self.shape)
        if not -rank <= axis < rank:
            raise ReaderError(f"axis {axis} does not exist in a tensor of {rank} dimensions")
        return axis % rank


#: Operators whose translation looks at their weights and attributes, and at no shape.
_WITHOUT_SHAPES = frozenset(
    {"Conv", "Gemm", "MatMul", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Reshape", "Flatten"}
)


def is_known(op: str) -> bool:
    """Whether ONNX's ``op`` is declared, or has an entry here."""
    return op in TRANSLATIONS or op in NAMES["onnx"]


def translate(node: OnnxNode) -> list[Value]:
    """Add ``node`` to its model graph, unless it is constant, and return its outputs' values."""
    translation = TRANSLATIONS.get(node.op) or (as_declared if node.op in NAMES["onnx"] else None)
    if node.op not in _CONSTANTS and not node.operands:
        return _constant(node)
    known = all(value is None or value.shape is not None for value in node.inputs)
    if translation and (known or node.op in _WITHOUT_SHAPES):
        try:
            return _with_told_shape(node, translation(node))
        except NoCanonicalFormError:
            pass
    return _unknown(node) if node.operands else _weights(node)


def _with_told_shape(node: OnnxNode, values: list[Value]) -> list[Value]:
    """Give an operator on a tensor of unknown shape the output shape that the model tells."""
    if values[0].shape is not None or values[0].operand is None:
        return values
    [(shape, elem_type), *_] = node.types()
    if shape is None:
        return values
    name, _ = values[0].operand
    node.graph.nodes[name]["declared"] = [shape]
    infer_operator(node.graph, name)
    return node.results(name, [elem_type])


def _constant(node: OnnxNode) -> list[Value]:
    """A value that does not depend on the model's inputs: its values if they are few, else its shape."""
    arrays = [value.numbers() if value is not None else None for value in node.inputs]
    known = all(
        value is None or (array is not None and is_small(array.shape))
        for array, value in zip(arrays, node.inputs, strict=True)
    )
    result = fold(node.op, Arithmetic(arrays, node.attrs, node.outputs)) if known else None
    return _weights(node) if result is None else [folded(array) for array in result]


def _weights(node: OnnxNode) -> list[Value]:
    """Constants of which at most the shape is known."""
    return [Value(shape, elem_type) for shape, elem_type in node.types()]


def _unknown(node: OnnxNode) -> list[Value]:
    """An operator without a canonical form, under its own name, or one that reads an unknown shape."""
    types, op = node.types(), node.op.lower()
    shapes = [shape for shape, _ in types]
    attrs: dict[str, Any] = {}
    unsized = [value for value in node.inputs if value is not None and value.shape is None]
    if node.op in NAMES["onnx"] and unsized and not any(value.is_constant for value in unsized):
        op = NAMES["onnx"][node.op].name
    elif node.op in _SIZES:
        op = GIVEN
    else:
        op = f"onnx_{op}" if op in OPERATORS or "." in op else op
        if None in shapes:
            # ONNX tells the shapes of its own operators, unless they depend on data.
            mark_unknown(attrs, "batch" if "." in node.op else "nothing")
        elif node.op in CONTROL_FLOW:
            mark_unknown(attrs, "shape")
    declared = [shape or () for shape in shapes] if any(shapes) or None not in shapes else None
    # A view waits for no arithmetic on sizes, which then leads nowhere.
    operands = node.operands[:1] if op in VIEW_OPS else node.operands
    add_op(node.graph, node.name, op, operands, attrs, declared)
    infer_operator(node.graph, node.name)
    return node.results(node.name, [elem_type for _, elem_type in types])


@onnx_op("Constant")
def _constant_node(node: OnnxNode) -> list[Value]:
    return [constant_node(node.attrs)]


@onnx_op("ConstantOfShape")
def _constant_of_shape(node: OnnxNode) -> list[Value]:
    """A tensor filled with one number; no array of that size is made."""
    shape = node.ints("shape", 0) or ()
    if any(size < 0 for size in shape):
        raise ReaderError(f"its shape {shape} has a negative size")
    value = weights(node.attrs["value"]).numbers() if "value" in node.attrs else np.zeros(1, np.float32)
    if value is None or value.size != 1:
        raise ReaderError("its value is not one number")
    fill = folded(value.reshape(()))
    if is_small(shape):
        return [folded(np.full(shape, fill.data))]
    return [Value(shape, fill.elem_type, zero=fill.holds_zeros())]


@onnx_op("Shape")
def _shape(node: OnnxNode) -> list[Value]:
    """The shape, or the given part of it."""
    part = node.shape[node.attrs.get("start", 0) : node.attrs.get("end")]
    return [folded(np.array(part, np.int64))]


@onnx_op("Size")
def _size(node: OnnxNode) -> list[Value]:
    return [folded(np.array(math.prod(node.shape), np.int64))]


#: Operators that return truth values, and ONNX's number of their type.
_TRUTHS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not"})
_BOOL = 9


def as_declared(node: OnnxNode) -> list[Value]:
    """An operator whose attributes need no translation."""
    operator = NAMES["onnx"][node.op]
    if operator.attrs is None or (operator.operands is not None and len(node.operands) != operator.operands):
        raise NoCanonicalFormError
    if operator.operands is None:
        values = _elementwise(node)
    else:
        attrs = {key: node.attrs[key] for key in operator.attrs if key in node.attrs}
        values = node.emit(operator.name, [node.required(i).operand for i in range(operator.operands)], attrs)
    return [replace(value, elem_type=_BOOL) for value in values] if node.op in _TRUTHS else values


@onnx_op("Cast")
def _cast(node: OnnxNode) -> list[Value]:
    """A cast; nothing if the tensor has the type already."""
    to = node.attrs["to"]
    [value] = node.layer("identity" if to == node.x.elem_type else "cast")
    return [replace(value, elem_type=to)]


@onnx_op("Clip")
def _clip(node: OnnxNode) -> list[Value]:
    low, high = (_limit(node.numbers(*where)) for where in (("min", 1), ("max", 2)))
    return node.layer("clip", min=low, max=high)


def _limit(given: list[Any] | None) -> float | None:
    """One limit of a clip; None if no float is beyond it."""
    return float(given[0]) if given and abs(given[0]) < np.finfo(np.float32).max else None


#: Operators that take more than two operands, and how to combine several numbers among these.
_TOGETHER: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b, "minimum": min, "maximum": max,
}  # fmt: skip
#: Operators whose result depends on the order of their operands.
_ORDERED = frozenset({"sub", "div", "pow"})


def _elementwise(node: OnnxNode) -> list[Value]:
    """Broadcast operands; constants among them become attributes."""
    op = NAMES["onnx"][node.op].name
    attrs: dict[str, Any] = {}
    operands: list[Operand] = []
    rank = max(value.rank for value in node.inputs if value is not None and not value.is_constant)
    for index in range(len(node.inputs)):
        value = node.required(index)
        numbers = value.numbers()
        if value.operand is not None:
            operands.append(value.operand)
        elif numbers is not None and numbers.size == 1 and numbers.ndim <= rank:
            number = float(numbers.item())
            attrs["const"] = _TOGETHER[op](attrs["const"], number) if "const" in attrs else number
        elif value.holds_zeros():
            operands.append(_constant_operand(node, value))
        else:
            attrs["const_shape"] = np.broadcast_shapes(attrs.get("const_shape", ()), value.shape or ())
    if op in _ORDERED and node.required(0).operand is None:
        attrs["const_first"] = True
    return node.emit(op, operands, attrs)


def _constant_operand(node: OnnxNode, value: Value) -> Operand:
    """An operator without operands for a constant: ``zero`` if all its values are 0."""
    [constant] = node.emit("zero" if value.holds_zeros() else "constant", [], {"shape": value.shape})
    assert constant.operand is not None
    return constant.operand


def _per_dimension(node: OnnxNode, attribute: str, rank: int) -> tuple[int, ...]:
    return tuple(node.attrs.get(attribute) or (1,) * rank)


def _padding(node: OnnxNode, rank: int) -> Padding:
    """``auto_pad``, or first the pads before all spatial dimensions and then the pads after them."""
    auto_pad = node.attrs.get("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return "same"
    if auto_pad == "VALID":
        return "valid"
    pads = node.attrs.get("pads") or [0] * (2 * rank)
    if len(pads) != 2 * rank:
        raise ReaderError(f"pads={pads} are not two for each of {rank} spatial dimension(s)")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _kernel(node: OnnxNode, kernel: list[int]) -> tuple[int, ...]:
    """The kernel of a layer with weights."""
    if list(node.attrs.get("kernel_shape") or kernel) != kernel:
        raise ReaderError(f"kernel_shape={node.attrs['kernel_shape']} is not that of its weights, {kernel}")
    return tuple(kernel)


def window(node: OnnxNode, weights: int = 1) -> dict[str, Any]:
    """Attributes of the window of a convolution, of which input ``weights`` is ``(*channels, *kernel)``."""
    kernel = (node.required(weights).shape or ())[2:]
    return {"kernel": _kernel(node, list(kernel)), "stride": _per_dimension(node, "strides", len(kernel)),
            "dilation": _per_dimension(node, "dilations", len(kernel)),
            "padding": _padding(node, len(kernel)), "groups": node.attrs.get("group", 1)}  # fmt: skip


@onnx_op("Conv")
def conv(node: OnnxNode) -> list[Value]:
    """Weights are ``(out, in / groups, *kernel)``."""
    out_channels, channels, *_ = node.required(1).shape or ()
    attrs = window(node)
    return _convolved(node, "conv", attrs, channels * attrs["groups"], out_channels)


@onnx_op("ConvTranspose")
def _conv_transpose(node: OnnxNode) -> list[Value]:
    """Weights are ``(in, out / groups, *kernel)``; ``output_shape`` asks for the pads that make it."""
    in_channels, channels, *kernel = node.required(1).shape or ()
    attrs, rank, wanted = window(node), len(kernel), node.attrs.get("output_shape")
    extra = attrs["output_padding"] = tuple(node.attrs.get("output_padding") or (0,) * rank)
    if wanted:
        full = [(size - 1) * s + d * (k - 1) + 1 + e for size, s, d, k, e in
                zip(node.shape[2:], attrs["stride"], attrs["dilation"], kernel, extra, strict=True)]
        attrs["padding"] = [(0, have - want) for have, want in zip(full, wanted[-rank:], strict=True)]
    return _convolved(node, "convtranspose", attrs, in_channels, channels * attrs["groups"])


def _convolved(
    node: OnnxNode, op: str, attrs: dict[str, Any], in_channels: int, out_channels: int
) -> list[Value]:
    """A convolution, whose weights and bias may be computed."""
    weights, bias, rank = node.required(1), node.input(2), len(attrs["kernel"])
    if weights.operand is not None:
        del attrs["kernel"]
        operands = node.operands if node.x.operand else [None]
        return node.emit(f"dynamic{op}", operands, attrs)
    attrs |= {"in_channels": in_channels, "out_channels": out_channels}
    if bias is None or bias.operand is None:
        return node.emit(op, [node.x.operand], attrs if bias is None else {**attrs, "bias": True})
    [value] = node.emit(op, [node.x.operand], attrs)
    [column] = node.emit("reshape", [bias.operand], {"shape": (out_channels, *[1] * rank)})
    return node.emit("add", [value.operand, column.operand])




@onnx_op("MaxPool", "AveragePool")
def _pool(node: OnnxNode) -> list[Value]:
    """Its stride defaults to 1."""
    kernel = tuple(node.attrs["kernel_shape"])
    rank = len(kernel)
    attrs = {"kernel": kernel, "stride": _per_dimension(node, "strides", rank),
             "padding": _padding(node, rank), "dilation": _per_dimension(node, "dilations", rank),
             "ceil_mode": bool(node.attrs.get("ceil_mode"))}
    return node.layer("maxpool" if node.op == "MaxPool" else "avgpool", **attrs)


@onnx_op("GlobalMaxPool")
def _global_max_pool(node: OnnxNode) -> list[Value]:
    size = 1 if node.x.shape is None else (1,) * (node.x.rank - 2)
    return node.layer("adaptivemaxpool", output_size=size)


@onnx_op("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")
def _reduction(node: OnnxNode) -> list[Value]:
    """Reduce ``axes``, or everything unless the operator says that no axes means no reduction."""
    given, keepdims = node.ints("axes", 1), bool(node.attrs.get("keepdims", 1))
    if not given and node.attrs.get("noop_with_empty_axes"):
        return node.layer("identity")
    if node.x.shape is None:
        if not given or set(given) not in ({2, 3}, {-1, -2}):
            raise NoCanonicalFormError
        return node.layer("globalavgpool", keepdims=keepdims)
    axes = given or tuple(range(len(node.shape)))
    return node.layer(NAMES["onnx"][node.op].name, axes=axes, keepdims=keepdims)


@onnx_op("Reciprocal")
def _reciprocal(node: OnnxNode) -> list[Value]:
    return node.layer("div", const=1.0, const_first=True)


@onnx_op("Concat")
def _concat(node: OnnxNode) -> list[Value]:
    """Join operands; constant tensors among them count towards the shape."""
    values = [node.required(index) for index in range(len(node.inputs))]
    filled = [value for value in values if value.shape is None or 0 not in value.shape]
    operands = [value.operand or _constant_operand(node, value) for value in filled]
    return node.emit("concat", operands, {"axis": node.axis()})


@onnx_op("Split")
def _split(node: OnnxNode) -> list[Value]:
    """Cut into given or equal sizes; since opset 18 the last one may be smaller."""
    axis = node.axis(default=0)
    sections = list(node.ints("split", 1) or split_evenly(node.shape[axis], node.outputs))
    if len(sections) != node.outputs:
        raise ReaderError(f"it splits into {sections}, but has {node.outputs} output(s)")
    return node.layer("split", axis=axis, sections=sections)


@onnx_op("Slice")
def _slice(node: OnnxNode) -> list[Value]:
    """One slice for each axis that is cut; a slice of everything is nothing."""
    bounds = (node.ints(name, index) for index, name in enumerate(("starts", "ends", "axes", "steps"), 1))
    cuts, value = slices(*bounds), node.x
    for axis, cut in ((node.dimension(axis), cut) for axis, cut in cuts):
        size = value.shape[axis] if value.shape else 0
        if range(*cut.indices(size)) != range(size):
            attrs = {"axis": axis, "start": cut.start, "stop": cut.stop, "step": cut.step}
            [value] = node.emit("slice", [value.operand], attrs)
    return node.layer("identity") if value is node.x else [value]


@onnx_op("Gather")
def _gather(node: OnnxNode) -> list[Value]:
    """A slice: one position, whose dimension is dropped, or a run of positions."""
    axis, indices = node.axis(default=0), node.required(1).numbers()
    if indices is None or indices.ndim > 1 or not indices.size:
        raise NoCanonicalFormError
    positions = [int(index) % node.shape[axis] for index in indices.reshape(-1)]
    start, stop = positions[0], positions[-1] + 1
    if positions != list(range(start, stop)):
        raise NoCanonicalFormError
    cut = node.emit("slice", [node.x.operand], {"axis": axis, "start": start, "stop": stop, "step": 1})
    return cut if indices.ndim else node.emit("squeeze", [cut[0].operand], {"axes": (axis,)})


@onnx_op("Reshape")
def _reshape(node: OnnxNode) -> list[Value]:
    """Size 0 copies the input's, -1 takes the rest; the batch size of the export becomes 1."""
    given = list(node.ints("shape", 1) or ())
    if node.x.shape is None:  # only the shape of a matrix with a row for each item goes without it
        if len(given) != 2 or given[1] != -1:
            raise NoCanonicalFormError
        return node.layer("flatten")
    if 0 in given and node.attrs.get("allowzero"):
        raise ReaderError(f"its shape {given} leaves an empty tensor")
    target = [node.shape[i] if size == 0 else size for i, size in enumerate(given)]
    if target and target[0] == node.batch and node.shape[:1] == (1,):
        target[0] = 1
    known = math.prod(size for size in target if size != -1)
    if -1 in target and known:
        target[target.index(-1)] = math.prod(node.shape) // known
    return node.layer("reshape", shape=tuple(target))


@onnx_op("Flatten")
def _flatten(node: OnnxNode) -> list[Value]:
    """Flatten to a matrix: the dimensions before ``axis``, and the others."""
    axis = node.attrs.get("axis", 1)
    if axis == 1:
        return node.layer("flatten", start=1, end=-1)
    if node.x.shape is None:
        raise NoCanonicalFormError
    return node.layer("reshape", shape=(math.prod(node.shape[:axis]), math.prod(node.shape[axis:])))


@onnx_op("Squeeze")
def _squeeze(node: OnnxNode) -> list[Value]:
    """Drop the dimensions ``axes``, or all of size 1."""
    axes = node.ints("axes", 1) or [i for i, size in enumerate(node.shape) if size == 1]
    return node.layer("squeeze", axes=tuple(map(node.dimension, axes)))


@onnx_op("Unsqueeze")
def _unsqueeze(node: OnnxNode) -> list[Value]:
    axes = node.ints("axes", 1) or ()
    return node.layer("unsqueeze", axes=tuple(axis % (len(node.shape) + len(axes)) for axis in axes))


@onnx_op("Transpose")
def _transpose(node: OnnxNode) -> list[Value]:
    """Reorder dimensions by ``perm``, or reverse them."""
    return node.layer("transpose", perm=tuple(node.attrs.get("perm") or reversed(range(len(node.shape)))))


@onnx_op("Pad")
def _pad(node: OnnxNode) -> list[Value]:
    """First all pads before, then all pads after, for every dimension or for ``axes``."""
    pads, rank = node.ints("pads", 1) or (), len(node.shape)
    axes = [node.dimension(axis) for axis in node.ints("axes", 3) or range(rank)]
    if len(pads) != 2 * len(axes):
        raise ReaderError(f"pads={pads} are not two for each of {len(axes)} dimension(s)")
    padding = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes):], strict=True):
        padding[axis] = (before, after)
    value = node.numbers("value", 2) or [0.0]
    return node.layer("pad", padding=padding, mode=node.attrs.get("mode", "constant"), value=value[0])


@onnx_op("Resize", "Upsample")
def _resize(node: OnnxNode) -> list[Value]:
    """Resize to sizes or by scales, of all dimensions or of ``axes``; only those of the map may change."""
    scales_at = 1 if node.op == "Upsample" or len(node.inputs) == 2 else 2
    sizes, scales = node.ints("sizes", 3), node.numbers("scales", scales_at)
    axes = node.attrs.get("axes") or range(len(node.shape))
    size = list(node.shape)
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoCanonicalFormError
    if sizes:
        scaled = list(sizes)
    else:  # in single precision, as in the runtimes
        lengths = np.array([size[axis] for axis in axes], np.float32)
        with np.errstate(over="ignore"):
            scaled = list(map(math.floor, (lengths * np.array(scales or (), np.float32)).tolist()))
    for axis, length in zip(axes, scaled, strict=True):
        size[node.dimension(axis)] = length
    if tuple(size[:2]) != node.shape[:2]:
        raise NoCanonicalFormError
    return node.layer("upsample", size=tuple(size[2:]), mode=node.attrs.get("mode", "nearest"))


@onnx_op("Expand")
def _expand(node: OnnxNode) -> list[Value]:
    shape = np.broadcast_shapes(node.shape, node.ints("shape", 1) or ())
    return node.layer("expand", shape=shape)


@onnx_op("Tile")
def _tile(node: OnnxNode) -> list[Value]:
    return node.layer("tile", repeats=node.ints("repeats", 1) or ())


@onnx_op("DepthToSpace", "SpaceToDepth")
def _depth_to_space(node: OnnxNode) -> list[Value]:
    """Either order of the channels costs the same."""
    return node.layer(NAMES["onnx"][node.op].name, factor=node.attrs["blocksize"])


#: A scale that is found at run time; arithmetic on it stays NaN.
_SCALE = np.array(np.nan, np.float32)


@onnx_op("QuantizeLinear", "DequantizeLinear", "com.microsoft.QuantizeLinear",
         "com.microsoft.DequantizeLinear")
def _quantize(node: OnnxNode) -> list[Value]:
    """A change to or from integers, by a constant scale."""
    return node.layer("quantize")


@onnx_op("DynamicQuantizeLinear")
def _dynamic_quantize(node: OnnxNode) -> list[Value]:
    """A change to integers; also returns its scale and its zero point."""
    return [*node.layer("quantize"), folded(_SCALE), Value((), node.x.elem_type)]


@onnx_op("Mul")
def _mul(node: OnnxNode) -> list[Value]:
    """A product; by the scale of a quantised tensor, it is a change from integers."""
    factors = [value.numbers() for value in node.inputs if value is not None and value.is_constant]
    if any(f is not None and f.dtype.kind == "f" and np.isnan(f).all() for f in factors):
        return node.emit("quantize", node.operands)
    return as_declared(node)


@onnx_op(*FLOAT_FORMS)
def _integer_form(node: OnnxNode) -> list[Value]:
    """The float operator that an integer one stands for."""
    if node.attrs.get("channels_last"):
        raise NoCanonicalFormError
    op, places = FLOAT_FORMS[node.op]
    inputs = [node.inputs[i] for i in places if i < len(node.inputs)]
    [value] = TRANSLATIONS.get(op, as_declared)(replace(node, op=op, inputs=inputs))
    return node.emit("quantize", [value.operand])
