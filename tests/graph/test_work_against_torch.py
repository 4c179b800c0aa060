"""Flops are within 10 % of torch's counter, or of the formula, for every operator that multiplies matrices.

The same layers through torch's exporter have the same work and the same latency.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import cache
from itertools import pairwise
from typing import Any

import networkx as nx
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nnmeter_nas import load_latency_predictor, read_model
from nnmeter_nas.graph.work import flops, params
from nnmeter_nas.packs.registry import devices

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")

Shape = tuple[int, ...]
TOKENS, MAP, HEADS = (1, 6, 16), (1, 8, 9, 11), (1, 4, 6, 8)


@pytest.fixture(autouse=True)
def _no_fast_path() -> Iterator[None]:
    """The counter knows nothing of the operators that torch has for whole layers of transformers."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def counted(module: nn.Module, *shapes: Shape) -> int:
    """Flops of one forward pass, counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module.eval()(*map(torch.zeros, shapes))
    return int(counter.get_total_flops())


def exported(module: nn.Module, *shapes: Shape) -> onnx.ModelProto:
    """The module as torch's older exporter writes it."""
    file = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        inputs = tuple(map(torch.zeros, shapes))
        torch.onnx.export(module.eval(), inputs, file, dynamo=False, opset_version=17)
    return onnx.load_from_string(file.getvalue())


@cache
def predictors() -> list[Any]:
    return [load_latency_predictor(device) for device in sorted(devices())]


def latencies(graph: nx.DiGraph) -> list[float]:
    """Latency in ms on each device; nothing in it is left out."""
    found = [predictor.explain(graph) for predictor in predictors()]
    assert not any(explanation.unpredicted for explanation in found)
    return [explanation.latency_ms for explanation in found]


class Function(nn.Module):
    """A function of inputs, and of weights of the given shapes, or of a layer."""

    def __init__(
        self, function: Callable[..., Tensor], *weights: Shape, layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.function, self.layer = function, layer
        self.w = nn.ParameterList([torch.randn(shape) for shape in weights])

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, *self.w, *([self.layer] if self.layer is not None else []))


class CondConv(nn.Module):
    """A mixture of kernels for each image (https://arxiv.org/abs/1904.04971), as timm writes it."""

    def __init__(
        self, inner: int, outer: int, side: int, experts: int, groups: int = 1, transposed: bool = False
    ) -> None:
        super().__init__()
        channels = (inner, outer // groups) if transposed else (outer, inner // groups)
        self.shape = (*channels, side, side)
        self.routing, self.groups, self.transposed = nn.Linear(inner, experts), groups, transposed
        self.weight = nn.Parameter(torch.zeros(experts, math.prod(self.shape)))

    def forward(self, x: Tensor) -> Tensor:
        routes = torch.sigmoid(self.routing(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        batch, channels, height, width = x.shape
        weight = torch.matmul(routes, self.weight).view(batch * self.shape[0], *self.shape[1:])
        x = x.reshape(1, batch * channels, height, width)
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        return convolve(x, weight, None, stride=2, padding=1, groups=self.groups * batch)


class Cells(nn.Module):
    """A cell over the steps of a sequence, one after another."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state: Any = x[:, 0], x[:, 1]
        state = state if isinstance(self.cell, nn.LSTMCell) else state[0]
        for step in range(2, x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0] if isinstance(state, tuple) else state


class Itself(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention, self.needs = nn.MultiheadAttention(16, 4, batch_first=True), options

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, **self.needs)[0]


def masked(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=x[..., :1].transpose(2, 3))


#: Layers whose flops torch counts: name -> module, shapes of its inputs.
LAYERS: dict[str, tuple[nn.Module, list[Shape]]] = {
    "conv": (nn.Conv2d(8, 12, (3, 5), stride=2, padding=1, groups=4), [MAP]),
    "conv same": (nn.Conv2d(8, 12, 3, padding="same", dilation=2), [MAP]),
    "conv 1x1": (nn.Conv2d(8, 12, 1, bias=False), [MAP]),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8, dilation=(2, 1)), [MAP]),
    "conv 1d": (nn.Conv1d(8, 12, 3, stride=2, groups=2, dilation=2), [(1, 8, 20)]),
    "conv 3d": (nn.Conv3d(8, 12, (1, 3, 3), stride=(1, 2, 2), groups=2), [(1, 8, 4, 9, 9)]),
    "transposed": (nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=2, output_padding=1), [MAP]),
    "transposed 1d": (nn.ConvTranspose1d(8, 6, 3, stride=2, dilation=2, groups=2), [(1, 8, 9)]),
    "transposed 3d": (nn.ConvTranspose3d(8, 6, 2, stride=2), [(1, 8, 3, 5, 5)]),
    "conv as a function": (Function(lambda x, w: F.conv2d(x, w, padding=1), (4, 8, 3, 3)), [MAP]),
    "conv by a computed kernel": (Function(lambda x, w: F.conv2d(x, w * x.mean()), (4, 8, 3, 3)), [MAP]),
    "conv with a computed bias": (
        Function(lambda x, w: F.conv2d(x, w, x.mean((0, 2, 3))[:4]), (4, 8, 3, 3)), [MAP]
    ),
    "conv transposed with a computed bias": (
        Function(lambda x, w: F.conv_transpose2d(x, w, x.mean((0, 2, 3))[:4]), (8, 4, 3, 3)), [MAP]
    ),
    "condconv": (CondConv(8, 12, 3, 4), [MAP]),
    "condconv depthwise": (CondConv(8, 8, 3, 4, groups=8), [MAP]),
    "condconv transposed": (CondConv(8, 12, 3, 4, groups=2, transposed=True), [MAP]),
    "linear": (nn.Linear(16, 10), [TOKENS]),
    "linear of a vector": (nn.Linear(16, 10, bias=False), [(1, 16)]),
    "linear by computed weights": (Function(lambda x, b: F.linear(x, x[0] * 2, b), (6,)), [TOKENS]),
    "matmul": (Function(lambda x: x @ x.transpose(1, 2)), [TOKENS]),
    "matmul of batches": (Function(lambda x, y: x @ y), [HEADS, (1, 4, 8, 5)]),
    "matmul that broadcasts": (Function(lambda x, y: x @ y), [HEADS, (1, 1, 8, 5)]),
    "matmul by a matrix": (Function(lambda x, w: x @ w, (16, 3)), [TOKENS]),
    "matmul by a batch of weights": (Function(lambda x, w: x @ w, (4, 8, 3)), [HEADS]),
    "matmul of weights": (Function(lambda x, w: w @ x, (7, 6)), [TOKENS]),
    "matmul of a batch of weights": (Function(lambda x, w: w @ x, (4, 7, 6)), [HEADS]),
    "matmul of a constant": (Function(lambda x: torch.ones_like(x).transpose(1, 2) @ x), [TOKENS]),
    "matmul by a constant": (Function(lambda x: x @ torch.ones_like(x).transpose(1, 2)), [TOKENS]),
    "bmm": (Function(lambda x: torch.bmm(x, x.transpose(1, 2))), [TOKENS]),
    "mm": (Function(lambda x: torch.mm(x[0], x[0].t())), [TOKENS]),
    "mm of a map": (Function(lambda x: torch.mm(x[0, 0], x[0, 1].t())), [MAP]),
    "baddbmm": (Function(lambda x, w: torch.baddbmm(w, x, x.transpose(1, 2)), (1, 6, 6)), [TOKENS]),
    "addmm by weights": (Function(lambda x, w, b: torch.addmm(b, x, w), (16, 3), (3,)), [(1, 16)]),
    "addmm": (Function(lambda x, w: torch.addmm(w, x[0].t(), x[0]), (16,)), [TOKENS]),
    "tensordot": (Function(lambda x, w: torch.tensordot(x, w, ([2], [0])), (16, 3, 4)), [TOKENS]),
    "einsum by weights": (Function(lambda x, w: torch.einsum("bld,dhk->bhlk", x, w), (16, 2, 8)), [TOKENS]),
    "einsum by a batch of weights": (
        Function(lambda x, w: torch.einsum("bgd,gdk->bgk", x, w), (6, 16, 3)), [TOKENS]
    ),
    "einsum of weights": (Function(lambda x, w: torch.einsum("ml,bld->bmd", w, x), (5, 6)), [TOKENS]),
    "einsum of queries and keys": (
        Function(lambda x, y: torch.einsum("bhqd,bhkd->bhqk", x, y)), [HEADS, HEADS]
    ),
    "einsum of other order": (Function(lambda x, y: torch.einsum("bqhd,bkhd->bkqh", x, y)), [HEADS, HEADS]),
    "einsum with dots": (Function(lambda x, y: torch.einsum("...qd,kd->...kq", x, y[0, 0])), [HEADS, HEADS]),
    "einsum of three": (Function(lambda x: torch.einsum("bqd,bkd,bvd->bqkv", x, x, x)), [TOKENS]),
    "einsum that sums": (Function(lambda x, y: torch.einsum("bhqd,bhkd->bhq", x, y)), [HEADS, HEADS]),
    "attention": (Itself(), [TOKENS]),
    "attention without weights": (Itself(need_weights=False), [TOKENS]),
    "scaled dot product": (Function(F.scaled_dot_product_attention), [HEADS] * 3),
    "scaled dot product, other positions": (
        Function(F.scaled_dot_product_attention), [HEADS, (1, 4, 9, 8), (1, 4, 9, 5)]
    ),
    "scaled dot product, masked": (Function(masked), [HEADS]),
    "scaled dot product, causal": (
        Function(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), [HEADS]
    ),
    "scaled dot product, grouped": (
        Function(lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True)), [HEADS, (1, 2, 6, 8)]
    ),
    "transformer": (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), [TOKENS]),
    "lstm cell": (Cells(nn.LSTMCell(16, 16)), [TOKENS]),
    "gru cell": (Cells(nn.GRUCell(16, 16)), [TOKENS]),
    "rnn cell": (Cells(nn.RNNCell(16, 16)), [TOKENS]),
    "gru": (nn.GRU(16, 5, batch_first=True), [TOKENS]),
    "lstm with a projection": (nn.LSTM(16, 5, proj_size=3, num_layers=2, batch_first=True), [TOKENS]),
    "max pool": (nn.MaxPool2d(3), [MAP]),
    "average pool": (nn.AdaptiveAvgPool2d(1), [MAP]),
    "batch norm": (nn.BatchNorm2d(8), [MAP]),
    "layer norm": (nn.LayerNorm(16), [TOKENS]),
    "group norm": (nn.GroupNorm(2, 8), [MAP]),
    "softmax": (nn.Softmax(-1), [TOKENS]),
    "activation": (nn.GELU(), [MAP]),
    "outer product": (Function(lambda x: torch.outer(x[0, 0], x[0, 1])), [TOKENS]),
    "upsampling": (nn.Upsample(scale_factor=2), [MAP]),
}  # fmt: skip

#: What the older exporter does not write, or writes as other operators.
NOT_EXPORTED = {
    "scaled dot product, grouped", "lstm with a projection", "transformer", "group norm",
    "matmul by a constant",
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_flops_that_torch_counts(name: str) -> None:
    module, shapes = LAYERS[name]
    graph = read_model(module, input_shape=shapes if len(shapes) > 1 else shapes[0])
    assert flops(graph) == pytest.approx(counted(module, *shapes), rel=0.1)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in NOT_EXPORTED])
def test_layers_have_the_same_work_and_latency_through_onnx(name: str) -> None:
    module, shapes = LAYERS[name]
    graph = read_model(module, input_shape=shapes if len(shapes) > 1 else shapes[0])
    other = read_model(exported(module, *shapes))
    assert flops(graph) == flops(other)
    assert latencies(graph) == pytest.approx(latencies(other), rel=1e-9)


# What torch's counter leaves out


def vector_macs() -> dict[str, tuple[nn.Module, list[Shape], int]]:
    """Products with vectors, which torch's counter leaves out, and their multiply-adds."""
    return {
        "matrix by vector": (Function(lambda x, w: torch.mv(w, x[0]), (3, 16)), [(1, 16)], 3 * 16),
        "tokens by vector": (Function(lambda x, w: x @ w, (16,)), [TOKENS], 6 * 16),
        "tokens by computed vector": (Function(lambda x: x @ x[0, 0]), [TOKENS], 6 * 16),
        "dot": (Function(lambda x: torch.dot(x[0], x[0])), [(1, 16)], 16),
    }  # fmt: skip


@pytest.mark.parametrize("name", vector_macs())
def test_products_with_vectors_have_a_multiply_add_per_value(name: str) -> None:
    module, shapes, macs = vector_macs()[name]
    graph, other = read_model(module, input_shape=shapes[0]), read_model(exported(module, *shapes))
    assert flops(graph) == flops(other) == 2 * macs
    assert latencies(graph) == pytest.approx(latencies(other))


def test_products_that_only_torch_has() -> None:
    bilinear = read_model(nn.Bilinear(8, 6, 5), input_shape=[(1, 8), (1, 6)])
    assert flops(bilinear) == 2 * 5 * (8 * 6 + 6)
    added = Function(lambda x, w: torch.addbmm(w, x, x.transpose(1, 2), alpha=2), (6, 6))
    assert flops(read_model(added, input_shape=TOKENS)) == 2 * 6 * 6 * 16


def recurrent_macs(kind: type[nn.RNNBase], steps: int, sizes: Sequence[int], directions: int) -> int:
    """Multiply-adds of layers by the equations of Hochreiter & Schmidhuber, and of Cho et al.

    Each gate takes the input and the last state; ``sizes`` are those of the input and of each layer.
    """
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    total = 0
    for layer, (before, hidden) in enumerate(pairwise(sizes)):
        features = before * (directions if layer else 1)
        total += steps * directions * gates * hidden * (features + hidden)
    return total


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_the_work_of_their_equations(
    kind: type[nn.RNNBase], bidirectional: bool, layers: int, batch_first: bool
) -> None:
    module = kind(16, 5, layers, bidirectional=bidirectional, batch_first=batch_first)
    network = module if batch_first else Function(lambda x, m: m(x.transpose(0, 1))[0], layer=module)
    expected = 2 * recurrent_macs(kind, 6, [16] + [5] * layers, 1 + bidirectional)
    graph, other = read_model(network, input_shape=TOKENS), read_model(exported(network, TOKENS))
    assert flops(graph) == flops(other) == expected
    assert params(graph) == params(other) == sum(p.numel() for p in module.parameters())
    assert latencies(graph) == pytest.approx(latencies(other), rel=1e-9)
    [*_, last] = [data for _, data in graph.nodes(data=True) if data["op"] in ("lstm", "gru", "rnn")]
    assert last["out_shapes"][0] == (6, 1, 5 * (1 + bidirectional))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_first_states_may_be_inputs(kind: type[nn.RNNBase], layers: int) -> None:
    module = kind(16, 5, layers, batch_first=True)
    states = (layers, 1, 5)
    if kind is nn.LSTM:
        network = Function(lambda x, h, c, m: m(x, (h, c))[0], layer=module)
        shapes = [TOKENS, states, states]
    else:
        network, shapes = Function(lambda x, h, m: m(x, h)[0], layer=module), [TOKENS, states]
    graph, other = read_model(network, input_shape=shapes), read_model(exported(network, *shapes))
    assert flops(graph) == flops(other) == 2 * recurrent_macs(kind, 6, [16] + [5] * layers, 1)
    assert latencies(graph) == pytest.approx(latencies(other), rel=1e-9)


def test_more_steps_of_a_recurrent_layer_take_longer() -> None:
    module = nn.LSTM(16, 32, batch_first=True)
    found = [latencies(read_model(module, input_shape=(1, steps, 16))) for steps in (8, 16, 64)]
    for few, more, most in zip(*found, strict=True):
        assert 1.5 * few < more < 2.5 * few
        assert 6 * few < most < 10 * few


# Drawn layers


def spatial(rank: int, low: int, high: int) -> st.SearchStrategy[Shape]:
    return st.tuples(*[st.integers(low, high)] * rank)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 3), st.booleans(), st.booleans())
def test_drawn_convolutions(data: st.DataObject, rank: int, transposed: bool, computed: bool) -> None:
    groups, inner, outer = data.draw(spatial(3, 1, 4))
    kernel, stride, dilation = (data.draw(spatial(rank, 1, 3)) for _ in range(3))
    shape = (1, groups * inner, *data.draw(spatial(rank, 7, 10)))
    convolve = getattr(F, f"conv{'_transpose' * transposed}{rank}d")
    weights = (groups * (inner if transposed else outer), outer if transposed else inner, *kernel)
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": int(min(kernel) > 1)}
    network = Function(lambda x, w: convolve(x, w * x.mean() if computed else w, **options), weights)
    assert flops(read_model(network, input_shape=shape)) == counted(network, shape)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["both", "left", "right"]), st.booleans())
def test_drawn_products(data: st.DataObject, computed: str, broadcasts: bool) -> None:
    rows, inner, columns, heads = data.draw(spatial(4, 1, 6))
    batch = (1, heads) if data.draw(st.booleans()) else (1,)
    left, right = (*batch, rows, inner), (*(1,) * len(batch), inner, columns)
    right = right if broadcasts else (*batch, *right[-2:])
    if computed == "both":
        network, shapes = Function(torch.matmul), [left, right]
    elif computed == "left":
        network, shapes = Function(torch.matmul, right), [left]
    else:
        network, shapes = Function(lambda x, w: torch.matmul(w, x), left), [right]
    graph = read_model(network, input_shape=shapes)
    assert flops(graph) == 2 * math.prod(batch) * rows * inner * columns


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[Shape]]:
    """An equation of two factors over at most five indices, and the shapes of the factors."""
    letters = "abcde"
    sizes = dict(zip(letters, draw(spatial(len(letters), 1, 4)), strict=True))
    first, second = ("".join(draw(st.permutations(letters))[: draw(st.integers(1, 4))]) for _ in range(2))
    both = sorted({*first, *second})
    result = "".join(draw(st.permutations(both))[: draw(st.integers(0, len(both)))])
    shapes = [tuple(sizes[c] for c in labels) for labels in (first, second)]
    return f"{first},{second}->{result}", shapes


@settings(max_examples=80, deadline=None)
@given(equations(), st.sampled_from(["both", "left", "right"]))
def test_drawn_einsums(drawn: tuple[str, list[Shape]], computed: str) -> None:
    """Shapes are right too. A product value by value, which sums nothing, does not count in torch either."""
    equation, (left, right) = drawn
    # An input has batch 1, so factors are cut from larger tensors.
    if computed == "both":
        network = Function(lambda x, y: torch.einsum(equation, x[0], y[0]))
        shapes = [(1, *left), (1, *right)]
    elif computed == "left":
        network, shapes = Function(lambda x, w: torch.einsum(equation, x[0], w), right), [(1, *left)]
    else:
        network, shapes = Function(lambda x, w: torch.einsum(equation, w, x[0]), left), [(1, *right)]
    graph = read_model(network, input_shape=shapes)
    [output] = graph.graph["outputs"]
    assert graph.nodes[output]["out_shapes"][0] == tuple(network(*map(torch.zeros, shapes)).shape)
    assert flops(graph) == counted(network, *shapes)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), spatial(3, 1, 8), st.integers(1, 3),
    st.booleans(), st.booleans(),
)
def test_drawn_recurrent_layers(
    kind: type[nn.RNNBase], sizes: Shape, layers: int, bidirectional: bool, bias: bool
) -> None:
    steps, features, hidden = sizes
    module = kind(features, hidden, layers, bias=bias, batch_first=True, bidirectional=bidirectional)
    graph = read_model(module, input_shape=(1, steps, features))
    macs = recurrent_macs(kind, steps, [features] + [hidden] * layers, 1 + bidirectional)
    assert (flops(graph), params(graph)) == (2 * macs, sum(p.numel() for p in module.parameters()))
