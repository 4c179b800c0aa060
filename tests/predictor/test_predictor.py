"""Prediction: kernels add up to the latency, nothing is left out in silence, bad models are named."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import warnings
from typing import Any

import networkx as nx
import pytest
import torch
from rich.console import Console
from torch import nn

from ir import IrBuilder, small_cnn
from nnmeter_nas import (
    Explanation,
    LatencyPredictor,
    LatencyWarning,
    load_latency_predictor,
    read_model,
)
from nnmeter_nas.benchmarks.networks import build_network
from nnmeter_nas.errors import (
    GraphError,
    NnMeterNasError,
    ReaderError,
    ShapeError,
    UnpredictedOperatorError,
)
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.unknown import UNKNOWN_WORK
from nnmeter_nas.packs.registry import devices

DEVICES = sorted(devices())
SHAPE = (1, 3, 32, 32)
# Small models lie outside the range measured, and say so; the tests of that ask for it.
pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")


@pytest.fixture(params=DEVICES)
def predictor(request: pytest.FixtureRequest) -> LatencyPredictor:
    """A fresh predictor of each device."""
    return load_latency_predictor(request.param)


@pytest.fixture
def cpu() -> LatencyPredictor:
    """A fresh predictor of one device, where which one makes no difference."""
    return load_latency_predictor("cortexA76cpu_tflite21")


class SmallCnn(nn.Module):
    """The model of :func:`ir.small_cnn`, without its batch norms, as a torch module."""

    def __init__(self, width: int = 8, blocks: int = 2) -> None:
        super().__init__()
        # On an odd map, SAME padding at stride 2 is what PyTorch does too.
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.expand = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for _ in range(blocks))
        self.depthwise = nn.ModuleList(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width) for _ in range(blocks)
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(2 * width) for _ in range(blocks))
        self.project = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(blocks))
        self.fc = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for expand, norm, depthwise, project in zip(
            self.expand, self.norm, self.depthwise, self.project, strict=True
        ):
            x = project(depthwise(nn.functional.relu6(norm(expand(x))))) + x
        return self.fc(nn.functional.max_pool2d(x, 2, ceil_mode=True).mean((2, 3)))


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def test_latency_is_a_positive_number_of_milliseconds(predictor: LatencyPredictor) -> None:
    latency = predictor.predict(small_cnn())
    assert type(latency) is float
    assert 0 < latency < 1000


def test_kernels_of_the_explanation_add_up_to_the_prediction(predictor: LatencyPredictor) -> None:
    found = predictor.explain(small_cnn())
    assert found.latency_ms == predictor.predict(small_cnn())
    parts = [ms for _, ms in found.kernel_graph.nodes(data="latency_ms")]
    assert all(ms > 0 for ms in parts)
    assert math.fsum(parts) == pytest.approx(found.latency_ms)
    members = [m for _, kernel in found.kernel_graph.nodes(data="kernel") for m in kernel.members]
    assert {"stem", "b0/expand", "fc"} <= set(members)


def test_explanation_prints_a_table_of_kernels(cpu: LatencyPredictor) -> None:
    found = cpu.explain(small_cnn())
    text = str(found)
    assert f"{found.interval()} on cortexA76cpu_tflite21" in text
    for name, kernel in found.kernel_graph.nodes(data="kernel"):
        assert name in text
        assert kernel.type in text
    console = Console(width=120)
    with console.capture() as captured:
        console.print(found)
    assert "conv-relu" in captured.get()


def test_readers_agree_on_one_model(predictor: LatencyPredictor) -> None:
    expected = predictor.predict(small_cnn(size=33))
    module = SmallCnn().eval()
    assert predictor.predict(module, model_type="torch", input_shape=(1, 3, 33, 33)) == pytest.approx(
        expected
    )
    assert predictor.predict(read_model(small_cnn(size=33))) == expected
    assert predictor.predict(module, input_shape=[1, 3, 33, 33]) == pytest.approx(expected)


def test_signatures_are_those_that_users_of_nn_meter_call() -> None:
    loader = inspect.signature(load_latency_predictor).parameters
    assert list(loader) == ["predictor_name", "predictor_version"]
    predict = inspect.signature(LatencyPredictor.predict).parameters
    assert list(predict)[1:5] == ["model", "model_type", "input_shape", "apply_nni"]


def test_repeated_prediction_is_the_same(predictor: LatencyPredictor) -> None:
    graph = read_model(small_cnn())
    before = copy.deepcopy(graph)
    assert len({predictor.predict(graph) for _ in range(3)}) == 1
    assert dict(graph.nodes(data=True)) == dict(before.nodes(data=True))


def test_only_kernels_of_a_new_form_are_predicted(
    cpu: LatencyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    latencies = type(cpu.pack.predictors).latencies

    def counting(self: Any, kernels: Any) -> Any:
        asked.append(len(kernels))
        return latencies(self, kernels)

    monkeypatch.setattr(type(cpu.pack.predictors), "latencies", counting)
    first, second = (chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, last, 1)) for last in (4, 6))
    for module in (first, first, second):
        cpu.predict(module, input_shape=SHAPE)
    assert asked == [3, 1]


def test_predictor_travels_between_processes(predictor: LatencyPredictor) -> None:
    travelled = pickle.loads(pickle.dumps(predictor))
    assert travelled.device == predictor.device
    assert travelled.version == predictor.version
    assert travelled.predict(small_cnn()) == predictor.predict(small_cnn())
    assert len(pickle.dumps(predictor)) < 1000, "a pickle carries the device's name, not its weights"


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 8, 3), (1, 3, 20, 50)),
        (nn.Conv2d(3, 8, (1, 7), padding=(0, 3)), SHAPE),
        (nn.Conv2d(8, 8, 3, stride=(2, 1)), (1, 8, 9, 9)),
        (nn.Conv2d(8, 16, 3, groups=4), (1, 8, 9, 9)),
        (nn.Conv2d(8, 16, 3, groups=8), (1, 8, 9, 9)),
        (nn.Conv2d(3, 8, 3, dilation=(2, 3)), SHAPE),
        (chain(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)), (1, 4, 50)),
        (nn.Conv3d(3, 8, 3), (1, 3, 8, 8, 8)),
        (nn.Conv2d(3, 8, 1), (1, 3, 1, 1)),
        (nn.Linear(16, 4), (1, 16)),
        (nn.Linear(16, 4), (1, 5, 16)),
        (nn.AvgPool2d(3, 2, ceil_mode=True), SHAPE),
        (chain(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.Hardswish(), nn.Hardsigmoid()), SHAPE),
        (nn.BatchNorm2d(3), SHAPE),
    ],
    ids=str,
)
def test_unusual_layers_are_predicted(predictor: LatencyPredictor, module: nn.Module, shape: Any) -> None:
    found = predictor.explain(module.eval(), "torch", shape)
    assert not found.unpredicted
    assert 0 < found.latency_ms < 100


def test_wide_map_costs_as_much_as_the_square_of_its_area(predictor: LatencyPredictor) -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1)
    square = predictor.predict(layer, "torch", (1, 16, 56, 56))
    for shape in ((1, 16, 28, 112), (1, 16, 112, 28)):
        assert predictor.predict(layer, "torch", shape) == pytest.approx(square, rel=0.5)


def test_grouped_convolution_costs_less_than_a_full_one(predictor: LatencyPredictor) -> None:
    shape = (1, 128, 28, 28)
    full = predictor.predict(nn.Conv2d(128, 128, 3, padding=1), "torch", shape)
    grouped = predictor.predict(nn.Conv2d(128, 128, 3, padding=1, groups=32), "torch", shape)
    assert grouped < full


def test_dense_layer_on_many_positions_costs_more_than_on_one(predictor: LatencyPredictor) -> None:
    layer = nn.Linear(512, 512)
    one, many = (predictor.predict(layer, "torch", (1, n, 512)) for n in (1, 200))
    # The weights are read once, the multiplications are done for each position.
    assert many > 5 * one
    assert one == pytest.approx(predictor.predict(layer, "torch", (1, 512)), rel=1e-6)


def graph_with(*ops: str, sizes_known: bool = True) -> nx.DiGraph:
    """A convolution, then one operator of each of ``ops``, which may be unknown."""
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    last = add_op(graph, "conv", "conv", ["x"], {"kernel": (3, 3), "padding": "same", "out_channels": 8})
    for i, op in enumerate(ops):
        known = ({}, [(1, 8, 32, 32)]) if sizes_known else ({UNKNOWN_WORK: "batch"}, [()])
        last = add_op(graph, f"{op}{i}", op, [last], *known)
    return finish(graph)


def test_operators_of_unknown_size_are_listed_and_the_rest_is_predicted(predictor: LatencyPredictor) -> None:
    found = predictor.explain(graph_with("fourier", "wavelet", sizes_known=False))
    assert found.unpredicted == {"fourier0": "fourier", "wavelet1": "wavelet"}
    assert found.latency_ms == pytest.approx(predictor.explain(graph_with()).latency_ms)
    assert math.isnan(found.unpredicted_share)
    said = "not predicted: 2 operator(s), fourier or wavelet; their share of the work is unknown"
    assert said in str(found)


def test_operators_of_unknown_size_are_warned_of_once_and_never_as_a_share_of_0(
    cpu: LatencyPredictor,
) -> None:
    graph = graph_with("fourier", sizes_known=False)
    with pytest.warns(LatencyWarning, match=r"share of the work is unknown, are not.*fourier0 \(fourier\)"):
        cpu.predict(graph)
    assert warned(cpu, graph) == []


def test_a_model_of_which_nothing_is_predicted_raises(cpu: LatencyPredictor) -> None:
    graph = new_graph()
    add_op(graph, "odd", "fourier", [add_input(graph, "x", SHAPE)], {UNKNOWN_WORK: "batch"}, [()])
    with pytest.raises(UnpredictedOperatorError, match=r"nothing of the model is predicted.*odd \(fourier\)"):
        cpu.predict(finish(graph))


def test_estimates_are_warned_of_once_with_names_and_share(cpu: LatencyPredictor) -> None:
    share = cpu.explain(graph_with("fourier")).estimated_share
    with pytest.warns(LatencyWarning, match=rf"{share:.1%} of the latency.*fourier0 \(fourier\)"):
        cpu.predict(graph_with("fourier"))
    assert warned(cpu, graph_with("fourier")) == []


def test_estimates_of_a_small_share_are_not_warned_of_but_marked(cpu: LatencyPredictor) -> None:
    graph = new_graph()
    window = {"kernel": (3, 3), "padding": "same", "out_channels": 512}
    add_op(graph, "conv", "conv", [add_input(graph, "x", (1, 256, 28, 28))], window)
    pooled = add_op(graph, "pool", "globalavgpool", ["conv"])
    add_op(graph, "odd", "tanh", [pooled])
    assert 0 < cpu.explain(finish(graph)).estimated_share < 0.05
    assert warned(cpu, graph) == []
    with pytest.raises(UnpredictedOperatorError, match=r"odd \(tanh\)"):
        cpu.predict(graph, strict=True)


def test_another_operator_that_is_estimated_is_warned_of_too(cpu: LatencyPredictor) -> None:
    assert len(warned(cpu, graph_with("fourier"))) == 1
    [message] = warned(cpu, graph_with("wavelet"))
    assert "wavelet" in message


def warned(predictor: LatencyPredictor, model: Any) -> list[str]:
    """Messages of the latency warnings that predicting ``model`` gives, far from the range aside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LatencyWarning)
        predictor.predict(model)
    return [str(w.message) for w in caught if "outside the range" not in str(w.message)]


def test_far_outside_the_measured_range_is_warned_of_without_hiding_the_rest(cpu: LatencyPredictor) -> None:
    giant = nn.Conv2d(3, 4096, 31)
    with pytest.warns(LatencyWarning, match="outside the range"):
        cpu.predict(giant, "torch", (1, 3, 300, 300))
    assert len(warned(cpu, graph_with("fourier"))) == 1
    found = cpu.explain(giant, "torch", (1, 3, 300, 300))
    assert found.extrapolated_share == 1.0
    assert "outside the range" in str(found)


def test_strict_raises_instead_of_leaving_out(predictor: LatencyPredictor) -> None:
    with pytest.raises(UnpredictedOperatorError, match=r"fourier0 \(fourier\)"):
        predictor.predict(graph_with("fourier"), strict=True)
    assert predictor.predict(graph_with(), strict=True) > 0


def test_model_of_zero_branches_takes_0_ms_and_says_why(cpu: LatencyPredictor) -> None:
    b = IrBuilder((1, 16, 16, 8))
    states = []
    for i in range(3):
        edge = b.conv(f"conv{i}", "input", 8)
        states.append(b.unary(f"none{i}", "Mul", edge, b.const(f"zero{i}", [], [0.0])))
    b.unary("sum", "AddN", *states)
    with pytest.warns(LatencyWarning, match="zero"):
        assert cpu.predict(b.nodes) == 0.0
    assert isinstance(cpu.explain(b.nodes), Explanation)
    assert "0.000 ms" in str(cpu.explain(b.nodes))


def test_model_that_only_reshapes_takes_0_ms_and_says_why(cpu: LatencyPredictor) -> None:
    with pytest.warns(LatencyWarning, match="only reshape"):
        assert cpu.predict(nn.Flatten(), "torch", SHAPE) == 0.0


def unfinished(*operators: tuple[Any, ...]) -> nx.DiGraph:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    for operator in operators:
        add_op(graph, *operator)
    return graph


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ({}, GraphError, "empty"),
        (nx.DiGraph(), GraphError, "empty"),
        (unfinished(), GraphError, "empty"),
        (unfinished(("a", "add", ["x", "b"]), ("b", "relu", ["a"])), GraphError, "cyclic.*a"),
        (unfinished(("a", "relu", ["gone"])), GraphError, "'a'.*'gone' does not exist"),
        (
            unfinished(("c", "constant", [], {"shape": (1, 3)}), ("a", "relu", ["c"])),
            GraphError,
            "disconnected",
        ),
        (unfinished(("a", "fourier", ["x"])), UnpredictedOperatorError, r"a \(fourier\)"),
        (unfinished(("a", "conv", ["x"], {"kernel": (3, 3)})), ShapeError, "'a'.*out_channels"),
        (42, ReaderError, "int.*model_type"),
        (None, ReaderError, "NoneType.*model_type"),
        ([1, 2], ReaderError, "list.*model_type"),
    ],
)
def test_model_that_is_none_is_named_as_such(
    cpu: LatencyPredictor, model: Any, error: type[NnMeterNasError], message: str
) -> None:
    with pytest.raises(error, match=message):
        cpu.predict(model)


@pytest.mark.parametrize("kind", ["keras", "Torch", "nnmeter_ir"])
def test_unknown_model_type_lists_those_there_are(cpu: LatencyPredictor, kind: str) -> None:
    with pytest.raises(ReaderError, match=rf"{kind}.*nni-ir, torch, onnx, pb, nnmeter-ir"):
        cpu.predict(small_cnn(), model_type=kind)


def test_batch_other_than_1_is_refused(cpu: LatencyPredictor) -> None:
    with pytest.raises(ShapeError, match="batch is 2"):
        cpu.predict(nn.Conv2d(3, 8, 3), "torch", (2, 3, 32, 32))
    with pytest.raises(ShapeError, match="batch is 4"):
        cpu.predict(small_cnn(), input_shape=(4, 3, 32, 32))


def test_input_shape_that_a_model_graph_cannot_follow_is_refused(cpu: LatencyPredictor) -> None:
    graph = read_model(small_cnn())
    with pytest.raises(ReaderError, match=r"\(1, 3, 64, 64\)"):
        cpu.predict(graph, input_shape=(1, 3, 64, 64))
    assert cpu.predict(graph, input_shape=[1, 3, 32, 32]) == cpu.predict(graph)


def test_larger_input_takes_longer(predictor: LatencyPredictor) -> None:
    small, large = (predictor.predict(small_cnn(), input_shape=(1, 3, n, n)) for n in (32, 256))
    assert small < large


@pytest.mark.parametrize("order", [reversed, sorted])
def test_order_of_nodes_in_a_file_makes_no_difference(predictor: LatencyPredictor, order: Any) -> None:
    ir = small_cnn()
    assert predictor.predict({name: ir[name] for name in order(list(ir))}) == pytest.approx(
        predictor.predict(ir)
    )


def test_a_transposed_convolution_costs_about_what_the_convolution_back_costs(
    predictor: LatencyPredictor,
) -> None:
    graph = new_graph()
    add_input(graph, "x", (1, 64, 28, 28))
    window = {"kernel": (2, 2), "stride": (2, 2), "out_channels": 64}
    add_op(graph, "up", "convtranspose", ["x"], window)
    add_op(graph, "down", "conv", ["up"], window)
    up, down = (data["latency_ms"] for _, data in predictor.explain(finish(graph)).kernel_graph.nodes.items())
    assert down / 3 < up < 3 * down


def test_types_never_measured_are_estimated_and_warned_of_once() -> None:
    predictor, network = load_latency_predictor("adreno640gpu_tflite21"), build_network("shufflenet_v2_x1_0")
    predictor = LatencyPredictor(predictor.pack)
    with pytest.warns(LatencyWarning, match=r"\d kernel.* where channelshuffle or split was never") as told:
        latency = predictor.predict(network, input_shape=(1, 3, 224, 224))
    found = predictor.explain(network, input_shape=(1, 3, 224, 224))
    assert set(found.estimated.values()) == {"channelshuffle", "split"}
    assert f"{found.estimated_share:.1%} of the latency" in str(told[0].message)
    parts = found.kernel_graph.nodes(data="latency_ms")
    assert found.estimated_share == pytest.approx(
        sum(ms for name, ms in parts if name in found.estimated) / latency
    )
    assert not found.unpredicted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predictor.predict(network, input_shape=(1, 3, 224, 224)) == latency


def test_types_never_measured_are_refused_by_name_under_strict() -> None:
    predictor, network = load_latency_predictor("adreno640gpu_tflite21"), build_network("shufflenet_v2_x1_0")
    with pytest.raises(UnpredictedOperatorError, match=r"\(channelshuffle\).*\(split\)"):
        predictor.predict(network, input_shape=(1, 3, 224, 224), strict=True)
    vpu = load_latency_predictor("myriadvpu_openvino2019r2")
    assert vpu.predict(network, input_shape=(1, 3, 224, 224), strict=True) > 0


def test_an_explanation_marks_what_is_estimated_and_gives_its_share(cpu: LatencyPredictor) -> None:
    found = cpu.explain(nn.Sigmoid(), "torch", SHAPE)
    assert found.estimated_share == 1.0
    assert found.extrapolated_share == 0.0
    assert f"{found.latency_ms:.4f} ~" in str(found)
    assert "~ estimated, as sigmoid was never measured on the device: 100.0% of the latency" in str(found)


def test_strict_names_what_is_left_out_and_what_is_estimated(cpu: LatencyPredictor) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_op(graph, "odd", "fourier", ["x"], {}, [SHAPE])
    add_op(graph, "act", "sigmoid", ["odd"])
    with pytest.raises(UnpredictedOperatorError, match=r"odd \(fourier\).*act \(sigmoid\)"):
        cpu.predict(finish(graph), strict=True)
