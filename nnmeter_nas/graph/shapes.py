"""Shape inference: one short rule per operator, NCHW (or NCL, N..., as the input comes).

A rule maps ``(input shapes, attributes)`` to output shapes. Adding an operator is adding a rule.
Windows follow ``out = (in + pads - dilation*(kernel-1) - 1) // stride + 1``; ``padding`` is
``"same"`` (TensorFlow's: ``ceil(in / stride)``), ``"valid"``, or one ``(before, after)`` per
spatial dimension.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal

import networkx as nx

from ..errors import ShapeError

Shape = tuple[int, ...]
Padding = Literal["same", "valid"] | Sequence[tuple[int, int]]
ShapeRule = Callable[[list[Shape], dict[str, Any]], list[Shape]]

SHAPE_RULES: dict[str, ShapeRule] = {}

#: One operand in, the same shape out.
UNARY_OPS = (
    "bn", "norm", "relu", "relu6", "prelu", "leakyrelu", "elu", "gelu", "mish", "erf", "sigmoid", "tanh",
    "swish", "hswish", "hsigmoid", "softplus", "softmax", "exp", "sqrt", "neg", "abs", "clip", "identity",
    "dropout", "zeros_like", "cast",
)
#: Element-wise operators of one or more tensors, with broadcasting; ``const`` is a scalar operand.
ELEMENTWISE_OPS = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")


def shape_rule(*ops: str) -> Callable[[ShapeRule], ShapeRule]:
    """Register the decorated function as the shape rule of ``ops``."""

    def register(rule: ShapeRule) -> ShapeRule:
        for op in ops:
            SHAPE_RULES[op] = rule
        return rule

    return register


def infer_shapes(graph: nx.DiGraph, order: Iterable[str], inferred: Container[str] = ()) -> None:
    """Fill ``in_shapes`` and ``out_shapes`` of every node of a model graph, in place.

    ``order`` names all nodes, producers first; those that are ``inferred`` have their shapes already.
    Shapes that an outside format declared are used only where no rule exists; elsewhere a differing one is
    noted in ``graph.graph["shape_mismatches"]``.

    Raises:
        ShapeError: as :func:`infer_operator`.
    """
    mismatches = graph.graph["shape_mismatches"] = []
    nodes = dict(graph.nodes(data=True))
    for name in order:
        if name not in inferred:
            infer_operator(graph, name)
        declared, found = nodes[name]["declared"], nodes[name]["out_shapes"]
        if declared and declared != found and (claimed := [tuple(s) for s in declared]) != found:
            mismatches.append((name, claimed, found))


def infer_operator(graph: nx.DiGraph, name: str) -> None:
    """Fill ``in_shapes`` and ``out_shapes`` of one node, whose producers have theirs already.

    A convolution whose groups equal its input channels becomes a ``dwconv``, an adaptive pool a
    plain or global one.

    Raises:
        ShapeError: batch other than 1, missing or contradictory shapes; names the operator.
    """
    data = graph.nodes[name]
    data["in_shapes"] = [operand_shape(graph, name, operand) for operand in data["inputs"]]
    rule = SHAPE_RULES.get(data["op"])
    if rule is None:
        declared = data["declared"]
        if not declared or not all(map(_are_sizes, declared)):
            raise ShapeError(
                f"no shape rule knows {data['op']!r} and the model declares no shape for it "
                f"(declared: {declared})", name
            )
        data["out_shapes"] = [tuple(s) for s in declared]
        return
    try:
        data["out_shapes"] = rule(data["in_shapes"], data["attrs"])
    except ShapeError as error:
        raise ShapeError(str(error), name) from None
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ShapeError(
            f"attributes {data['attrs']} do not fit input shapes {data['in_shapes']} of "
            f"{data['op']!r} ({type(error).__name__}: {error})", name
        ) from error
    if not all(map(_are_sizes, data["out_shapes"])):
        raise ShapeError(
            f"{data['op']!r} on {data['in_shapes']} with {data['attrs']} leaves an empty tensor "
            f"{data['out_shapes']}", name
        )
    _specialise(data)


def operand_shape(graph: nx.DiGraph, consumer: str, operand: tuple[str, int]) -> Shape:
    """Shape of what ``operand`` hands to ``consumer``; a ShapeError if its producer has no such output."""
    producer, slot = operand
    shapes = graph.nodes[producer]["out_shapes"]
    if not 0 <= slot < len(shapes):
        raise ShapeError(f"its operand {producer!r} has no output {slot}", consumer)
    return shapes[slot]


def _specialise(data: dict[str, Any]) -> None:
    """Rename an operator to the canonical one its shapes make it."""
    attrs = data["attrs"]
    if data["op"] == "conv" and 1 < attrs.get("groups", 1) == data["in_shapes"][0][1]:
        data["op"] = "dwconv"
    elif data["op"] in ("adaptiveavgpool", "adaptivemaxpool"):
        spatial, out = data["in_shapes"][0][2:], data["out_shapes"][0][2:]
        kind = data["op"][len("adaptive"):]
        if all(o == 1 for o in out):
            data["op"] = "globalavgpool" if kind == "avgpool" else kind
        elif all(i % o == 0 for i, o in zip(spatial, out, strict=True)):
            data["op"] = kind
        if data["op"] == kind:
            window = tuple(i // o for i, o in zip(spatial, out, strict=True))
            attrs.update(kernel=window, stride=window, padding="valid")
    elif data["op"] == "avgpool" and _covers_map(data):
        data["op"] = "globalavgpool"
    elif data["op"] == "mean" and set(attrs["axes"]) == set(range(2, len(data["in_shapes"][0]))):
        data["op"] = "globalavgpool"


def _covers_map(data: dict[str, Any]) -> bool:
    """Whether an average pool's window is its whole, unpadded, input map."""
    shape, attrs = data["in_shapes"][0], data["attrs"]
    return tuple(attrs["kernel"]) == shape[2:] and all(d == 1 for d in data["out_shapes"][0][2:])


def window_out(size: int, kernel: int, stride: int, padding: Padding, axis: int,
               dilation: int = 1, ceil_mode: bool = False) -> int:
    """Output length of a sliding window along one spatial dimension.

    >>> window_out(224, 3, 2, "same", 0), window_out(224, 7, 2, [(3, 3)], 0)
    (112, 112)
    """
    if padding == "same":
        return -(-size // stride)
    before, after = (0, 0) if padding == "valid" else padding[axis]
    room = size + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # PyTorch and ONNX: a window may not start inside the padding after the map.
    return out - 1 if (out - 1) * stride >= size + before else out


def spatial_attrs(attrs: dict[str, Any], rank: int) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and dilation as tuples of length ``rank``, or a ShapeError."""
    ones = (1,) * rank
    kernel, stride = tuple(attrs["kernel"]), tuple(attrs.get("stride") or ones)
    dilation = tuple(attrs.get("dilation") or ones)
    for key, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if len(value) != rank or not _are_sizes(value):
            raise ShapeError(f"{key}={value} does not fit a map of {rank} spatial dimension(s)")
    return kernel, stride, dilation


def _are_sizes(values: Iterable[Any]) -> bool:
    return all(map(_is_size, values))


def _is_size(value: Any) -> bool:
    # Nearly every size is a plain int, and asking an abstract class takes ten times as long.
    return (type(value) is int or isinstance(value, numbers.Integral)) and int(value) > 0


def _one(shapes: list[Shape]) -> Shape:
    if len(shapes) != 1:
        raise ShapeError(f"takes one operand, got {len(shapes)}")
    return shapes[0]


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} does not exist in a tensor of {rank} dimensions")
    return axis % rank


@shape_rule("input")
def _input(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """The given shape; batch must be 1, since every pack was measured at batch 1."""
    shape = attrs.get("shape")
    if not shape or any(not isinstance(d, int) or d < 1 for d in shape):
        raise ShapeError(f"input shape {shape} is missing or not of positive sizes; pass input_shape")
    if shape[0] != 1:
        raise ShapeError(f"batch is {shape[0]}, but latency is predicted at batch 1; pass batch 1")
    return [tuple(shape)]


@shape_rule("constant", "zero")
def _constant(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A tensor of fixed ``shape``."""
    return [tuple(attrs["shape"])]


@shape_rule(*UNARY_OPS)
def _unary(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Same shape as the input."""
    return [_one(shapes)]


@shape_rule(*ELEMENTWISE_OPS)
def _elementwise(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Broadcast of all operands and of ``const_shape``, NumPy's rule."""
    if "const_shape" in attrs:
        shapes = [*shapes, tuple(attrs["const_shape"])]
    if not shapes:
        raise ShapeError("takes at least one operand")
    rank = max(len(s) for s in shapes)
    aligned = [(1,) * (rank - len(s)) + s for s in shapes]
    out = tuple(max(dims) for dims in zip(*aligned, strict=True))
    for shape in aligned:
        if any(d not in (1, o) for d, o in zip(shape, out, strict=True)):
            raise ShapeError(f"operand shapes {shapes} do not broadcast")
    return [out]


@shape_rule("conv", "dwconv")
def _conv(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Any number of spatial dimensions; groups must divide both channel counts."""
    batch, channels, *spatial = _one(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    out_channels, groups = attrs["out_channels"], attrs.get("groups", 1)
    if attrs.get("in_channels", channels) != channels:
        raise ShapeError(f"its weights take {attrs['in_channels']} channels, its input has {channels}")
    if not _is_size(groups) or channels % groups or out_channels % groups:
        raise ShapeError(f"groups={groups} does not divide channels {channels} -> {out_channels}")
    padding = attrs.get("padding", "valid")
    out = [window_out(size, kernel[i], stride[i], padding, i, dilation[i])
           for i, size in enumerate(spatial)]
    return [(batch, out_channels, *out)]


@shape_rule("convtranspose")
def _convtranspose(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``(in-1)*stride - pads + dilation*(kernel-1) + output_padding + 1``; "same" is in*stride."""
    batch, channels, *spatial = _one(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    if attrs.get("in_channels", channels) != channels:
        raise ShapeError(f"its weights take {attrs['in_channels']} channels, its input has {channels}")
    padding, extra = attrs.get("padding", "valid"), attrs.get("output_padding", (0,) * len(spatial))
    out = []
    for i, size in enumerate(spatial):
        if padding == "same":
            out.append(size * stride[i])
            continue
        before, after = (0, 0) if padding == "valid" else padding[i]
        reach = dilation[i] * (kernel[i] - 1) + extra[i] + 1
        out.append((size - 1) * stride[i] - before - after + reach)
    return [(batch, attrs["out_channels"], *out)]


@shape_rule("maxpool", "avgpool")
def _pool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A window over each channel; ``ceil_mode`` as in PyTorch."""
    batch, channels, *spatial = _one(shapes)
    kernel, stride, dilation = spatial_attrs(attrs, len(spatial))
    padding, ceil_mode = attrs.get("padding", "valid"), attrs.get("ceil_mode", False)
    out = [window_out(size, kernel[i], stride[i], padding, i, dilation[i], ceil_mode)
           for i, size in enumerate(spatial)]
    return [(batch, channels, *out)]


@shape_rule("globalavgpool")
def _globalavgpool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Mean over the whole map; the map stays as 1x1 unless ``keepdims`` is False."""
    batch, channels, *spatial = _one(shapes)
    return [(batch, channels, *(1 for _ in spatial)) if attrs.get("keepdims", True) else (batch, channels)]


@shape_rule("adaptiveavgpool", "adaptivemaxpool")
def _adaptive_pool(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``output_size`` of each spatial dimension; None keeps the input's."""
    batch, channels, *spatial = _one(shapes)
    size = attrs["output_size"]
    sizes = (size,) * len(spatial) if isinstance(size, int) or size is None else tuple(size)
    return [(batch, channels, *(s if o is None else o for s, o in zip(spatial, sizes, strict=True)))]


@shape_rule("mean")
def _mean(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Reduce ``axes``, kept as 1 if ``keepdims``."""
    shape = _one(shapes)
    axes = {_axis(a, len(shape)) for a in attrs["axes"]}
    attrs["axes"] = tuple(sorted(axes))
    if attrs.get("keepdims", False):
        return [tuple(1 if i in axes else d for i, d in enumerate(shape))]
    return [tuple(d for i, d in enumerate(shape) if i not in axes)]


@shape_rule("fc")
def _fc(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """A dense layer over the last dimension."""
    *lead, features = _one(shapes)
    if attrs.get("in_features", features) != features:
        raise ShapeError(f"its weights take {attrs['in_features']} features, its input has {features}")
    return [(*lead, attrs["out_features"])]


@shape_rule("matmul")
def _matmul(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Product of two computed matrices, batched as in NumPy."""
    left, right = shapes
    if left[-1] != right[-2]:
        raise ShapeError(f"inner sizes differ: {left} x {right}")
    [lead] = _elementwise([left[:-2], right[:-2]], {})
    return [(*lead, left[-2], right[-1])]


@shape_rule("concat")
def _concat(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Join along ``axis`` (default: channels); all other sizes must agree."""
    first = shapes[0]
    axis = _axis(attrs.get("axis", 1), len(first))
    for shape in shapes:
        if len(shape) != len(first) or shape[:axis] + shape[axis + 1:] != first[:axis] + first[axis + 1:]:
            raise ShapeError(f"operand shapes {shapes} differ outside axis {axis}")
    return [(*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1:])]


@shape_rule("split")
def _split(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Cut along ``axis`` into ``sections`` (a list of sizes, or a count of equal parts)."""
    shape = _one(shapes)
    axis = _axis(attrs.get("axis", 1), len(shape))
    sections = attrs["sections"]
    if isinstance(sections, int):
        if shape[axis] % sections:
            raise ShapeError(f"{shape[axis]} does not split into {sections} equal parts")
        sections = [shape[axis] // sections] * sections
    if sum(sections) != shape[axis]:
        raise ShapeError(f"sections {list(sections)} do not add up to {shape[axis]}")
    return [(*shape[:axis], size, *shape[axis + 1:]) for size in sections]


@shape_rule("reshape")
def _reshape(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """New ``shape``: one size may be -1; 0 copies the input's (ONNX)."""
    shape = _one(shapes)
    target = [shape[i] if d == 0 else int(d) for i, d in enumerate(attrs["shape"])]
    known = math.prod(d for d in target if d != -1)
    if -1 in target:
        target[target.index(-1)] = math.prod(shape) // known
    if math.prod(target) != math.prod(shape):
        raise ShapeError(f"cannot reshape {shape} to {tuple(attrs['shape'])}")
    return [tuple(target)]


@shape_rule("flatten")
def _flatten(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Join dimensions ``start`` (default 1) to ``end`` (default last)."""
    shape = _one(shapes)
    start, end = _axis(attrs.get("start", 1), len(shape) + 1), _axis(attrs.get("end", -1), len(shape))
    return [(*shape[:start], math.prod(shape[start:end + 1]), *shape[end + 1:])]


@shape_rule("transpose")
def _transpose(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Permute dimensions by ``perm``."""
    shape, perm = _one(shapes), attrs["perm"]
    if sorted(_axis(p, len(shape)) for p in perm) != list(range(len(shape))):
        raise ShapeError(f"perm={tuple(perm)} is not a permutation of {len(shape)} dimensions")
    return [tuple(shape[p] for p in perm)]


@shape_rule("squeeze")
def _squeeze(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Drop dimensions of size 1: ``axes``, or all."""
    shape = _one(shapes)
    axes = attrs.get("axes")
    if axes is None:
        return [tuple(d for d in shape if d != 1)]
    drop = {_axis(a, len(shape)) for a in axes}
    return [tuple(d for i, d in enumerate(shape) if i not in drop or d != 1)]


@shape_rule("unsqueeze")
def _unsqueeze(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Insert dimensions of size 1 at ``axes`` of the result."""
    shape = list(_one(shapes))
    rank = len(shape) + len(attrs["axes"])
    for axis in sorted(_axis(a, rank) for a in attrs["axes"]):
        shape.insert(axis, 1)
    return [tuple(shape)]


@shape_rule("slice")
def _slice(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """``[start:stop:step]`` along ``axis``, Python's rules."""
    shape = list(_one(shapes))
    axis = _axis(attrs["axis"], len(shape))
    cut = slice(attrs.get("start"), attrs.get("stop"), attrs.get("step"))
    shape[axis] = len(range(*cut.indices(shape[axis])))
    return [tuple(shape)]


@shape_rule("pad")
def _pad(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Add ``padding``: one (before, after) per dimension, batch and channels included."""
    shape = _one(shapes)
    return [tuple(d + b + a for d, (b, a) in zip(shape, attrs["padding"], strict=True))]


@shape_rule("upsample")
def _upsample(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Resize the map to ``size``, or by ``scale`` (a factor per spatial dimension)."""
    batch, channels, *spatial = _one(shapes)
    size = attrs.get("size") or [
        math.floor(d * f) for d, f in zip(spatial, attrs["scale"], strict=True)
    ]
    return [(batch, channels, *size)]


@shape_rule("expand")
def _expand(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Repeat dimensions of size 1 up to ``shape``; -1 keeps a size."""
    shape, target = _one(shapes), attrs["shape"]
    sizes = (1,) * (len(target) - len(shape)) + shape
    out = tuple(size if wanted == -1 else wanted for size, wanted in zip(sizes, target, strict=True))
    if any(size not in (1, wanted) for size, wanted in zip(sizes, out, strict=True)):
        raise ShapeError(f"cannot expand {shape} to {tuple(target)}")
    return [out]


@shape_rule("pixelshuffle")
def _pixelshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Channels become blocks of ``factor`` values along each dimension of the map."""
    (batch, channels, *spatial), factor = _one(shapes), attrs["factor"]
    left, uneven = divmod(channels, factor ** len(spatial))
    if uneven:
        raise ShapeError(f"factor={factor} does not divide {channels} channels into blocks")
    return [(batch, left, *(size * factor for size in spatial))]


@shape_rule("pixelunshuffle")
def _pixelunshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Blocks of ``factor`` values along each dimension of the map become channels."""
    (batch, channels, *spatial), factor = _one(shapes), attrs["factor"]
    if any(size % factor for size in spatial):
        raise ShapeError(f"factor={factor} does not divide the map {tuple(spatial)}")
    return [(batch, channels * factor ** len(spatial), *(size // factor for size in spatial))]


@shape_rule("channelshuffle")
def _channelshuffle(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Interleave ``groups`` of channels; same shape."""
    shape = _one(shapes)
    if shape[1] % attrs["groups"]:
        raise ShapeError(f"groups={attrs['groups']} does not divide {shape[1]} channels")
    return [shape]
