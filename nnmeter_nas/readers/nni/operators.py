"""Translate each operator of NNI's graph IR to operators of the model graph.

NNI's IR comes from TorchScript. An operator there is a module (``Conv2d``, with keyword arguments),
an ATen operator (``aten::max_pool2d``, with positional arguments) or a function
(``Function._max_pool2d``, with positional arguments). Without prefixes, and without the underscores
that mark in-place and internal variants, the last two share one name. All three share argument names,
so one lowering serves them.

:mod:`nnmeter_nas.ops` declares the operators. This module has lowerings only for operators whose
arguments torch spells in its own way, and for those that become several operators.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from ...errors import ReaderError
from ...graph.editing import Operand
from ...ops import NAMES, OPERATORS, Operator, Shape
from ..products import Add, Factor, NoProductError, einsum, is_dense, product
from ..recurrent import Stack


class Output(NamedTuple):
    """Output ``slot`` of operator ``producer`` in the model graph."""

    producer: str
    slot: int = 0


@dataclass(frozen=True)
class Weight:
    """A tensor stored in the model, not computed; the IR may not carry its ``shape``."""

    shape: Shape | None = None


#: The type of computed tensors, to test many values at once.
_COMPUTED = frozenset({Output})


class NotLoweredError(Exception):
    """The operator's lowering does not cover these arguments, so it stays an unknown operator."""


class Builder(Protocol):
    """The changes that a lowering may make to the model graph."""

    def emit(self, op: str, operands: Sequence[Output], attrs: dict[str, Any]) -> Output:
        """Add an operator and return its first output."""
        ...

    def shape(self, tensor: Output) -> Shape:
        """The inferred shape of ``tensor``."""
        ...


@dataclass
class NniCall:
    """One operator of the IR: its name without prefixes, its arguments, and where to build."""

    name: str
    args: dict[str, Any]
    positional: list[Any]
    builder: Builder

    @property
    def x(self) -> Output:
        """The first operand, which must be a computed tensor."""
        return self.tensor("x")

    def tensor(self, key: str) -> Output:
        """The computed tensor in argument ``key``."""
        value = self.args.get(key)
        if not isinstance(value, Output):
            raise NotLoweredError(f"{key} is not a computed tensor")
        return value

    def tensors(self, key: str) -> list[Output]:
        """The list of computed tensors in argument ``key``."""
        values = self.args[key]
        if not all(isinstance(v, Output) for v in values):
            raise NotLoweredError(f"{key} holds more than computed tensors")
        return list(values)

    def emit(self, op: str, *operands: Output, **attrs: Any) -> Output:
        """Add ``op`` to the model graph; returns its first output."""
        return self.builder.emit(op, operands, attrs)

    def shape(self, tensor: Output | None = None) -> Shape:
        """Shape of ``tensor``, or of the first operand."""
        return self.builder.shape(tensor or self.x)

    @property
    def rank(self) -> int:
        """Number of spatial dimensions, from the name (``Conv2d``) or else from the input."""
        return _rank_in(self.name) or len(self.shape()) - 2

    def per_dimension(self, key: str, default: Any) -> Shape:
        """Argument ``key`` as one integer per spatial dimension."""
        value = self.args.get(key)
        value = default if value is None or value == [] else value
        values: Shape = (value,) if isinstance(value, int) else tuple(value)
        return values if len(values) > 1 else values * self.rank


@lru_cache(maxsize=1024)
def _rank_in(name: str) -> int | None:
    """Number of spatial dimensions in an operator's name, or None."""
    match = re.search(r"([123])d$", name)
    return int(match[1]) if match else None


Lowering = Callable[[NniCall], Any]

LOWERINGS: dict[str, tuple[list[str], Lowering]] = {}

#: Declared operators by name of module, and by name of ATen operator or function.
_MODULES, _FUNCTIONS = NAMES["modules"], NAMES["torch"]

#: Operators that only pack, unpack or return values, tensors or others.
STRUCTURE: dict[str, Callable[..., Any]] = {
    "ListConstruct": lambda *items: list(items),
    "TupleConstruct": lambda *items: list(items),
    "DictConstruct": lambda *items: dict(zip(items[::2], items[1::2], strict=True)),
    "ListUnpack": lambda items: items,
    "TupleUnpack": lambda items: items,
    "append": lambda items, item: [*items, item],
    "unchecked_cast": lambda value: value,
    "noop_identity": lambda value: value,
}

#: Arithmetic on numbers and lists, done while reading.
FOLDS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, *_: a + b, "sub": lambda a, b, *_: a - b, "mul": operator.mul,
    "div": lambda a, b, *_: a / b, "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "pow": operator.pow,
    "neg": operator.neg, "floor": math.floor, "ceil": math.ceil, "Int": int, "Float": float,
    "Bool": bool, "IntImplicit": int, "FloatImplicit": float, "ScalarImplicit": lambda value: value,
    "NumToTensor": lambda value: value, "len": len, "__getitem__": operator.getitem,
    "max": max, "min": min, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt,
    "le": operator.le, "gt": operator.gt, "ge": operator.ge, "__not__": operator.not_,
    "__is__": operator.is_, "__isnot__": operator.is_not,
    "MergedSlice": lambda items, *cut: items[slice(*cut)], "slice": lambda items, *cut: items[slice(*cut)],
}


def lowers(parameters: str, *names: str) -> Callable[[Lowering], Lowering]:
    """Register the decorated lowering for operators ``names``.

    ``parameters`` names their positional arguments in order, as torch does, but ``x`` for the first tensor.
    Later arguments do not matter to shapes or latency.
    """

    def register(lowering: Lowering) -> Lowering:
        for name in names:
            LOWERINGS[name] = (parameters.split(), lowering)
        return lowering

    return register


@lru_cache(maxsize=1024)  # a model repeats its few types hundreds of times
def operator_name(ir_type: str) -> str:
    """The name of an IR type in the tables of this module.

    >>> operator_name("__torch__.torch.nn.modules.conv.Conv2d"), operator_name("Function._max_pool2d")
    ('Conv2d', 'max_pool2d')
    >>> operator_name("aten::relu_"), operator_name("__torch__.my_project.Conv2d")
    ('relu', 'my_project.Conv2d')
    >>> operator_name("my_library::fold")
    'my_library::fold'
    """
    for prefix in ("__torch__.", "__mutated__."):
        if ir_type.startswith(prefix):
            path = ir_type[len(prefix):]
            package, _, _ = path.partition(".")
            # Only classes of torch and NNI are known by name; other libraries may use the same names.
            return path.rpartition(".")[2].removeprefix("Mutable") if package in ("torch", "nni") else path
    namespace, _, name = ir_type.removeprefix("Function.").rpartition("::")
    if namespace not in ("", "aten", "prim"):
        return ir_type
    return name if name.startswith("__") else name.strip("_")


def lower(name: str, positional: list[Any], keywords: dict[str, Any], builder: Builder) -> Any:
    """Build operator ``name`` with its arguments; return its value.

    Raises:
        NotLoweredError: no entry covers this operator with these arguments.
    """
    if name in STRUCTURE:
        return STRUCTURE[name](*positional)
    if name in FOLDS and _COMPUTED.isdisjoint(map(type, positional)):
        return Weight() if any(isinstance(v, Weight) for v in positional) else FOLDS[name](*positional)
    found = LOWERINGS.get(name)
    if found is None:
        return _as_declared(name, positional, keywords, builder)
    parameters, lowering = found
    args = {**dict(zip(parameters, positional, strict=False)), **keywords}
    return lowering(NniCall(name, args, positional, builder))


def is_known(name: str) -> bool:
    """Whether this module knows operator ``name``."""
    operator = _declared(name)
    return name in LOWERINGS or (operator is not None and operator.attrs is not None)


def _declared(name: str) -> Operator | None:
    return _MODULES.get(name) or _FUNCTIONS.get(name)


def _as_declared(name: str, positional: list[Any], keywords: dict[str, Any], builder: Builder) -> Any:
    """An operator whose arguments need no translation: operands first, then attributes."""
    operator = _declared(name)
    if operator is None or operator.attrs is None:
        raise NotLoweredError(name)
    if operator.operands is None:
        return _binary(operator.name, positional[:2], builder)
    operands = positional[: operator.operands]
    if len(operands) < operator.operands or not _COMPUTED.issuperset(map(type, operands)):
        raise NotLoweredError(f"{name} takes {operator.operands} computed tensor(s)")
    attrs: dict[str, Any] = {}
    if operator.attrs:
        given = {**dict(zip(operator.attrs, positional[operator.operands :], strict=False)), **keywords}
        attrs = {key: given[key] for key in operator.attrs if key in given}
    return builder.emit(operator.name, operands, attrs)


#: Operators whose result depends on the order of their operands.
_ORDERED = frozenset({"sub", "div", "pow"})


def _binary(op: str, values: list[Any], builder: Builder) -> Output:
    """Two tensors, or a tensor and a number or weight; a 0 stays 0, so that zeros are pruned."""
    attrs: dict[str, Any] = {}
    operands = []
    if op in _ORDERED and not isinstance(values[0], Output):
        attrs["const_first"] = True
    for value in values:
        if isinstance(value, Output):
            operands.append(value)
        elif isinstance(value, Weight):
            attrs["const_shape"] = value.shape or ()
        else:
            attrs["const"] = float(value)
    return builder.emit(op, operands, attrs)


@lowers("x y", "rsub")
def _rsub(call: NniCall) -> Output:
    """A difference with swapped operands."""
    return _binary("sub", [call.args["y"], call.args["x"]], call.builder)


@lowers("x", "to", "type_as", "data")
def _identity(call: NniCall) -> Output:
    """The same tensor, as far as the IR shows."""
    return call.emit("identity", call.x)


@lowers("x", "square")
def _square(call: NniCall) -> Output:
    """The power of two."""
    return call.emit("pow", call.x, const=2.0)


@lowers("x", "reciprocal")
def _reciprocal(call: NniCall) -> Output:
    """One divided by the operand."""
    return call.emit("div", call.x, const=1.0, const_first=True)


@lowers("x", "Conv1d", "Conv2d", "Conv3d")
def _conv(call: NniCall) -> Output:
    """Padding may be a number, a number per dimension, "valid" or "same" (stride 1, as in torch)."""
    kernel, dilation = call.per_dimension("kernel_size", None), call.per_dimension("dilation", 1)
    padding: Any = call.args.get("padding", 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(0, 0)] * call.rank if padding == "valid" else _pairs(call)
    return call.emit(
        "conv", call.x, kernel=kernel, stride=call.per_dimension("stride", 1), padding=pairs,
        dilation=dilation, **_weights(call),
    )


def _weights(call: NniCall) -> dict[str, Any]:
    """The groups, channels and bias of a convolution."""
    args = call.args
    weights = {"groups": args.get("groups", 1), "in_channels": args["in_channels"],
               "out_channels": args["out_channels"]}
    if args.get("bias", True):
        weights["bias"] = True
    return weights


@lowers("x weight bias stride padding dilation groups", "conv1d", "conv2d", "conv3d")
@lowers("x weight bias stride padding output_padding groups dilation", "conv_transpose1d", "conv_transpose2d",
        "conv_transpose3d")
def _dynamic_conv(call: NniCall) -> Output:
    """A convolution as a function; only computed weights have a shape that the IR tells."""
    weights, bias = call.tensor("weight"), call.args.get("bias")
    attrs: dict[str, Any] = {
        "stride": call.per_dimension("stride", 1), "dilation": call.per_dimension("dilation", 1),
        "groups": call.args.get("groups") or 1, "padding": call.args.get("padding") or 0,
    }  # fmt: skip
    if attrs["padding"] == "same":
        totals = [d * (k - 1) for d, k in zip(attrs["dilation"], call.shape(weights)[2:], strict=True)]
        attrs["padding"] = [(total // 2, total - total // 2) for total in totals]
    elif attrs["padding"] != "valid":
        attrs["padding"] = _pairs(call)
    op = "dynamicconv"
    if "transpose" in call.name:
        op, attrs["output_padding"] = "dynamicconvtranspose", call.per_dimension("output_padding", 0)
    return call.emit(op, call.x, weights, *([bias] if isinstance(bias, Output) else []), **attrs)


@lowers("x", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
def _convtranspose(call: NniCall) -> Output:
    """Transposed convolution."""
    return call.emit(
        "convtranspose", call.x, kernel=call.per_dimension("kernel_size", None),
        stride=call.per_dimension("stride", 1), padding=_pairs(call),
        output_padding=call.per_dimension("output_padding", 0),
        dilation=call.per_dimension("dilation", 1), **_weights(call),
    )


def _pairs(call: NniCall) -> list[tuple[int, int]]:
    """The symmetric padding of a window."""
    return [(p, p) for p in call.per_dimension("padding", 0)]


@lowers("x", "Linear")
def _linear(call: NniCall) -> Output:
    """A dense layer over the last dimension."""
    return call.emit("fc", call.x, in_features=call.args["in_features"],
                     out_features=call.args["out_features"],
                     **({} if call.args.get("bias", True) else {"bias": False}))


@lowers("x states", "LSTM", "GRU", "RNN")
def _recurrent(call: NniCall) -> list[Any]:
    """Recurrent layers; the result, and the last states (a pair if they are two)."""
    args, op = call.args, call.name.lower()
    if "hidden_size" not in args:
        raise ReaderError(
            f"the IR does not tell the sizes of {call.name}, since NNI keeps only its named arguments; write "
            f"nn.{call.name}(input_size=..., hidden_size=...)"
        )
    hidden, projected = args["hidden_size"], args.get("proj_size", 0)
    stack = Stack(op, hidden, args.get("num_layers", 1), 2 if args.get("bidirectional") else 1, projected,
                  args.get("bias", True), args.get("batch_first", False))
    x, batched = call.x, len(call.shape()) == 3
    if not batched:
        if args.get("states") is not None:
            raise NotLoweredError("states without a batch")
        x = call.emit("unsqueeze", x, axes=(0 if stack.batch_first else 1,))

    def add(op: str, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> str:
        return call.emit(op, *(Output(*operand) for operand in operands), **attrs).producer

    result, *last = (Output(*o) for o in stack.build(add, x, list(tensors_in(args.get("states")))))
    if not batched:
        result = call.emit("squeeze", result, axes=(0 if stack.batch_first else 1,))
        last = [call.emit("squeeze", state, axes=(1,)) for state in last]
    return [result, last if op == "lstm" else last[0]]


def _adder(call: NniCall) -> Add:
    """What adds operators for ``call``."""

    def add(op: str, operands: Sequence[Operand], attrs: Mapping[str, Any]) -> Operand:
        return call.emit(op, *(Output(*operand) for operand in operands), **attrs)

    return add


def _factor(call: NniCall, value: Any) -> Factor:
    """A tensor to multiply; the IR may not tell the shape of a constant one."""
    if isinstance(value, Output):
        return Factor(value, call.shape(value))
    if not isinstance(value, Weight) or value.shape is None:
        raise NotLoweredError("a factor of unknown shape")
    return Factor(None, value.shape)


@lowers("left right", "matmul", "mm", "bmm", "mv", "dot")
@lowers("summand left right", "addmm", "addmv", "baddbmm", "addbmm")
def _product(call: NniCall) -> Output:
    """A product of matrices, and a summand."""
    left, right = (_factor(call, call.args[key]) for key in ("left", "right"))
    if left.operand is None and right.operand is None:
        raise NotLoweredError("a product of constants")
    summand = call.args.get("summand")
    has_bias = summand is not None and not isinstance(summand, Output) and is_dense(left, right)
    value = Output(*product(_adder(call), left, right, has_bias))
    if call.name == "addbmm":
        value = call.emit("sum", value, axes=(0,))
    return value if has_bias or summand is None else _binary("add", [value, summand], call.builder)


@lowers("x weight bias", "linear")
def _functional_linear(call: NniCall) -> Output:
    """A dense layer as a function; only computed weights have a shape that the IR tells."""
    call.args["left"], call.args["summand"] = call.x, call.args.get("bias")
    call.args["right"] = call.emit("transpose", call.tensor("weight"), perm=(1, 0))
    return _product(call)


@lowers("equation tensors", "einsum")
def _einsum(call: NniCall) -> Output:
    """A sum of products."""
    factors = [_factor(call, value) for value in call.args["tensors"]]
    try:
        return Output(*einsum(_adder(call), call.args["equation"], factors))
    except NoProductError as error:
        raise NotLoweredError("a diagonal") from error


@lowers("x kernel_size stride padding dilation ceil_mode", "MaxPool1d", "MaxPool2d", "MaxPool3d",
        "max_pool1d", "max_pool2d", "max_pool3d")
def _maxpool(call: NniCall) -> Output:
    """Maximum over a window; the stride is the kernel unless given."""
    return _pool(call, "maxpool", dilation=call.per_dimension("dilation", 1))


@lowers("x kernel_size stride padding ceil_mode", "AvgPool1d", "AvgPool2d", "AvgPool3d",
        "avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avgpool(call: NniCall) -> Output:
    """Average over a window; the stride is the kernel unless given."""
    return _pool(call, "avgpool")


def _pool(call: NniCall, op: str, **attrs: Any) -> Output:
    kernel = call.per_dimension("kernel_size", None)
    return call.emit(op, call.x, kernel=kernel, stride=call.per_dimension("stride", kernel),
                     padding=_pairs(call), ceil_mode=bool(call.args.get("ceil_mode", False)), **attrs)


@lowers("x output_size", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d",
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
        "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d",
        "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_pool(call: NniCall) -> Output:
    """A pool with a given output size; None keeps the size of the input."""
    size = call.args["output_size"]
    sizes = (size,) * call.rank if isinstance(size, int) or size is None else tuple(size)
    op = "adaptiveavgpool" if "avg" in call.name.lower() else "adaptivemaxpool"
    return call.emit(op, call.x, output_size=sizes * call.rank if len(sizes) == 1 else sizes)


@lowers("x dim keepdim", "mean", "sum", "prod")
def _reduction(call: NniCall) -> Output:
    """Reduce given dimensions, or all; for all, torch passes a data type instead of dimensions."""
    return _reduce(call, None if len(call.positional) < 3 else call.args.get("dim"))


@lowers("x dim keepdim", "amax", "amin")
def _extreme(call: NniCall) -> Output:
    """The largest or least value over given dimensions, or over all."""
    return _reduce(call, call.args.get("dim"))


@lowers("x dim keepdim", "max", "min")
def _extreme_along(call: NniCall) -> Any:
    """Over all values, along one dimension (also returns positions), or of two tensors."""
    if isinstance(call.args.get("dim"), Output):
        return call.emit("maximum" if call.name == "max" else "minimum", call.x, call.tensor("dim"))
    reduced = _reduce(call, call.args.get("dim"))
    return reduced if call.args.get("dim") is None else [reduced, reduced]


def _reduce(call: NniCall, dims: int | list[int] | None) -> Output:
    """A reduction over ``dims``."""
    axes = (dims,) if isinstance(dims, int) else tuple(dims or range(len(call.shape())))
    keepdims = bool(call.args.get("keepdim", False))
    return call.emit(_FUNCTIONS[call.name].name, call.x, axes=axes, keepdims=keepdims)


@lowers("x min max", "clamp", "clip")
def _clamp(call: NniCall) -> Output:
    """Clip to two bounds, either of which may be missing."""
    return _clip(call, call.args.get("min"), call.args.get("max"))


@lowers("x bound", "clamp_min", "clamp_max")
def _one_bound(call: NniCall) -> Output:
    """Clip to one bound."""
    bound = call.args["bound"]
    return _clip(call, bound, None) if call.name == "clamp_min" else _clip(call, None, bound)


@lowers("x min_val max_val", "Hardtanh", "hardtanh")
def _hardtanh(call: NniCall) -> Output:
    """Clip to two bounds, by default -1 and 1."""
    return _clip(call, call.args.get("min_val", -1.0), call.args.get("max_val", 1.0))


def _clip(call: NniCall, low: Any, high: Any) -> Output:
    """A clip to numbers; limits in tensors are a maximum and a minimum."""
    if not any(isinstance(limit, Output | Weight) for limit in (low, high)):
        return call.emit("clip", call.x, min=low, max=high)
    value = call.x
    for op, limit in (("maximum", low), ("minimum", high)):
        if limit is not None:
            value = _binary(op, [value, limit], call.builder)
    return value


@lowers("tensors dim", "cat", "concat", "concatenate")
def _concat(call: NniCall) -> Output:
    """Join tensors along a dimension."""
    return call.emit("concat", *call.tensors("tensors"), axis=call.args.get("dim", 0))


@lowers("tensors dim", "stack")
def _stack(call: NniCall) -> Output:
    """Join tensors along a new dimension."""
    axis = call.args.get("dim", 0)
    return call.emit("concat", *(call.emit("unsqueeze", t, axes=(axis,)) for t in call.tensors("tensors")),
                     axis=axis)


@lowers("x chunks dim", "chunk")
def _chunk(call: NniCall) -> list[Output]:
    """Cut into a number of parts; the last one may be smaller."""
    axis, count = call.args.get("dim", 0), call.args["chunks"]
    return _split(call, axis, -(-call.shape()[axis] // count))


@lowers("x split_size dim", "split", "split_with_sizes")
def _split_sizes(call: NniCall) -> list[Output]:
    """Cut into parts of one size (the last one may be smaller), or into parts of given sizes."""
    return _split(call, call.args.get("dim", 0), call.args["split_size"])


def _split(call: NniCall, axis: int, size: int | Sequence[int]) -> list[Output]:
    length = call.shape()[axis]
    if isinstance(size, int):
        size = [min(size, length - start) for start in range(0, length, size)]
    whole = call.emit("split", call.x, axis=axis, sections=list(size))
    return [Output(whole.producer, slot) for slot in range(len(size))]


@lowers("x dim", "unbind")
def _unbind(call: NniCall) -> list[Output]:
    """Cut into slices of size 1, and drop the dimension."""
    axis = call.args.get("dim", 0)
    return [call.emit("squeeze", part, axes=(axis,)) for part in _split(call, axis, 1)]


@lowers("x dim index", "select")
def _select(call: NniCall) -> Output:
    """Take one position along a dimension, and drop the dimension."""
    axis, index = call.args["dim"], call.args["index"]
    part = call.emit("slice", call.x, axis=axis, start=index, stop=index + 1 or None, step=1)
    return call.emit("squeeze", part, axes=(axis,))


@lowers("x", "slice", "MergedSlice")
def _slice(call: NniCall) -> Output:
    """A tensor, then one or more (dimension, start, stop, step); slices that keep everything cost nothing."""
    cuts, tensor = call.positional[1:], call.x
    for axis, start, stop, step in zip(*(cuts[i::4] for i in range(4)), strict=True):
        length = call.shape(tensor)[axis]
        if slice(start, stop, step).indices(length) != (0, length, 1):
            tensor = call.emit("slice", tensor, axis=axis, start=start, stop=stop, step=step)
    return tensor


@lowers("x shape", "view", "reshape")
def _reshape(call: NniCall) -> Output:
    """Other sizes for the same elements; one may be -1 and follows from the others.

    The IR does not know a size that comes from a list kept in the module. It follows from the others too, if
    the only -1 stands for the batch.
    """
    sizes = list(call.args["shape"])
    unknown = [i for i, size in enumerate(sizes) if isinstance(size, Weight)]
    if unknown and sizes[0] == -1:
        sizes[0] = call.shape()[0]
    for i in unknown:
        sizes[i] = -1
    if sizes.count(-1) > 1:
        raise NotLoweredError("the IR does not tell the sizes")
    return call.emit("reshape", call.x, shape=tuple(sizes))


@lowers("x dim unflattened_size", "unflatten", "Unflatten")
def _unflatten(call: NniCall) -> Output:
    """Split one dimension into several."""
    shape = call.shape()
    axis = call.args["dim"] % len(shape)
    return call.emit("reshape", call.x,
                     shape=(*shape[:axis], *call.args["unflattened_size"], *shape[axis + 1:]))


@lowers("x start_dim end_dim", "flatten", "Flatten")
def _flatten(call: NniCall) -> Output:
    """Join neighbouring dimensions. By default the module keeps the batch and the function does not."""
    start = call.args.get("start_dim", 1 if call.name == "Flatten" else 0)
    return call.emit("flatten", call.x, start=start, end=call.args.get("end_dim", -1))


@lowers("x dims", "permute")
def _permute(call: NniCall) -> Output:
    """Reorder all dimensions."""
    return call.emit("transpose", call.x, perm=tuple(d % len(call.args["dims"]) for d in call.args["dims"]))


@lowers("x dim0 dim1", "transpose", "swapaxes", "swapdims", "t")
def _transpose(call: NniCall) -> Output:
    """Swap two dimensions; ``t`` swaps the only two."""
    perm = list(range(len(call.shape())))
    first, second = call.args.get("dim0", 0), call.args.get("dim1", -1)
    perm[first], perm[second] = perm[second], perm[first]
    return call.emit("transpose", call.x, perm=tuple(perm))


@lowers("x dim", "squeeze")
def _squeeze(call: NniCall) -> Output:
    """Drop dimensions of size 1: the given ones, or all."""
    dims = call.args.get("dim")
    return call.emit("squeeze", call.x, axes=(dims,) if isinstance(dims, int) else dims)


@lowers("x dim", "unsqueeze")
def _unsqueeze(call: NniCall) -> Output:
    """Insert a dimension of size 1."""
    return call.emit("unsqueeze", call.x, axes=(call.args["dim"],))


@lowers("x pad", "pad", "constant_pad_nd")
def _pad(call: NniCall) -> Output:
    """Torch lists (before, after) from the last dimension backwards."""
    flat = list(call.args["pad"])
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    return call.emit("pad", call.x, padding=[(0, 0)] * (len(call.shape()) - len(pairs)) + pairs)


@lowers("x padding", *OPERATORS["pad"].modules)
def _pad_module(call: NniCall) -> Output:
    """A padding layer: one number for all sides, or the list of the function ``pad``."""
    padding = call.args["padding"]
    call.args["pad"] = [padding] * (2 * call.rank) if isinstance(padding, int) else padding
    return _pad(call)


@lowers("x size scale_factor", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "interpolate",
        "upsample", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
@lowers("x size align_corners scale_factor", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_trilinear3d", "upsample_bicubic2d")
def _upsample(call: NniCall) -> Output:
    """Resize the map to a size or by a factor."""
    rank = len(call.shape()) - 2
    size: Any = call.args.get("size")
    scale: Any = call.args.get("scale_factor")
    if size is not None:
        return call.emit("upsample", call.x, size=(size,) * rank if isinstance(size, int) else tuple(size))
    scales = (scale,) * rank if isinstance(scale, (int, float)) else tuple(scale)
    return call.emit("upsample", call.x, scale=scales * rank if len(scales) == 1 else scales)


@lowers("x upscale_factor", "PixelShuffle", "pixel_shuffle")
def _pixelshuffle(call: NniCall) -> Output:
    """Turn channels into a larger map."""
    return call.emit("pixelshuffle", call.x, factor=call.args["upscale_factor"])


@lowers("x downscale_factor", "PixelUnshuffle", "pixel_unshuffle")
def _pixelunshuffle(call: NniCall) -> Output:
    """Turn blocks of the map into channels."""
    return call.emit("pixelunshuffle", call.x, factor=call.args["downscale_factor"])


@lowers("x shape", "expand")
def _expand(call: NniCall) -> Output:
    """Repeat dimensions of size 1; -1 keeps a size."""
    sizes, shape = list(call.args["shape"]), call.shape()
    if any(isinstance(size, Weight) for size in sizes):
        raise NotLoweredError("the IR does not tell the sizes")
    aligned = (1,) * (len(sizes) - len(shape)) + shape
    target = tuple(old if size == -1 else size for size, old in zip(sizes, aligned, strict=True))
    return call.x if target == shape else call.emit("expand", call.x, shape=target)


@lowers("x repeats", "repeat")
def _tile(call: NniCall) -> Output:
    """Copies along each dimension."""
    return call.emit("tile", call.x, repeats=tuple(call.args["repeats"]))


@lowers("tensors", "ChosenInputs")
def _chosen_inputs(call: NniCall) -> Any:
    """NNI's frozen input choice: the chosen tensors, reduced as the choice says."""
    chosen, reduction = call.args["chosen"], call.args["reduction"]
    tensors = [call.tensors("tensors")[i] for i in ([chosen] if isinstance(chosen, int) else chosen)]
    if reduction == "none":
        return tensors
    if reduction == "concat" and len(tensors) > 1:
        return call.emit("concat", *tensors, axis=1)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = call.emit("add", total, tensor)
    if reduction == "mean" and len(tensors) > 1:
        return call.emit("div", total, const=float(len(tensors)))
    return total


@lowers("x dim", "size")
def _size(call: NniCall) -> Any:
    """All sizes of a tensor, or one."""
    shape, dim = list(call.shape()), call.args.get("dim")
    return shape if dim is None else shape[dim]


@lowers("x", "dim")
def _dim(call: NniCall) -> int:
    """The number of dimensions."""
    return len(call.shape())


@lowers("x", "len")
def _len(call: NniCall) -> int:
    """The first size."""
    return call.shape()[0]


@lowers("x", "numel")
def _numel(call: NniCall) -> int:
    """The number of elements."""
    return math.prod(call.shape())


@lowers("x", "dtype", "device", "layout", "is_cuda")
def _storage(call: NniCall) -> None:
    """How a tensor is stored; no shape or latency depends on it."""


def tensors_in(value: Any) -> Iterator[Output]:
    """All computed tensors in a value, also inside lists and dicts."""
    if isinstance(value, Output):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
