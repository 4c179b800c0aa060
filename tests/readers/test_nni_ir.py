"""NNI's graph IR, nested and mutated, is read with torch's shapes and without changing NNI's model."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from typing import Any

import networkx as nx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="reads what NNI 2.10 makes")

import nni.retiarii.nn.pytorch as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from nni.nas.execution.pytorch.codegen import model_to_pytorch_script  # noqa: E402
from nni.nas.execution.pytorch.converter import convert_to_graph  # noqa: E402
from nni.nas.execution.pytorch.converter.graph_gen import GraphConverterWithShape  # noqa: E402
from nni.nas.nn.pytorch.mutator import process_inline_mutation  # noqa: E402
from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model  # noqa: E402
from nni.retiarii import basic_unit, model_wrapper  # noqa: E402

from nnmeter_nas import load_latency_predictor, read_model  # noqa: E402
from nnmeter_nas.errors import GraphError, ReaderError, ShapeError  # noqa: E402
from nnmeter_nas.graph import shapes  # noqa: E402
from nnmeter_nas.graph.model_graph import output_names  # noqa: E402
from nnmeter_nas.graph.shapes import infer_operator  # noqa: E402
from nnmeter_nas.graph.work import flops  # noqa: E402
from nnmeter_nas.ops import OPERATORS  # noqa: E402
from nnmeter_nas.readers.nni import ir as nni_ir  # noqa: E402
from nnmeter_nas.readers.nni.ir import read_nni_ir  # noqa: E402
from nnmeter_nas.search_spaces import spos  # noqa: E402

Shape = tuple[int, ...]


def convert(module: Any, *shapes: Shape) -> Any:
    """Convert ``module`` to NNI's graph IR, traced with inputs of these shapes."""
    module.eval()
    inputs = [torch.zeros(shape) for shape in shapes]
    dummy = inputs[0] if len(inputs) == 1 else tuple(inputs)
    return convert_to_graph(torch.jit.script(module), module, GraphConverterWithShape(), dummy_input=dummy)


def candidates(space: Any, shape: Shape, count: int) -> list[Any]:
    """Random candidates of a space, as a strategy makes them under the graph engine."""
    base = convert(space, shape)
    mutators = process_inline_mutation(base)
    choices = dry_run_for_search_space(base, mutators)
    draw = random.Random(0)
    return [get_targeted_model(base, mutators, {k: draw.choice(v) for k, v in choices.items()})
            for _ in range(count)]


def torch_shape(candidate: Any, shape: Shape) -> Shape:
    """The output shape of the torch model that NNI generates for ``candidate``."""
    namespace: dict[str, Any] = {}
    exec(model_to_pytorch_script(candidate), namespace)
    return tuple(namespace["_model"]().eval()(torch.zeros(shape)).shape)


def output_shapes(graph: nx.DiGraph) -> list[Shape]:
    return [graph.nodes[name]["out_shapes"][0] for name in output_names(graph)]


def ops(graph: nx.DiGraph) -> list[str]:
    return [graph.nodes[name]["op"] for name in nx.topological_sort(graph)]


class Windows(nn.Module):
    """Convolutions and pools whose kernels, strides, paddings and maps are not square."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(3, 8, (1, 5), stride=(1, 2), padding=(0, 2)), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 3, padding="same", dilation=2), nn.Conv2d(8, 12, 3, 2, "valid", groups=4),
            nn.ConvTranspose2d(12, 6, 3, stride=2, padding=1, output_padding=1),
        )
        self.pools = nn.Sequential(
            nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d((2, 1)), nn.ZeroPad2d((1, 2, 0, 3)),
            nn.Upsample(scale_factor=2.0), nn.AdaptiveAvgPool2d((5, 4)), nn.AdaptiveMaxPool2d(3),
        )

    def forward(self, x):
        return self.pools(self.convs(x))


class SqueezeExcite(nn.Module):
    """A gate from a mean over the map, applied by multiplication."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Hardsigmoid())

    def forward(self, x):
        return x * self.gate(x.mean([2, 3], keepdim=True)) + x.mean()


class SizeArithmetic(nn.Module):
    """A channel shuffle and a flatten, written with the input's own sizes."""

    def __init__(self):
        super().__init__()
        self.groups = 2
        self.classifier = nn.Linear(8 * 6 * 4, 5)

    def forward(self, x):
        n, c, h, w = x.size()
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        return self.classifier(x.reshape(x.size(0), x.shape[1] * h * w))


class ListAttribute(nn.Module):
    """A flatten whose width is in a list attribute of the module, which NNI's IR omits."""

    def __init__(self):
        super().__init__()
        self.widths = [4, 96]

    def forward(self, x):
        return x.view(-1, self.widths[-1])


class Lists(nn.Module):
    """Splits, slices, joins and a growing list."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 1) for _ in range(2)])

    def forward(self, x):
        first, second = torch.chunk(x, 2, dim=1)
        parts = [first]
        parts.append(self.convs[0](second))
        parts.append(self.convs[1](x[:, 2:6, ::2, 1:]).repeat(1, 1, 1, 1)[:, :, :1, :1] * first)
        narrow = torch.split(torch.cat(parts, 1), [5, 7], dim=1)[1]
        both = torch.stack([narrow, narrow.clone()], dim=1).flatten(1, 2)
        return both.select(3, 0).unsqueeze(-1).squeeze(3)


class Attention(nn.Module):
    """Tokens, a product of two computed matrices and a softmax."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qk = nn.Linear(8, 16)

    def forward(self, x):
        tokens = self.norm(x.flatten(2).permute(0, 2, 1))
        q, k = self.qk(tokens).chunk(2, dim=-1)
        return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-2, -1)) / 8 ** 0.5, dim=-1), tokens)


class Functions(nn.Module):
    """Functional and in-place forms of layers."""

    def forward(self, x):
        x = F.relu(F.max_pool2d(x, 3, stride=2, padding=1), inplace=True)
        x = F.pad(x, [1, 1, 2, 0])
        x = F.interpolate(x, size=[9, 7], mode="nearest")
        x += F.hardswish(x) - 1.0
        x = 2.0 - torch.clamp(x, 0.0, 6.0) * torch.sigmoid(x).mul_(0.5)
        x = F.dropout(F.avg_pool2d(x, 2), 0.1, self.training)
        return F.adaptive_avg_pool2d(x, [1, 1]).view(-1, 8)


class Limits(nn.Module):
    """A clip to limits that are computed."""

    def forward(self, x):
        return torch.clamp(torch.exp(x), x.mean(1, keepdim=True), x.abs())


class Signal(nn.Module):
    """One spatial dimension."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(8, 16, 5, stride=2, padding=2), nn.PReLU(), nn.MaxPool1d(2))

    def forward(self, x):
        return self.net(x)


class Applied(nn.Module):
    """One module applied twice, and a stage of stages."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = SqueezeExcite()

    def forward(self, x):
        return self.conv(self.gate(self.conv(self.gate(x))))


@pytest.mark.parametrize(("module", "shape"), [
    (Windows(), (1, 3, 33, 50)),
    (SqueezeExcite(), (1, 8, 7, 9)),
    (SizeArithmetic(), (1, 8, 6, 4)),
    (ListAttribute(), (1, 4, 6, 4)),
    (Lists(), (1, 8, 6, 6)),
    (Attention(), (1, 8, 4, 3)),
    (Functions(), (1, 8, 21, 17)),
    (Signal(), (1, 8, 40)),
    (Limits(), (1, 8, 6, 4)),
    (Applied(), (1, 8, 10, 6)),
], ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None)
def test_shapes_agree_with_torch(module: Any, shape: Shape) -> None:
    # NNI traces no shapes of functions, so a model that starts with one needs an input shape.
    graph = read_nni_ir(convert(module, shape), shape)
    assert output_shapes(graph) == [tuple(module.eval()(torch.zeros(shape)).shape)]
    assert graph.graph["shape_mismatches"] == []


def test_limits_in_tensors_are_a_maximum_and_a_minimum() -> None:
    found = ops(read_nni_ir(convert(Limits(), (1, 8, 6, 4)), (1, 8, 6, 4)))
    assert sorted(found) == ["abs", "exp", "input", "maximum", "mean", "minimum"]


def test_a_module_applied_twice_is_counted_twice() -> None:
    assert ops(read_nni_ir(convert(Applied(), (1, 8, 10, 6)))).count("conv") == 6


class Recurrent(nn.Module):
    """Recurrent layers over the rows of a map."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(input_size=8, hidden_size=5, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(input_size=10, hidden_size=6, batch_first=True)
        self.rnn = nn.RNN(input_size=6, hidden_size=3)

    def forward(self, x):
        y, (h, c) = self.lstm(x)
        y, last = self.gru(y)
        z, _ = self.rnn(y.transpose(0, 1))
        return z.sum(0) + h.sum() + c.sum() + last.sum()


class Computed(nn.Module):
    """Convolutions, a dense layer and products by tensors that the network computes."""

    def __init__(self):
        super().__init__()
        self.routing = nn.Linear(8, 4 * 8 * 3 * 3)

    def forward(self, x):
        weight = self.routing(F.adaptive_avg_pool2d(x, 1).flatten(1)).reshape(4, 8, 3, 3)
        y = F.conv2d(x, weight, None, stride=2, padding=1)
        z = F.conv_transpose2d(y, weight, None, stride=2)
        tokens = z.flatten(2)
        scores = torch.einsum("bcd,bed->bce", tokens, tokens)
        mixed = torch.baddbmm(scores, scores, scores)
        return F.linear(mixed, mixed[0])


@pytest.mark.parametrize(("module", "shape"), [(Recurrent(), (1, 7, 8)), (Computed(), (1, 8, 9, 11))])
def test_work_is_that_of_the_module(module: Any, shape: Shape) -> None:
    graph, own = read_nni_ir(convert(module, shape), shape), read_model(module, input_shape=shape)
    assert output_shapes(graph) == [tuple(module.eval()(torch.zeros(shape)).shape)]
    assert flops(graph) == flops(own) > 0
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    assert predictor.explain(graph).latency_ms == pytest.approx(predictor.explain(own).latency_ms)


def test_error_for_a_recurrent_layer_of_unknown_size_says_how_to_write_it() -> None:
    class Positional(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(8, 6, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    with pytest.raises(ReaderError, match=r"GRU.*named arguments.*hidden_size=\.\.\."):
        read_nni_ir(convert(Positional(), (1, 7, 8)), (1, 7, 8))


class Zero(nn.Module):
    """NAS-Bench-201's ``none`` operation: zeros in the shape of the branch, without work."""

    def forward(self, x):
        return x[:, :, ::1, ::1].mul(0.0)


class WithZero(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.zero = nn.Conv2d(3, 3, 3, padding=1), Zero()
        self.lost = nn.Conv2d(3, 3, 7, padding=3)

    def forward(self, x):
        return self.conv(x) + self.zero(self.lost(x))


def test_a_branch_multiplied_by_zero_costs_nothing() -> None:
    assert ops(read_nni_ir(convert(WithZero(), (1, 3, 8, 8)))) == ["input", "conv"]


class Widths(nn.Module):
    """Choices that change channels, kernel and stride, so that traced shapes are stale."""

    def __init__(self):
        super().__init__()
        width = nn.ValueChoice([4, 12, 20], label="width")
        self.first = nn.Conv2d(3, width, 3, stride=nn.ValueChoice([1, 2], label="stride"), padding=1)
        self.second = nn.Conv2d(width, 6, nn.ValueChoice([1, 3], label="kernel"))
        self.pick = nn.InputChoice(2, n_chosen=1, label="pick")

    def forward(self, x):
        x = self.second(self.first(x))
        return self.pick([x, torch.relu(x)])


def test_a_mutated_candidate_has_its_own_shapes_and_not_the_base_models() -> None:
    shape = (1, 3, 16, 12)
    # NNI cannot trace shapes through input choices; without dummy input it uses the untraced converter.
    module = Widths()
    base = convert_to_graph(torch.jit.script(module), module)
    mutators = process_inline_mutation(base)
    choices = dry_run_for_search_space(base, mutators)
    draw = random.Random(1)
    widths = set()
    for _ in range(8):
        candidate = get_targeted_model(base, mutators, {k: draw.choice(v) for k, v in choices.items()})
        graph = read_nni_ir(candidate, shape)
        assert output_shapes(graph) == [torch_shape(candidate, shape)]
        widths.add(next(d["attrs"]["out_channels"] for _, d in graph.nodes(data=True) if d["op"] == "conv"))
    assert len(widths) > 1


class Nested(nn.Module):
    """A stage of nested cells, repeated by choice, followed by a choice that has a cell among its blocks."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Repeat(
            lambda index: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Shortcut()), (1, 3), label="depth"
        )
        self.choice = nn.LayerChoice([Zero(), nn.Conv2d(4, 4, 1), nn.Identity()], label="op")

    def forward(self, x):
        return self.choice(self.blocks(x)) + x


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.Sequential(nn.BatchNorm2d(4), nn.Hardswish())

    def forward(self, x):
        return self.act(x) + x


def test_nested_cells_and_repeats_are_read_as_chosen() -> None:
    shape = (1, 4, 8, 8)
    module = Nested()
    base = convert_to_graph(torch.jit.script(module), module)
    mutators = process_inline_mutation(base)
    choices = dry_run_for_search_space(base, mutators)
    depths = set()
    for depth, op in [(0, 1), (1, 1), (2, 2)]:
        sample = {key: values[depth if len(values) == 3 and isinstance(values[0], int) else op]
                  for key, values in choices.items()}
        candidate = get_targeted_model(base, mutators, sample)
        graph = read_nni_ir(candidate, shape)
        assert output_shapes(graph) == [shape]
        depths.add(ops(graph).count("hswish"))
    assert depths == {1, 2, 3}


def test_random_candidates_of_the_search_space_agree_with_torch() -> None:
    space = spos("small")
    for candidate in candidates(space, space.input_shape, 5):
        graph = read_nni_ir(candidate)
        assert output_shapes(graph) == [torch_shape(candidate, space.input_shape)] == [(1, 10)]
        assert graph.graph["shape_mismatches"] == []
        assert {data["op"] for _, data in graph.nodes(data=True)} <= set(OPERATORS)


def test_reading_does_not_change_the_nni_model() -> None:
    space = spos("small", depths=(1,), channels=(16,))
    [candidate] = candidates(space, space.input_shape, 1)
    before = candidate._dump()
    identities = [id(node.operation) for node in candidate.get_nodes()]
    first, second = read_nni_ir(candidate), read_nni_ir(candidate)
    assert candidate._dump() == before
    assert [id(node.operation) for node in candidate.get_nodes()] == identities
    assert list(first.nodes) == list(second.nodes)


def test_input_shape_overrides_the_traced_shape() -> None:
    ir = convert(Windows(), (1, 3, 33, 50))
    graph = read_nni_ir(ir, input_shape=(1, 3, 64, 64))
    assert graph.nodes[next(iter(graph))]["out_shapes"] == [(1, 3, 64, 64)]
    assert not graph.graph["shape_mismatches"], "shapes traced with another input are no mismatch"


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return torch.cat([x, y], dim=1)


def test_several_inputs_have_their_own_shapes() -> None:
    ir = convert(TwoInputs(), (1, 3, 4, 4), (1, 5, 4, 4))
    assert output_shapes(read_nni_ir(ir, [(1, 3, 4, 4), (1, 5, 4, 4)])) == [(1, 8, 4, 4)]
    with pytest.raises(ReaderError, match=r"gives 1 shape.*takes 2"):
        read_nni_ir(ir, (1, 3, 4, 4))


@basic_unit
class Concat(torch.nn.Module):
    """A basic unit that NNI does not trace into, named like a known operator."""

    def __init__(self, turns: int):
        super().__init__()
        self.turns = turns

    def forward(self, x):
        return torch.rot90(x, self.turns, [2, 3])


class WithCustom(nn.Module):
    def __init__(self):
        super().__init__()
        self.custom, self.act = Concat(1), nn.ReLU()

    def forward(self, x):
        return self.act(self.custom(x))


def test_an_unknown_operator_keeps_the_shape_the_ir_declares() -> None:
    graph = read_nni_ir(convert(WithCustom(), (1, 3, 4, 6)))
    assert ops(graph) == ["input", f"{Concat.__module__}.concat", "relu"]
    assert output_shapes(graph) == [(1, 3, 6, 4)]


def test_what_follows_an_operator_without_a_shape_is_predicted_where_weights_tell_it() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.pool = nn.Conv2d(3, 8, 3), WithCustom(), nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(torch.flatten(self.pool(self.body(self.stem(x))), 1))

    module = Network()
    ir = convert_to_graph(torch.jit.script(module), module)
    graph = read_nni_ir(ir, (1, 3, 8, 8))
    assert ops(graph) == [
        "input", "conv", f"{Concat.__module__}.concat", "relu of unknown size",
        "adaptiveavgpool of unknown size", "given", "fc",
    ]  # fmt: skip
    assert output_shapes(graph) == [(1, 5)]


def test_shapes_of_the_trace_do_not_count_at_another_input_shape() -> None:
    graph = read_nni_ir(convert(WithCustom(), (1, 3, 4, 6)), (1, 3, 8, 12))
    assert ops(graph)[-1] == "relu of unknown size"
    assert "pass the shape it was exported with" in graph.graph["notes"][0]


def test_error_for_an_open_choice_names_its_label() -> None:
    space = spos("small", depths=(1,), channels=(16,))
    with pytest.raises(ReaderError, match=r"layer_1.*still open"):
        read_nni_ir(convert(space, space.input_shape))


def test_error_asks_for_a_missing_input_shape() -> None:
    module = Windows()
    with pytest.raises(ReaderError, match="pass input_shape"):
        read_nni_ir(convert_to_graph(torch.jit.script(module), module))


def test_a_batch_of_two_is_rejected() -> None:
    with pytest.raises(ShapeError, match="batch"):
        read_nni_ir(convert(Signal(), (2, 8, 40)))


def test_error_for_contradictory_arguments_names_the_operator() -> None:
    ir = convert(Windows(), (1, 3, 33, 50))
    with pytest.raises(ShapeError, match="_model__convs__0"):
        read_nni_ir(ir, (1, 4, 33, 50))


def test_a_cyclic_model_is_rejected() -> None:
    ir = convert(Signal(), (1, 8, 40))
    graph = ir.graphs["_model__net"]
    first, last = graph.hidden_nodes[0], graph.hidden_nodes[-1]
    graph.add_edge((last, None), (first, 1))
    with pytest.raises(GraphError, match="cyclic"):
        read_nni_ir(ir)


@model_wrapper
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.choice = nn.LayerChoice([nn.ReLU(), nn.Sigmoid()], label="act")

    def forward(self, x):
        return self.choice(x)


def test_error_for_a_default_engine_model_names_the_way_out() -> None:
    from nni.nas.nn.pytorch.mutator import extract_mutation_from_pt_module

    model, _ = extract_mutation_from_pt_module(Plain())
    with pytest.raises(ReaderError, match=r"no operators.*torch module"):
        read_nni_ir(model)


def test_anything_else_is_rejected() -> None:
    with pytest.raises(ReaderError, match="not NNI's graph IR"):
        read_nni_ir(object())


def test_the_reader_imports_neither_torch_nor_nni() -> None:
    code = "import sys, nnmeter_nas.readers.nni.ir; sys.exit(bool({'torch', 'nni'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_operators_shape_is_inferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Either when the reader needs the shape, or when the model graph is finished.
    inferred: list[str] = []

    def counting(graph: nx.DiGraph, name: str) -> None:
        inferred.append(name)
        infer_operator(graph, name)

    monkeypatch.setattr(nni_ir, "infer_operator", counting)
    monkeypatch.setattr(shapes, "infer_operator", counting)
    space = spos("small")
    [candidate] = candidates(space, space.input_shape, 1)
    graph = read_nni_ir(candidate)
    assert set(Counter(inferred).values()) == {1}
    assert set(graph) <= set(inferred)
