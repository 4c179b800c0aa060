"""NNI 3.0: LatencyProfiler prices every sample as its whole network is priced, and strategies heed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.nas.profiler.pytorch.flops", reason="NNI 2.10 has no profilers")
pytest.importorskip("pytorch_lightning", reason="what NNI's one-shot strategies train with")

import nni  # noqa: E402
import nni.nas.strategy as strategies  # noqa: E402
from nni.nas.nn.pytorch import (  # noqa: E402
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableDropout,
    MutableLinear,
    Repeat,
)
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, RangeProfilerFilter  # noqa: E402
from torch import nn  # noqa: E402

from nni3_oneshot import train  # noqa: E402
from nnmeter_nas import LatencyPredictor, LatencyWarning, load_latency_predictor  # noqa: E402
from nnmeter_nas.errors import ReaderError, SpaceError, UnknownDeviceError, UnpredictedOperatorError  # noqa: E402
from nnmeter_nas.estimators.latency_profiler import LatencyProfiler  # noqa: E402
from nnmeter_nas.packs.warmth import Warmth  # noqa: E402
from nnmeter_nas.search_spaces import proxylessnas, spos  # noqa: E402
from nnmeter_nas.solve.ranking import latency_reach  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")]

CPU, GPU, VPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21", "myriadvpu_openvino2019r2"
SHAPE = (1, 3, 16, 16)


class Block(nn.Sequential):
    """A convolution and what devices run with it."""

    def __init__(self, inputs: Any, outputs: Any, kernel: Any) -> None:
        convolution = MutableConv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, MutableBatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """A block, and the path around it that some devices add in the same kernel."""

    def __init__(self, width: Any, kernel: Any) -> None:
        super().__init__()
        self.block = Block(width, width, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


class Mixed(ModelSpace):
    """Choices of every kind: widths, kernels, layers, one within another, depths, and inputs."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [8, 16])
        self.stem = Block(3, width, nni.choice("stem_kernel", [1, 3]))
        inner = LayerChoice([nn.ReLU(), nn.Identity(), nn.Hardswish()], label="activation")
        wide = nn.Sequential(Block(width, width * 2, 1), inner, Block(width * 2, width, 1))
        layers = {"wide": wide, "k3": Residual(width, 3), "none": nn.Identity()}
        self.layer = LayerChoice(layers, label="layer")
        kernel = nni.choice("kernel", [3, 5])
        self.tail = Repeat(lambda index: Residual(width, kernel), (1, 3), label="depth")
        self.source = InputChoice(3, n_chosen=1, label="source")
        self.sources = InputChoice(3, n_chosen=2, label="sources")
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.stem(x)
        second = self.layer(first)
        third = self.tail(second)
        one = self.source([first, torch.relu(second), third])
        return torch.flatten(self.pool(self.sources([one, second, third])), 1)


class Two(ModelSpace):
    """Two labels, of whose samples every one can be priced."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [8, 16, 24])
        self.stem = Block(3, width, 3)
        self.layer = LayerChoice({"k3": Block(width, 8, 3), "k1": Block(width, 8, 1)}, label="layer")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.stem(x))


def deviations(
    space: Any, shape: tuple[int, ...], device: str | LatencyPredictor, samples: int
) -> list[float]:
    """Relative errors of a profile against the prediction of the whole network, over random samples."""
    profiler = LatencyProfiler(space, shape, device)
    found = []
    for _ in range(samples):
        sample: dict[str, Any] = {}
        with torch.device("meta"):
            network = space.random(sample)
        whole = profiler.predictor.predict(network, "torch", shape)
        found.append(abs(profiler.profile(sample) / whole - 1))
    return found


@pytest.mark.parametrize("device", [CPU, GPU, VPU])
def test_samples_of_all_kinds_of_choices_agree_with_the_whole_network(device: str) -> None:
    assert max(deviations(Mixed(), SHAPE, device, 12)) < 1e-6


def test_where_small_networks_take_less_samples_agree_and_penalties_are_warned_of() -> None:
    cold = LatencyProfiler(Two(), SHAPE, CPU)
    low, high = latency_reach(cold.table)
    card = {**cold.predictor.pack.card, "warmth": Warmth((low + high) / 2, 0.5, low).to_card()}
    warm = LatencyPredictor(replace(cold.predictor.pack, card=card))
    assert max(deviations(Two(), SHAPE, warm, 6)) < 1e-6
    with pytest.warns(LatencyWarning, match="penalties see the sum of the kernels"):
        profiler = LatencyProfiler(Two(), SHAPE, warm)
    fastest = dict(zip(("width", "layer"), (8, "k1"), strict=True))
    assert profiler.profile(fastest) < 0.9 * cold.profile(fastest)


@pytest.mark.parametrize("make", [spos, proxylessnas])
def test_small_bundled_spaces_agree_with_the_whole_network(make: Callable[[str], Any]) -> None:
    assert max(deviations(make("small"), (1, 3, 32, 32), GPU, 6)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("device", [CPU, VPU])
@pytest.mark.parametrize("make", [spos, proxylessnas])
def test_bundled_spaces_agree_with_the_whole_network(make: Callable[[], Any], device: str) -> None:
    with torch.device("meta"):
        space = make()
    assert max(deviations(space, (1, 3, 224, 224), device, 10)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("name", ["ProxylessNAS", "ShuffleNetSpace"])
def test_hub_spaces_agree_with_the_whole_network(name: str, device: str) -> None:
    import nni.nas.hub.pytorch as hub

    with torch.device("meta"):
        space = getattr(hub, name)()
    assert max(deviations(space, (1, 3, 224, 224), device, 10)) < 1e-6


@pytest.mark.slow
def test_hub_spaces_of_value_choices_agree_with_the_whole_network() -> None:
    from nni.nas.hub.pytorch import MobileNetV3Space, ShuffleNetSpace

    with torch.device("meta"):
        spaces = [MobileNetV3Space(width_multipliers=(0.5, 1.0, 1.5)), ShuffleNetSpace(channel_search=True)]
    for space in spaces:
        assert max(deviations(space, (1, 3, 224, 224), CPU, 10)) < 1e-6


def test_few_networks_price_a_space_of_thousands() -> None:
    space = spos("small")
    assert LatencyProfiler(space, space.input_shape, CPU).evaluations <= 100  # candidates, and random ones


def test_the_space_stays_as_it_was() -> None:
    space = Mixed().eval()
    before = {name: id(module) for name, module in space.named_modules()}
    image = torch.rand(SHAPE)
    expected = space(image)
    LatencyProfiler(space, SHAPE, CPU)
    assert {name: id(module) for name, module in space.named_modules()} == before
    assert torch.equal(space(image), expected)


def test_expectation_is_the_mean_over_samples_and_has_its_gradient() -> None:
    profiler = LatencyProfiler(Two(), SHAPE, CPU)
    penalty = ExpectationProfilerPenalty(profiler, baseline=1.0)
    values = {"width": [8, 16, 24], "layer": ["k3", "k1"]}
    samples = itertools.product(*values.values())
    latencies = {sample: profiler.profile(dict(zip(values, sample, strict=True))) for sample in samples}

    def expected(logits: torch.Tensor) -> Any:
        widths = dict(zip(values["width"], logits[:3].softmax(0), strict=True))
        layers = dict(zip(values["layer"], logits[3:].softmax(0), strict=True))
        return penalty.profile({"width": widths, "layer": layers}), (widths, layers)

    logits = torch.tensor([0.3, -0.2, 0.5, 1.0, 0.1], dtype=torch.float64, requires_grad=True)
    latency, (widths, layers) = expected(logits)
    mean = sum(widths[width] * layers[layer] * ms for (width, layer), ms in latencies.items())
    assert float(latency.detach()) == pytest.approx(float(mean.detach()), rel=1e-9)
    latency.backward()
    for i in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[i] = 1e-4
        difference = (expected(logits.detach() + step)[0] - expected(logits.detach() - step)[0]) / 2e-4
        assert float(logits.grad[i]) == pytest.approx(float(difference), abs=1e-4 * float(mean.detach()))


class Sources(ModelSpace):
    """A choice of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = Block(3, 8, 1), Block(3, 8, 5)
        self.source = InputChoice(2, n_chosen=1, label="source")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.source([self.small(x), self.large(x)])


def test_a_choice_of_one_input_takes_a_probability_for_each() -> None:
    profiler = LatencyProfiler(Sources(), SHAPE, CPU)
    small, large = (profiler.profile({"source": [i]}) for i in (0, 1))
    assert small < large
    penalty = ExpectationProfilerPenalty(profiler, baseline=1.0)
    assert penalty.profile({"source": {0: 0.25, 1: 0.75}}) == pytest.approx(0.25 * small + 0.75 * large)


def test_range_filter_tells_samples_apart() -> None:
    profiler = LatencyProfiler(Two(), SHAPE, CPU)
    fast, slow = {"width": 8, "layer": "k1"}, {"width": 24, "layer": "k3"}
    limit = (profiler.profile(fast) + profiler.profile(slow)) / 2
    assert RangeProfilerFilter(profiler, max=limit)(fast)
    assert not RangeProfilerFilter(profiler, max=limit)(slow)


def test_dummy_input_may_be_a_tensor_or_a_shape() -> None:
    sample = {"width": 8, "layer": "k3"}
    by_shape, by_tensor = (LatencyProfiler(Two(), given, CPU) for given in (SHAPE, torch.rand(SHAPE)))
    assert by_tensor.profile(sample) == by_shape.profile(sample)


class Unusual(ModelSpace):
    """A candidate with an operator that no device was measured with."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Block(3, 8, 3)
        self.act = LayerChoice({"relu": nn.ReLU(), "softmax": nn.Softmax2d()}, label="act")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.stem(x))


def test_an_operator_that_is_not_predicted_is_told_whatever_candidate_it_is_in() -> None:
    with pytest.warns(LatencyWarning, match="softmax"):
        LatencyProfiler(Unusual(), SHAPE, load_latency_predictor(CPU))
    with pytest.raises(UnpredictedOperatorError, match="softmax"):
        LatencyProfiler(Unusual(), SHAPE, CPU, strict=True)


class Rated(ModelSpace):
    """A choice among a continuum, and one among too many sets of inputs."""

    def __init__(self, many: bool) -> None:
        super().__init__()
        self.stem = Block(3, 8, 3)
        if many:
            self.rate = InputChoice(12, n_chosen=None, label="rate")
        else:
            self.rate = MutableDropout(nni.uniform("rate", 0.1, 0.5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(UnknownDeviceError, match="did you mean 'cortexA76cpu_tflite21'"):
        LatencyProfiler(Two(), SHAPE, "cortexA76")
    with pytest.raises(ReaderError, match=r"input_shape=\[\(1, 4, 16, 16\)\]"):
        LatencyProfiler(Two(), (1, 4, 16, 16), CPU)
    with pytest.raises(SpaceError, match="pass a ModelSpace"):
        LatencyProfiler(nn.Conv2d(3, 8, 3), SHAPE, CPU)
    with pytest.raises(SpaceError, match="'rate' is a Numerical"):
        LatencyProfiler(Rated(many=False), SHAPE, CPU)
    with pytest.raises(SpaceError, match="'rate' chooses among more than 256 combinations"):
        LatencyProfiler(Rated(many=True), SHAPE, CPU)
    with pytest.raises(SpaceError, match=r"no sample of the space has .*layer='k9'"):
        LatencyProfiler(Two(), SHAPE, CPU).profile({"width": 8, "layer": "k9"})


class Wide(ModelSpace):
    """A kernel whose shape five choices decide together."""

    def __init__(self) -> None:
        super().__init__()
        widths = [nni.choice(f"width_{i}", [2, 4, 6, 8, 10, 12]) for i in range(5)]
        self.layer = Block(3, sum(widths), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_a_kernel_that_too_many_labels_decide_is_refused_by_their_names() -> None:
    with pytest.raises(SpaceError, match=r"7776 combinations of width_0, width_1, .*width_4"):
        LatencyProfiler(Wide(), SHAPE, CPU)


def tiny() -> Any:
    return spos("small", input_size=16, depths=(2, 1), channels=(16, 32), head_channels=32)


class Deep(ModelSpace):
    """Choices of width, kernel and depth, which a one-shot strategy mixes within the layers."""

    input_shape = SHAPE

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [8, 16, 24])
        self.stem = Block(3, width, nni.choice("kernel", [1, 3]))
        self.tail = Repeat(lambda index: Block(width, width, 3), (1, 3), label="depth")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.tail(self.stem(x))), 1))


class Layers(ModelSpace):
    """Layer choices in blocks that are repeated."""

    input_shape = SHAPE

    def __init__(self) -> None:
        super().__init__()

        def layer(index: int) -> Any:
            return LayerChoice({"k1": Block(8, 8, 1), "k5": Block(8, 8, 5)}, label=f"layer_{index}")

        self.stem = Block(3, 8, 3)
        self.tail = Repeat(layer, (1, 3), label="depth")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.tail(self.stem(x))), 1))


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NNI and Lightning write where they run."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "make"), [
    ("Proxyless", tiny), ("Proxyless", Layers), ("DARTS", Deep),
    pytest.param("DARTS", tiny, marks=pytest.mark.slow),
    pytest.param("GumbelDARTS", tiny, marks=pytest.mark.slow),
])  # fmt: skip
def test_penalty_moves_the_architecture_to_either_side(name: str, make: Callable[[], Any]) -> None:
    expected = []
    for baseline in (0.001, 100.0):  # none of the samples is near either
        space = make()
        profiler = LatencyProfiler(space, space.input_shape, CPU)
        penalty = ExpectationProfilerPenalty(profiler, baseline, scale=10 * baseline, nonlinear="absolute")
        strategy = getattr(strategies, name)(arc_learning_rate=0.2, penalty=penalty)
        train(strategy, space, steps=20)
        expected.append(float(penalty.profile(strategy.oneshot_module.export_probs())))
    latencies = all_latencies(profiler)
    quarter = (latencies[-1] - latencies[0]) / 4
    assert expected[0] < latencies[0] + quarter < latencies[-1] - quarter < expected[1]


def all_latencies(profiler: LatencyProfiler) -> list[float]:
    """Latencies of all samples of a space, ms, lowest first."""
    mutables = profiler.expression.simplify()
    values = itertools.product(*(mutable.values for mutable in mutables.values()))
    return sorted(profiler.profile(dict(zip(mutables, sample, strict=True))) for sample in values)


@pytest.mark.usefixtures("in_folder")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["RandomOneShot", "ENAS"])
def test_strategies_export_what_their_filter_accepts(name: str) -> None:
    if name == "ENAS":
        pytest.importorskip("tianshou", reason="what NNI's ENAS learns with")
    space = tiny()
    profiler = LatencyProfiler(space, space.input_shape, CPU)
    latencies = all_latencies(profiler)
    limit = latencies[len(latencies) // 5]
    options = {"batches_per_update": 4, "reward_metric_name": "val_acc"} if name == "ENAS" else {}
    strategy = getattr(strategies, name)(filter=RangeProfilerFilter(profiler, max=limit), **options)
    train(strategy, space, steps=4)
    exported = [next(iter(strategy.list_models())).sample for _ in range(5)]
    assert all(profiler.profile(sample) <= limit for sample in exported)
