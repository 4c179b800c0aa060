"""Any small network: the torch reader finds its operators and shapes, and does not change it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from torch import nn

from nnmeter_nas.graph.model_graph import prune, validate
from nnmeter_nas.graph.shapes import infer_shapes
from nnmeter_nas.readers.torch.module import trace_module

torch.set_num_threads(1)

Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]
Drawn = tuple["Network", Shape, Counter[str]]


@dataclass
class Step:
    """One step of a network: a function of tensors, and the operators it should be read as."""

    function: Callable[..., Any]
    ops: list[str] = field(default_factory=list)


def number(draw: Draw, low: int, high: int) -> int:
    return draw(st.integers(low, max(low, high)))


def divisor(draw: Draw, value: int) -> int:
    return draw(st.sampled_from([d for d in range(1, value + 1) if value % d == 0]))


def conv(draw: Draw, shape: Shape) -> Step:
    """A convolution, as module or function, with any valid kernel, stride, padding, dilation and groups."""
    channels, *sizes = shape[1:]
    dilation = number(draw, 1, 2)
    kernel = tuple(number(draw, 1, min(3, (size - 1) // dilation + 1)) for size in sizes)
    stride, padding = number(draw, 1, 2), draw(st.sampled_from(["same", "valid", 0, 1]))
    if padding == "same":
        stride = 1
    groups = divisor(draw, channels)
    layer = nn.Conv2d(channels, groups * number(draw, 1, 2), kernel, stride, padding, dilation, groups,
                      bias=draw(st.booleans()))
    op = "dwconv" if 1 < groups == channels else "conv"
    if draw(st.booleans()):
        return Step(layer, [op])
    return Step(lambda x: F.conv2d(x, layer.weight, layer.bias, stride, padding, dilation, groups), [op])


def conv_transpose(draw: Draw, shape: Shape) -> Step:
    groups = divisor(draw, shape[1])
    stride = number(draw, 1, 2)
    kernel, padding, out_channels = number(draw, 2, 3), number(draw, 0, 1), groups * number(draw, 1, 2)
    layer = nn.ConvTranspose2d(shape[1], out_channels, kernel, stride, padding, stride - 1, groups)
    return Step(layer, ["convtranspose"])


def norm(draw: Draw, shape: Shape) -> Step:
    channels = shape[1]
    return draw(st.sampled_from([
        Step(nn.BatchNorm2d(channels), ["bn"]),
        Step(nn.GroupNorm(divisor(draw, channels), channels), ["norm"]),
        Step(lambda x: F.layer_norm(x, x.shape[1:]), ["norm"]),
    ]))  # fmt: skip


ACTIVATIONS: list[Step] = [
    Step(nn.ReLU(inplace=True), ["relu"]),
    Step(F.relu, ["relu"]),
    Step(torch.Tensor.relu, ["relu"]),
    Step(lambda x: x.clamp(min=0), ["clip"]),
    Step(nn.ReLU6(), ["clip"]),
    Step(lambda x: F.hardtanh(x, 0, 6), ["clip"]),
    Step(nn.Hardswish(inplace=True), ["hswish"]),
    Step(F.hardsigmoid, ["hsigmoid"]),
    Step(nn.SiLU(), ["swish"]),
    Step(lambda x: x * torch.sigmoid(x), ["sigmoid", "mul"]),
    Step(nn.LeakyReLU(0.1, inplace=True), ["leakyrelu"]),
    Step(nn.GELU(), ["gelu"]),
    Step(torch.tanh, ["tanh"]),
    Step(nn.Softmax(1), ["softmax"]),
    Step(nn.PReLU(), ["prelu"]),
    Step(lambda x: 1 - x, ["sub"]),
    Step(lambda x: x / 2 + 1.5, ["div", "add"]),
    Step(lambda x: x**2, ["pow"]),
    Step(nn.Dropout(), []),
    Step(nn.Identity(), []),
    Step(lambda x: x.clone().contiguous(), []),
]


def activation(draw: Draw, shape: Shape) -> Step:
    return draw(st.sampled_from(ACTIVATIONS))


def pool(draw: Draw, shape: Shape) -> Step:
    """A pool with a window up to the map's size; one over the whole map is a global average pool."""
    sizes = shape[2:]
    kernel = tuple(number(draw, 1, min(3, size)) for size in sizes)
    stride, padding = number(draw, 1, 3), number(draw, 0, min(kernel) // 2)
    ceil_mode = draw(st.booleans())
    if draw(st.booleans()):
        return Step(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode), ["maxpool"])
    layer = nn.AvgPool2d(kernel, stride, padding, ceil_mode)
    covers = kernel == sizes and layer(torch.zeros(shape)).shape[2:] == (1, 1)
    return Step(layer, ["globalavgpool" if covers else "avgpool"])


def global_pool(draw: Draw, shape: Shape) -> Step:
    keep = draw(st.booleans())
    return draw(st.sampled_from([
        Step(nn.AdaptiveAvgPool2d(1), ["globalavgpool"]),
        Step(nn.AdaptiveMaxPool2d(1), ["maxpool"]),
        Step(lambda x: x.mean((2, 3), keepdim=keep), ["globalavgpool"]),
        Step(lambda x: x.mean([-1, -2], keepdim=keep), ["globalavgpool"]),
    ]))  # fmt: skip


def gate(draw: Draw, shape: Shape) -> Step:
    """Squeeze-excite, with broadcasting or with an explicit expand."""
    narrow, wide = nn.Conv2d(shape[1], 2, 1), nn.Conv2d(2, shape[1], 1)
    expand = draw(st.booleans())

    def forward(x: torch.Tensor) -> torch.Tensor:
        scale = torch.sigmoid(wide(F.relu(narrow(F.adaptive_avg_pool2d(x, 1)))))
        return x * (scale.expand_as(x) if expand else scale)

    return Step(forward, ["globalavgpool", "conv", "relu", "conv", "sigmoid", "mul"])


def resize(draw: Draw, shape: Shape) -> Step:
    size = tuple(number(draw, 1, 9) for _ in shape[2:])
    mode = draw(st.sampled_from(["nearest", "bilinear"]))
    pads = [number(draw, 0, 2) for _ in range(4)]
    return draw(st.sampled_from([
        Step(lambda x: F.interpolate(x, size, mode=mode), ["upsample"]),
        Step(nn.Upsample(scale_factor=1.5, mode=mode), ["upsample"]),
        Step(lambda x: F.pad(x, pads), ["pad"]),
        Step(nn.ReplicationPad2d(1), ["pad"]),
    ]))  # fmt: skip


def cut_and_join(draw: Draw, shape: Shape) -> Step:
    """A split along an axis whose parts are concatenated in another order or added."""
    axis = number(draw, 1, len(shape) - 1)
    parts, first = divisor(draw, shape[axis]), number(draw, 1, shape[axis] - 1)
    uneven = [first, shape[axis] - first] if first < shape[axis] else [first]
    pieces = len(torch.empty(shape[axis]).chunk(3))
    order = draw(st.sampled_from([1, -1]))
    return draw(st.sampled_from([
        Step(lambda x: sum(x.chunk(parts, axis)), ["split", *["add"] * parts]),
        Step(lambda x: torch.cat(x.split(uneven, axis)[::order], axis), ["split", "concat"]),
        Step(lambda x: torch.cat([F.relu(t) for t in x.chunk(3, axis)], axis),
             ["split", "concat", *["relu"] * pieces]),
        Step(lambda x: torch.stack(x.unbind(axis), 1),
             ["split", *["squeeze", "unsqueeze"] * shape[axis], "concat"]),
    ]))  # fmt: skip


def cut(draw: Draw, shape: Shape) -> Step:
    """A slice or a single index. A slice that keeps everything is removed."""
    axis = number(draw, 1, len(shape) - 1)
    start, step = number(draw, 0, shape[axis] - 1), number(draw, 1, 2)
    index = (slice(None),) * axis
    whole = len(range(start, shape[axis], step)) == shape[axis]
    return draw(st.sampled_from([
        Step(lambda x: x[(*index, slice(start, None, step))], [] if whole else ["slice"]),
        Step(lambda x: x.narrow(axis, start, 1), [] if shape[axis] == 1 else ["slice"]),
        Step(lambda x: x[(*index, start)], ["slice", "squeeze"]),
        Step(lambda x: x.select(axis, -1), ["slice", "squeeze"]),
    ]))  # fmt: skip


def rearrange(draw: Draw, shape: Shape) -> Step:
    order = [0, *draw(st.permutations(range(1, len(shape))))]
    groups = divisor(draw, shape[1])
    grouped = (1, groups, shape[1] // groups, *shape[2:])

    def shuffle(x: torch.Tensor) -> torch.Tensor:
        return x.view(grouped).transpose(1, 2).reshape(x.shape)

    return draw(st.sampled_from([
        Step(lambda x: x.permute(order), ["transpose"]),
        Step(lambda x: x.transpose(1, -1), ["transpose"]),
        Step(shuffle, ["reshape", "transpose", "reshape"]),
        Step(nn.ChannelShuffle(groups), ["channelshuffle"]),
        Step(lambda x: x.flatten(1), ["flatten"]),
        Step(nn.Flatten(1, 2), ["flatten"]),
        Step(lambda x: x.reshape(1, -1), ["reshape"]),
        Step(lambda x: x[:, None], ["unsqueeze"]),
        Step(lambda x: x.unsqueeze(-1).squeeze(-1), ["unsqueeze", "squeeze"]),
    ]))  # fmt: skip


def dense(draw: Draw, shape: Shape) -> Step:
    layer, weights = nn.Linear(shape[-1], number(draw, 1, 4)), torch.ones(shape[-1], 3)
    return draw(st.sampled_from([
        Step(layer, ["fc"]),
        Step(lambda x: F.linear(x, layer.weight), ["fc"]),
        Step(lambda x: x @ weights, ["fc"]),
        Step(lambda x: torch.matmul(x, weights) + torch.ones(3), ["fc", "add"]),
    ]))  # fmt: skip


def product(draw: Draw, shape: Shape) -> Step:
    return Step(lambda x: x @ x.transpose(-1, -2), ["transpose", "matmul"])


def join(draw: Draw, shape: Shape) -> Step:
    """An operator on two tensors of the same shape."""
    axis = number(draw, 1, len(shape) - 1)
    return draw(st.sampled_from([
        Step(lambda x, y: x + y, ["add"]),
        Step(lambda x, y: torch.add(x, y, alpha=2), ["add"]),
        Step(lambda x, y: x.mul(y), ["mul"]),
        Step(torch.maximum, ["maximum"]),
        Step(lambda x, y: torch.cat([x, y], axis), ["concat"]),
        Step(lambda x, y: torch.cat((y, x, y), dim=axis - len(shape)), ["concat"]),
        Step(lambda x, y: torch.stack([x, y], axis), ["unsqueeze", "unsqueeze", "concat"]),
    ]))  # fmt: skip


ON_MAPS = (conv, conv, conv, conv_transpose, norm, norm, pool, global_pool, gate, resize)
ON_ANYTHING = (activation, activation, cut_and_join, cut, rearrange, dense)
MOST_VALUES = 2000


class Network(nn.Module):
    """Runs its steps in order, each on earlier results, and returns the results that no step used."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[tuple[Callable[..., Any], list[int]]] = []

    def append(self, step: Step, operands: list[int]) -> None:
        if isinstance(step.function, nn.Module):
            self.layers.append(step.function)
        self.steps.append((step.function, operands))

    def forward(self, x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        values = [x]
        for function, operands in self.steps:
            values.append(function(*(values[i] for i in operands)))
        taken = {i for _, operands in self.steps for i in operands}
        return {"results": [values[i].exp() for i in range(len(values)) if i not in taken]}


def result(function: Callable[..., Any], operands: list[torch.Tensor]) -> Any:
    """Run ``function`` in eval mode; None if torch rejects operands that small."""
    function = copy.deepcopy(function)
    try:
        with torch.inference_mode():
            return (function.eval() if isinstance(function, nn.Module) else function)(*operands)
    except (RuntimeError, ValueError, IndexError):
        return None


def aliased(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors share memory, so that a write to one adds an operator for the other."""
    return one is not other and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@st.composite
def networks(draw: Draw) -> Drawn:
    """Draw a network, its input shape, and the count of each of its operators."""
    shape = (1, number(draw, 1, 8), number(draw, 1, 9), number(draw, 1, 9))
    network, ops = Network(), Counter[str]()
    values = [torch.zeros(shape)]
    for _ in range(number(draw, 1, 8)):
        source = draw(st.sampled_from(range(len(values))))
        shape_here = tuple(values[source].shape)
        twins = [i for i, value in enumerate(values) if value.shape == shape_here and i != source]
        rank = len(shape_here)
        choices = [*(ON_MAPS if rank == 4 else ()), *(ON_ANYTHING if rank > 1 else (activation,))]
        choices += [product] * (rank > 2) + [join] * (3 * bool(twins and rank > 1))
        make = draw(st.sampled_from(choices))
        step = make(draw, shape_here)
        operands = [source, draw(st.sampled_from(twins))] if make is join else [source]
        if getattr(step.function, "inplace", False) and any(aliased(values[source], v) for v in values):
            continue
        value = result(step.function, [values[i] for i in operands])
        if value is None or not 0 < value.numel() <= MOST_VALUES:
            continue
        network.append(step, operands)
        values.append(value)
        ops.update(step.ops)
    taken = {i for _, operands in network.steps for i in operands}
    ops["exp"] = len(values) - len(taken)
    return network, shape, +ops


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(networks())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_network_is_read_correctly_and_not_changed(drawn: Drawn) -> None:
    network, shape, ops = drawn
    state = copy.deepcopy(network.state_dict())
    attributes = {name: sorted(vars(module)) for name, module in network.named_modules()}

    graph = trace_module(network, shape)  # as it was written, before spellings are rewritten
    order = validate(graph)
    infer_shapes(graph, order)
    prune(graph, order)

    assert network.training
    assert {name: sorted(vars(module)) for name, module in network.named_modules()} == attributes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    # Rewrites remove expansions.
    found = Counter(op for _, op in graph.nodes(data="op") if op not in ("input", "expand"))
    assert found.pop("concat", 0) <= ops.pop("concat", 0)  # nested concats merge, single ones vanish
    assert found == ops
    assert graph.graph["shape_mismatches"] == []
    with torch.inference_mode():
        results = network.eval()(torch.zeros(shape))["results"]
    outputs = graph.graph["outputs"]
    assert [graph.nodes[name]["out_shapes"] for name in outputs] == [[tuple(r.shape)] for r in results]
