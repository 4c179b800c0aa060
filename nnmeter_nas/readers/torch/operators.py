"""Translate each ATen operator to operators of the model graph.

:mod:`nnmeter_nas.ops` declares the operators. This module has entries only for operators whose arguments ATen
spells in its own way, and for those that become several operators. An entry takes the traced
:class:`AtenCall`, adds its operators to the model graph, and returns one operand per output tensor. It
returns None if this use has no canonical form (a division that rounds, for example); the call then stays a
node with ATen's own name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from ...graph.editing import Operand
from ...ops import NAMES, OPERATORS, Shape
from ..entries import fills

if TYPE_CHECKING:
    import torch

Translation = Callable[["AtenCall"], "list[Operand] | None"]

TRANSLATIONS: dict[str, Translation] = {}
aten = fills(TRANSLATIONS)


@dataclass(slots=True)
class AtenCall:
    """One traced call of an ATen operator that has at least one computed operand.

    Attributes:
        graph: the model graph under construction.
        op: name of the operator, without overload and in-place underscore; with its namespace if that is
            not ATen's.
        args: all arguments by their schema name, defaults included.
        inputs: the computed operands, in the order of the arguments.
        out_shapes: the shapes of the tensors it returned, without empty ones.
        operand: returns the operand for a tensor, or None for weights and constants.
        known: returns a constant made in ``forward``, or None if its values are unknown.
        add: adds an operator ``(op, inputs, attrs, declared shapes)`` and returns its name.
    """

    graph: nx.DiGraph
    op: str
    args: dict[str, Any]
    inputs: list[Operand]
    out_shapes: list[Shape]
    operand: Callable[[Any], Operand | None]
    known: Callable[[Any], torch.Tensor | None]
    add: Callable[[str, Sequence[Operand], Mapping[str, Any], list[Shape]], str]

    def shape(self, argument: str = "self") -> Shape:
        """Shape of the tensor passed as ``argument``."""
        return tuple(self.args[argument].shape)

    def axis(self, axis: int) -> int:
        """``axis`` of the argument ``self``, counted from the front."""
        return axis % max(len(self.shape()), 1)

    def emit(self, op: str, inputs: Sequence[Operand], attrs: Mapping[str, Any], shape: Shape) -> Operand:
        """Add an operator with one output of ``shape``."""
        return self.add(op, inputs, attrs, [shape]), 0

    def layer(self, op: str, **attrs: Any) -> list[Operand] | None:
        """One operator over the only computed operand; None if its weights are computed too."""
        return [self.emit(op, self.inputs, attrs, self.out_shapes[0])] if len(self.inputs) == 1 else None

    def constant(self, tensor: torch.Tensor) -> Operand:
        """An operator without operands for a constant tensor: ``zero`` if all its values are 0."""
        value, shape = self.known(tensor), tuple(tensor.shape)
        all_zero = value is not None and not bool(value.any())
        return self.emit("zero" if all_zero else "constant", [], {"shape": shape}, shape)


def reads(*operators: str) -> Callable[[Translation], Translation]:
    """Register the decorated function as the translation of all ATen names of ``operators``."""
    return aten(*(name for operator in operators for name in OPERATORS[operator].torch))


def is_known(op: str) -> bool:
    """Whether ATen's ``op`` has a canonical form; if not, its parts may have one."""
    return op in TRANSLATIONS or op in NAMES["torch"]


def translate(call: AtenCall) -> list[Operand]:
    """Add ``call`` to its model graph; return one operand for each output tensor that has one.

    A call without a canonical form stays one node with its ATen name and traced shapes.
    """
    operands = TRANSLATIONS.get(call.op, _as_declared)(call)
    if operands is None:
        op = call.op.lstrip("_").replace("::", "_")
        name = call.add(f"aten_{op}" if op in OPERATORS else op, call.inputs, {}, call.out_shapes)
        operands = [(name, slot) for slot in range(len(call.out_shapes))]
    return operands


def _canonical(call: AtenCall) -> str:
    """Canonical name of the operator."""
    return NAMES["torch"][call.op].name


def _as_declared(call: AtenCall) -> list[Operand] | None:
    """An operator whose arguments need no translation."""
    operator = NAMES["torch"].get(call.op)
    if operator is None or operator.attrs is None:
        return None
    if operator.operands is None:
        left, right, *_ = call.args.values()
        return _binary(call, operator.name, left, right, call.args.get("alpha", 1))
    if len(call.inputs) != operator.operands:
        return None
    attrs = {key: call.args[key] for key in operator.attrs if key in call.args}
    return [call.emit(operator.name, call.inputs, attrs, call.out_shapes[0])]


@reads("bn")
def _batch_norm(call: AtenCall) -> list[Operand] | None:
    """A batch norm; it has no weights if it has no factors."""
    return call.layer("bn", **({"affine": False} if call.args.get("weight") is None else {}))


@reads("norm", "prelu")
def _with_weights(call: AtenCall) -> list[Operand] | None:
    """A layer with as many parameters as its weights hold."""
    weights = [call.args[name] for name in ("weight", "bias") if call.args.get(name) is not None]
    return call.layer(_canonical(call), params=sum(math.prod(tensor.shape) for tensor in weights))


@aten("to", "_to_copy")
def _to(call: AtenCall) -> list[Operand] | None:
    """A change of type is a cast; a change of device or layout is nothing."""
    changes_type = call.args.get("dtype") not in (None, call.args["self"].dtype)
    return call.layer("cast" if changes_type else "identity")


@reads("clip")
def _clip(call: AtenCall) -> list[Operand] | None:
    """A clip to numbers; limits in tensors are a maximum and a minimum."""
    low = call.args.get("min_val", call.args.get("min"))
    high = call.args.get("max_val", call.args.get("max"))
    if not any(hasattr(limit, "shape") for limit in (low, high)):
        return call.layer("clip", min=low, max=high)
    value = call.operand(call.args["self"])
    for op, limit in (("maximum", low), ("minimum", high)):
        if value is not None and limit is not None:
            value = joined(call, op, [value], [limit], {})
    return None if value is None else [value]


@reads("div")
def _div(call: AtenCall) -> list[Operand] | None:
    """Division that rounds has no canonical form."""
    if call.args.get("rounding_mode"):
        return None
    return _binary(call, "div", call.args["self"], call.args["other"])


@aten("square")
def _square(call: AtenCall) -> list[Operand] | None:
    return call.layer("pow", const=2.0)


@aten("reciprocal")
def _reciprocal(call: AtenCall) -> list[Operand] | None:
    """``constant / x`` arrives as a reciprocal and a product."""
    return call.layer("div", const=1.0, const_first=True)


@aten("rsub")
def _rsub(call: AtenCall) -> list[Operand] | None:
    """A difference with swapped operands."""
    return _binary(call, "sub", call.args["other"], call.args["self"], call.args.get("alpha", 1))


#: Operators whose result depends on the order of their operands.
_ORDERED = frozenset({"sub", "div", "pow"})


def _binary(call: AtenCall, op: str, left: Any, right: Any, alpha: float = 1) -> list[Operand] | None:
    """``op`` over two values: computed operands, constant tensors or numbers; ``alpha`` scales one."""
    attrs: dict[str, Any] = {} if alpha == 1 else {"alpha": float(alpha)}
    if op in _ORDERED and call.operand(left) is None:
        attrs["const_first"] = True
    return [joined(call, op, [], (left, right), attrs)]


def joined(
    call: AtenCall, op: str, operands: list[Operand], values: Sequence[Any], attrs: dict[str, Any]
) -> Operand:
    """``op`` over ``operands`` and ``values``: computed operands, constant tensors or numbers."""
    for value in values:
        operand, constant = call.operand(value), call.known(value)
        if operand is not None:
            operands.append(operand)
        elif not hasattr(value, "shape"):
            attrs["const"] = float(value)
        elif constant is not None and constant.numel() == 1 and constant.dim() <= 1:
            attrs["const"] = float(constant)
        elif constant is not None and not bool(constant.any()):
            operands.append(call.constant(value))
        else:
            attrs["const_shape"] = tuple(value.shape)
    return call.emit(op, operands, attrs, call.out_shapes[0])


@aten("zeros_like", "new_zeros", "zero")
def _zeros(call: AtenCall) -> list[Operand] | None:
    """Zeros for any operand."""
    shape = call.out_shapes[0]
    return [call.emit("zero", [], {"shape": shape}, shape)]


@aten("ones_like", "new_ones", "full_like", "new_full", "empty_like", "new_empty", "fill")
def _filled(call: AtenCall) -> list[Operand] | None:
    """A constant that only takes the shape of its operand."""
    shape = call.out_shapes[0]
    return [call.emit("constant", [], {"shape": shape}, shape)]


@aten("copy")
def _copy(call: AtenCall) -> list[Operand] | None:
    """``self`` is overwritten with ``src``."""
    source = call.operand(call.args["src"])
    if source is None:
        return [call.constant(call.args["src"])]
    return [source] if call.shape("src") == call.shape() else None


def per_dimension(value: int | Sequence[int], rank: int) -> Shape:
    """A number, or a sequence of one, stands for every spatial dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


def symmetric(padding: int | Sequence[int], rank: int) -> list[tuple[int, int]]:
    return [(p, p) for p in per_dimension(padding, rank)]


@reads("maxpool", "avgpool")
def _pool(call: AtenCall) -> list[Operand] | None:
    """A pool; the stride defaults to the kernel."""
    args, rank = call.args, len(call.shape()) - 2
    kernel = per_dimension(args["kernel_size"], rank)
    return call.layer(_canonical(call), kernel=kernel,
                      stride=per_dimension(args["stride"] or kernel, rank),
                      padding=symmetric(args["padding"], rank),
                      dilation=per_dimension(args.get("dilation", 1), rank), ceil_mode=args["ceil_mode"])


@reads("adaptiveavgpool", "adaptivemaxpool")
def _adaptive_pool(call: AtenCall) -> list[Operand] | None:
    """``output_size`` per spatial dimension."""
    return call.layer(_canonical(call), output_size=tuple(call.args["output_size"]))


@reads("mean", "sum", "max", "min", "prod")
def _reduction(call: AtenCall) -> list[Operand] | None:
    """Reduce ``dim``, or everything."""
    dim = call.args.get("dim")
    axes = [dim] if isinstance(dim, int) else dim or range(len(call.shape()))
    axes = tuple(sorted(call.axis(d) for d in axes))
    return call.layer(_canonical(call), axes=axes, keepdims=call.args.get("keepdim", False))


@reads("concat")
def _cat(call: AtenCall) -> list[Operand] | None:
    """Join operands; constant tensors among them count towards the shape."""
    tensors = [t for t in call.args["tensors"] if t.numel()]  # torch lets torch.empty(0) pass
    operands = [call.operand(t) or call.constant(t) for t in tensors]
    axis = call.args["dim"] % tensors[0].dim()
    return [call.emit("concat", operands, {"axis": axis}, call.out_shapes[0])]


@aten("stack")
def _stack(call: AtenCall) -> list[Operand] | None:
    """Give each operand a new axis, and join them along it."""
    tensors, shape = call.args["tensors"], call.out_shapes[0]
    axis = call.args["dim"] % len(shape)
    piece = (*shape[:axis], 1, *shape[axis + 1:])
    pieces = [call.emit("unsqueeze", [call.operand(t) or call.constant(t)], {"axes": (axis,)}, piece)
              for t in tensors]
    return [call.emit("concat", pieces, {"axis": axis}, shape)]


@reads("split")
def _split(call: AtenCall) -> list[Operand] | None:
    """Cut along ``dim`` into the traced sizes."""
    axis = call.axis(call.args["dim"])
    sections = [shape[axis] for shape in call.out_shapes]
    name = call.add("split", [call.inputs[0]], {"axis": axis, "sections": sections}, call.out_shapes)
    return [(name, slot) for slot in range(len(sections))]


@aten("glu")
def _glu(call: AtenCall) -> list[Operand] | None:
    """One half along ``dim``, gated by the sigmoid of the other."""
    axis, shape = call.axis(call.args["dim"]), call.out_shapes[0]
    attrs = {"axis": axis, "sections": [shape[axis]] * 2}
    halves = call.add("split", call.inputs, attrs, [shape, shape])
    gate = call.emit("sigmoid", [(halves, 1)], {}, shape)
    return [call.emit("mul", [(halves, 0), gate], {}, shape)]


@aten("unbind")
def _unbind(call: AtenCall) -> list[Operand] | None:
    """Cut into slices of size 1, and drop their axis."""
    axis, shape = call.axis(call.args["dim"]), call.shape()
    piece = (*shape[:axis], 1, *shape[axis + 1:])
    attrs = {"axis": axis, "sections": [1] * shape[axis]}
    name = call.add("split", call.inputs, attrs, [piece] * shape[axis])
    return [call.emit("squeeze", [(name, slot)], {"axes": (axis,)}, out)
            for slot, out in enumerate(call.out_shapes)]


@reads("slice")
def _slice(call: AtenCall) -> list[Operand] | None:
    """A slice of everything is nothing."""
    if call.out_shapes[0] == call.shape():
        return call.layer("identity")
    return call.layer("slice", axis=call.axis(call.args["dim"]), start=call.args["start"],
                      stop=call.args["end"], step=call.args["step"])


@aten("select")
def _select(call: AtenCall) -> list[Operand] | None:
    """Take one position along ``dim``, and drop ``dim``."""
    axis, shape = call.axis(call.args["dim"]), call.shape()
    start = int(call.args["index"]) % shape[axis]
    piece = (*shape[:axis], 1, *shape[axis + 1:])
    cut = call.emit("slice", call.inputs, {"axis": axis, "start": start, "stop": start + 1, "step": 1}, piece)
    return [call.emit("squeeze", [cut], {"axes": (axis,)}, call.out_shapes[0])]


@reads("reshape")
def _reshape(call: AtenCall) -> list[Operand] | None:
    """Reshape to the traced shape, with -1 resolved."""
    if "dtype" in call.args:  # x.view(torch.int32)
        return None
    return call.layer("reshape", shape=call.out_shapes[0])


@reads("flatten")
def _flatten(call: AtenCall) -> list[Operand] | None:
    """Join ``start_dim`` to ``end_dim``."""
    return call.layer("flatten", start=call.axis(call.args["start_dim"]), end=call.axis(call.args["end_dim"]))


@reads("expand")
def _expand(call: AtenCall) -> list[Operand] | None:
    return call.layer("expand", shape=call.out_shapes[0])


@reads("tile")
def _tile(call: AtenCall) -> list[Operand] | None:
    return call.layer("tile", repeats=tuple(call.args["repeats"]))


@aten("permute")
def _permute(call: AtenCall) -> list[Operand] | None:
    """Reorder dimensions."""
    return call.layer("transpose", perm=tuple(call.axis(d) for d in call.args["dims"]))


@aten("transpose", "swapaxes", "swapdims", "t")
def _transpose(call: AtenCall) -> list[Operand] | None:
    """Swap two dimensions; ``t`` swaps the only two."""
    perm = list(range(len(call.shape())))
    first, second = [*call.args.values()][1:] or (0, -1)  # their names differ
    perm[first], perm[second] = perm[second], perm[first]
    return call.layer("transpose", perm=tuple(perm))


@reads("squeeze")
def _squeeze(call: AtenCall) -> list[Operand] | None:
    """Drop dimensions of size 1: those of ``dim``, or all."""
    axes = call.args.get("dim", [i for i, size in enumerate(call.shape()) if size == 1])
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return call.layer("squeeze", axes=tuple(call.axis(a) for a in axes))


@reads("unsqueeze")
def _unsqueeze(call: AtenCall) -> list[Operand] | None:
    return call.layer("unsqueeze", axes=(call.args["dim"] % len(call.out_shapes[0]),))


@reads("pad")
def _pad(call: AtenCall) -> list[Operand] | None:
    """torch lists ``(before, after)`` from the last dimension backwards."""
    flat = call.args["pad"]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    padding = [(0, 0)] * (len(call.shape()) - len(pairs)) + pairs
    return call.layer("pad", padding=padding, mode=call.args.get("mode", "constant"),
                      value=float(call.args.get("value") or 0.0))


@reads("upsample")
def _upsample(call: AtenCall) -> list[Operand] | None:
    """Resize to the traced size, with its interpolation mode."""
    mode = call.op.lstrip("_").removeprefix("upsample_")
    return call.layer("upsample", size=call.out_shapes[0][2:], mode=mode)


@reads("pixelshuffle")
def _pixel_shuffle(call: AtenCall) -> list[Operand] | None:
    return call.layer("pixelshuffle", factor=call.args["upscale_factor"])


@reads("pixelunshuffle")
def _pixel_unshuffle(call: AtenCall) -> list[Operand] | None:
    return call.layer("pixelunshuffle", factor=call.args["downscale_factor"])
