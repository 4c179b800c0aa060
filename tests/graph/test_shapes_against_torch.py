"""Shape rules agree with torch on every configuration that torch accepts, and reject what torch rejects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from nnmeter_nas.errors import ShapeError
from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph, validate
from nnmeter_nas.graph.shapes import Shape, infer_shapes

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE: dict[int, Callable[..., torch.Tensor]] = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d
}


def inferred(op: str, shapes: Sequence[Shape], attrs: dict[str, Any]) -> list[Shape] | None:
    """Output shapes of a model graph with one operator, or None if it is rejected."""
    graph = new_graph()
    inputs = [add_input(graph, f"input_{i}", shape) for i, shape in enumerate(shapes)]
    add_op(graph, "op", op, inputs, attrs)
    try:
        infer_shapes(graph, validate(graph))
    except ShapeError:
        return None
    shapes: list[Shape] = graph.nodes["op"]["out_shapes"]
    return shapes


def traced(function: Callable[..., Any], *shapes: Shape) -> list[Shape] | None:
    """Output shapes of a torch function, or None if torch rejects the input or the output is empty."""
    try:
        result = function(*(torch.empty(shape, device="meta") for shape in shapes))
    except RuntimeError:
        return None
    out = [tuple(t.shape) for t in (result if isinstance(result, tuple | list) else [result])]
    return None if any(0 in shape for shape in out) else out


def sizes(rank: int, low: int, high: int) -> st.SearchStrategy[Shape]:
    return st.tuples(*[st.integers(low, high)] * rank)


def shapes(low: int = 1, high: int = 5, size: int = 6) -> st.SearchStrategy[Shape]:
    """Shapes of ``low`` to ``high`` dimensions, batch 1."""
    rest = st.lists(st.integers(1, size), min_size=low - 1, max_size=high - 1)
    return rest.map(lambda dims: (1, *dims))


def pairs(padding: Shape) -> list[tuple[int, int]]:
    return [(p, p) for p in padding]


@given(st.data(), st.integers(1, 3))
def test_convolution(data: st.DataObject, rank: int) -> None:
    groups, per_group, out_per_group = data.draw(sizes(3, 1, 4))
    spatial, kernel = data.draw(sizes(rank, 1, 20)), data.draw(sizes(rank, 1, 7))
    stride, dilation = data.draw(sizes(rank, 1, 4)), data.draw(sizes(rank, 1, 3))
    padding = data.draw(sizes(rank, 0, 4))
    shape, channels = (1, groups * per_group, *spatial), groups * out_per_group
    expected = traced(lambda x, w: CONV[rank](x, w, None, stride, padding, dilation, groups), shape,
                      (channels, per_group, *kernel))
    attrs = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": pairs(padding),
             "groups": groups, "in_channels": shape[1], "out_channels": channels}
    assert inferred("conv", [shape], attrs) == expected


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(st.data(), st.integers(1, 3), st.sampled_from(["same", "valid"]))
def test_convolution_with_named_padding(data: st.DataObject, rank: int, padding: str) -> None:
    spatial, kernel = data.draw(sizes(rank, 1, 12)), data.draw(sizes(rank, 1, 5))
    dilation = data.draw(sizes(rank, 1, 3))
    shape, weight = (1, 3, *spatial), (4, 3, *kernel)
    expected = traced(lambda x, w: CONV[rank](x, w, None, 1, padding, dilation), shape, weight)
    attrs = {"kernel": kernel, "dilation": dilation, "padding": padding, "out_channels": 4}
    assert inferred("conv", [shape], attrs) == expected


@given(st.data(), st.integers(1, 3))
def test_transposed_convolution(data: st.DataObject, rank: int) -> None:
    groups, per_group, out_per_group = data.draw(sizes(3, 1, 3))
    spatial, kernel = data.draw(sizes(rank, 1, 10)), data.draw(sizes(rank, 1, 5))
    stride, dilation = data.draw(sizes(rank, 1, 4)), data.draw(sizes(rank, 1, 3))
    padding = data.draw(sizes(rank, 0, 3))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    shape = (1, groups * per_group, *spatial)
    expected = traced(
        lambda x, w: CONV_TRANSPOSE[rank](x, w, None, stride, padding, extra, groups, dilation), shape,
        (shape[1], out_per_group, *kernel),
    )
    attrs = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": pairs(padding),
             "output_padding": extra, "groups": groups, "out_channels": groups * out_per_group}
    assert inferred("convtranspose", [shape], attrs) == expected


@given(st.data(), st.integers(1, 3), st.booleans(), st.booleans())
def test_pool(data: st.DataObject, rank: int, takes_max: bool, ceil_mode: bool) -> None:
    spatial, kernel = data.draw(sizes(rank, 1, 15)), data.draw(sizes(rank, 1, 5))
    stride = data.draw(sizes(rank, 1, 4))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    dilation = data.draw(sizes(rank, 1, 3)) if takes_max else (1,) * rank
    # In three dimensions torch cannot average a map smaller than the window, even with padding.
    assume(takes_max or rank < 3 or all(s >= k for s, k in zip(spatial, kernel, strict=True)))
    pool = (
        (lambda x: MAX_POOL[rank](x, kernel, stride, padding, dilation, ceil_mode)) if takes_max
        else (lambda x: AVG_POOL[rank](x, kernel, stride, padding, ceil_mode))
    )
    attrs = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": pairs(padding),
             "ceil_mode": ceil_mode}
    shape = (1, 3, *spatial)
    assert inferred("maxpool" if takes_max else "avgpool", [shape], attrs) == traced(pool, shape)


@given(st.data(), st.integers(1, 3))
def test_adaptive_pool(data: st.DataObject, rank: int) -> None:
    shape = (1, 3, *data.draw(sizes(rank, 1, 12)))
    out = data.draw(st.tuples(*[st.one_of(st.none(), st.integers(1, 12))] * rank))
    resolved = tuple(s if o is None else o for s, o in zip(shape[2:], out, strict=True))
    expected = traced(lambda x: ADAPTIVE[rank](x, resolved), shape)
    assert inferred("adaptiveavgpool", [shape], {"output_size": out}) == expected
    assert inferred("adaptivemaxpool", [shape], {"output_size": out}) == expected


@given(st.data(), st.integers(1, 3))
def test_upsampling_by_a_factor(data: st.DataObject, rank: int) -> None:
    shape = (1, 3, *data.draw(sizes(rank, 2, 12)))
    scale = data.draw(st.tuples(*[st.floats(0.5, 4)] * rank))
    expected = traced(lambda x: F.interpolate(x, scale_factor=scale), shape)
    assert inferred("upsample", [shape], {"scale": scale}) == expected


@given(shapes(), shapes(), st.sampled_from(["add", "sub", "mul", "div", "maximum"]))
def test_broadcasting(left: Shape, right: Shape, op: str) -> None:
    assert inferred(op, [left, right], {}) == traced(torch.add, left, right)


@given(shapes(2, 5), shapes(2, 5))
def test_matrix_product(left: Shape, right: Shape) -> None:
    assert inferred("matmul", [left, right], {}) == traced(torch.matmul, left, right)
    fitting = (*right[:-2], left[-1], right[-1])
    assume(fitting[0] == 1)
    assert inferred("matmul", [left, fitting], {}) == traced(torch.matmul, left, fitting)


@given(shapes(2, 4), st.integers(1, 6), st.integers(1, 6))
def test_dense_layer(shape: Shape, in_features: int, out_features: int) -> None:
    attrs = {"in_features": in_features, "out_features": out_features}
    assert inferred("fc", [shape], attrs) == traced(F.linear, shape, (out_features, in_features))


@given(st.data(), shapes(2, 5), st.booleans())
def test_mean(data: st.DataObject, shape: Shape, keepdims: bool) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    expected = traced(lambda x: x.mean(axes, keepdim=keepdims), shape)
    assert inferred("mean", [shape], {"axes": axes, "keepdims": keepdims}) == expected


@given(st.data(), shapes(2, 4), st.integers(2, 3))
def test_concatenation(data: st.DataObject, shape: Shape, count: int) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    operands = [(*shape[:axis], data.draw(st.integers(1, 5)), *shape[axis + 1:]) for _ in range(count)]
    odd_one = data.draw(st.sampled_from([[], [shape], [(*shape, 2)], [tuple(d + (d > 1) for d in shape)]]))
    operands += odd_one
    expected = traced(lambda *tensors: torch.cat(tensors, axis), *operands)
    assert inferred("concat", operands, {"axis": axis}) == expected
    assert inferred("concat", operands, {"axis": axis - len(shape)}) == expected or odd_one == [(*shape, 2)]


@given(st.data(), shapes(2, 4))
def test_split(data: st.DataObject, shape: Shape) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    sections = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    expected = traced(lambda x: torch.split(x, sections, axis), shape)
    assert inferred("split", [shape], {"axis": axis, "sections": sections}) == expected


@given(st.data(), shapes(2, 4), *[st.one_of(st.none(), st.integers(-7, 7))] * 2, st.integers(1, 3))
def test_slice(data: st.DataObject, shape: Shape, start: int | None, stop: int | None, step: int) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    expected = traced(lambda x: x[(slice(None),) * axis + (slice(start, stop, step),)], shape)
    attrs = {"axis": axis, "start": start, "stop": stop, "step": step}
    assert inferred("slice", [shape], attrs) == expected


@given(st.data(), shapes(2, 4), st.booleans())
def test_reshape(data: st.DataObject, shape: Shape, leaves_one_open: bool) -> None:
    target = list(data.draw(st.permutations(shape)))
    if leaves_one_open:
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    elif data.draw(st.booleans()):
        target = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    assert inferred("reshape", [shape], {"shape": target}) == traced(lambda x: x.reshape(target), shape)


@given(st.data(), shapes(2, 5))
def test_flatten_permute_squeeze_and_unsqueeze(data: st.DataObject, shape: Shape) -> None:
    rank = len(shape)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, rank - 1)] * 2)))
    perm = data.draw(st.permutations(range(rank)))
    axis = data.draw(st.integers(-rank, rank - 1))
    assert inferred("flatten", [shape], {"start": start, "end": end}) == traced(
        lambda x: x.flatten(start, end), shape)
    assert inferred("transpose", [shape], {"perm": perm}) == traced(lambda x: x.permute(*perm), shape)
    assert inferred("squeeze", [shape], {"axes": [axis]}) == traced(lambda x: x.squeeze(axis), shape)
    assert inferred("squeeze", [shape], {}) == traced(lambda x: x.squeeze(), shape)
    assert inferred("unsqueeze", [shape], {"axes": [axis]}) == traced(lambda x: x.unsqueeze(axis), shape)


@given(st.data(), shapes(2, 4))
def test_padding_and_cropping(data: st.DataObject, shape: Shape) -> None:
    padding = [(0, 0), *(data.draw(sizes(2, -(size // 2), 3)) for size in shape[1:])]
    flat = [p for pair in reversed(padding) for p in pair]
    assert inferred("pad", [shape], {"padding": padding}) == traced(lambda x: F.pad(x, flat), shape)
