"""NNI 3.0's NnMeterProfiler prices spaces through this package, on a torch that its export does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.nas.profiler.pytorch.flops", reason="NNI 2.10 has no profilers")

import nni  # noqa: E402
from nni.nas.nn.pytorch import (  # noqa: E402
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    Repeat,
)
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, RangeProfilerFilter  # noqa: E402
from torch import nn  # noqa: E402

from nnmeter_nas import LatencyPredictor, load_latency_predictor  # noqa: E402
from nnmeter_nas import compat as nn_meter_compat  # noqa: E402
from nnmeter_nas.packs.warmth import Warmth  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")]

CPU = "cortexA76cpu_tflite21"
DEVICES = (CPU, "adreno640gpu_tflite21", "myriadvpu_openvino2019r2")
SHAPE = (1, 3, 32, 32)

NN_METER_OF_SOMEBODY_ELSE = """
class nnMeterPredictor: ...
def load_latency_predictor(name, version=None): raise RuntimeError("not ours")
"""


class Block(nn.Sequential):
    """A convolution and what devices run with it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Space(ModelSpace):
    """A choice of a width, of a layer and of a depth."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [16, 32])
        self.stem = MutableConv2d(3, width, 3, stride=2, padding=1)
        self.norm = MutableBatchNorm2d(width)
        self.narrow = MutableConv2d(width, 24, 1)
        candidates = {"k3": Block(24, 24, 3), "k5": Block(24, 24, 5), "none": nn.Identity()}
        self.layer = LayerChoice(candidates, label="layer")
        self.tail = Repeat(lambda index: Block(24, 24, 3), (1, 3), label="depth")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(torch.relu(self.norm(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(self.tail(self.layer(x))), 1))


SAMPLES = [
    {"width": 16, "layer": "k3", "depth": 1},
    {"width": 32, "layer": "k5", "depth": 3},
    {"width": 16, "layer": "none", "depth": 2},
]


class CountingPredictor:
    """A device's predictor that counts what it is asked for."""

    def __init__(self, predictor: LatencyPredictor) -> None:
        self.predictor = predictor
        self.calls = 0

    def predict(self, model: Any, model_type: str) -> float:
        """Latency of ``model``, ms."""
        self.calls += 1
        return self.predictor.predict(model, model_type)


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    nn_meter_compat.install()
    yield
    nn_meter_compat.uninstall()


@pytest.fixture(scope="module")
def profile() -> Callable[..., Any]:
    """NNI's profiler of a space."""
    from nni.nas.profiler.pytorch.nn_meter import NnMeterProfiler

    return lambda space, predictor, shape=SHAPE, **options: NnMeterProfiler(
        space, torch.randn(*shape), predictor, **options
    )


@pytest.mark.parametrize(("leaves", "highest"), [((Block,), 1.2), ((), 1.8)], ids=["blocks", "layers"])
@pytest.mark.parametrize("device", DEVICES)
def test_profile_agrees_with_the_whole_network(
    profile: Callable[..., Any], device: str, leaves: tuple[type, ...], highest: float
) -> None:
    """Parts that are priced alone share no kernels: their sum is larger, the more so the smaller they are."""
    predictor = load_latency_predictor(device)
    profiler = profile(Space(), predictor, custom_leaf_types=leaves)
    for sample in SAMPLES:
        whole = predictor.predict(Space().freeze(sample), "torch", SHAPE)
        assert whole <= profiler.profile(sample) <= highest * whole


def test_layers_are_priced_as_parts_of_a_large_network(profile: Callable[..., Any]) -> None:
    predictor = load_latency_predictor(CPU)
    card = {**predictor.pack.card, "warmth": Warmth(100.0, 0.5, 0.01).to_card()}
    warm = LatencyPredictor(replace(predictor.pack, card=card))
    in_large = profile(Space(), CPU).profile(SAMPLES[0])
    assert warm.predict(Space().freeze(SAMPLES[0]), "torch", SHAPE) < 0.5 * in_large
    assert profile(Space(), warm).profile(SAMPLES[0]) == in_large


def test_each_layer_is_predicted_once_for_each_of_its_forms(profile: Callable[..., Any]) -> None:
    predictor = CountingPredictor(load_latency_predictor(CPU))
    profile(Space(), predictor, custom_leaf_types=(Block,))
    # Two widths of stem, norm and narrow; three candidates; three repetitions; pool and classifier.
    assert predictor.calls == 2 + 2 + 2 + 3 + 3 + 2


def test_profiler_loads_a_predictor_by_name(profile: Callable[..., Any]) -> None:
    by_name = profile(Space(), CPU).profile(SAMPLES[0])
    assert by_name == profile(Space(), load_latency_predictor(CPU)).profile(SAMPLES[0])


def test_expected_latency_pulls_towards_the_faster_candidate(profile: Callable[..., Any]) -> None:
    penalty = ExpectationProfilerPenalty(profile(Space(), CPU), baseline=1.0)
    logits = torch.zeros(3, requires_grad=True)
    choice = dict(zip(("k3", "k5", "none"), torch.softmax(logits, 0), strict=True))
    sample = {"width": {16: 0.5, 32: 0.5}, "layer": choice, "depth": {1: 0.0, 2: 0.5, 3: 0.5}}
    loss, details = penalty(torch.tensor(0.0), sample)
    loss.backward()
    k3, k5, none = logits.grad.tolist()
    assert k5 > k3 > none
    assert float(details["penalty"]) > 0


def test_range_filter_accepts_by_latency(profile: Callable[..., Any]) -> None:
    profiler = profile(Space(), CPU)
    fast, slow = (profiler.profile(SAMPLES[i]) for i in (0, 1))
    accept = RangeProfilerFilter(profiler, max=(fast + slow) / 2)
    assert [accept(sample) for sample in SAMPLES[:2]] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_hub_space_agrees_with_the_whole_network(profile: Callable[..., Any], device: str) -> None:
    from nni.nas.hub.pytorch import ProxylessNAS
    from nni.nas.hub.pytorch.proxylessnas import ConvBNReLU, DepthwiseSeparableConv, InvertedResidual

    predictor, space, shape = load_latency_predictor(device), ProxylessNAS(), (1, 3, 224, 224)
    leaves = (ConvBNReLU, DepthwiseSeparableConv, InvertedResidual)
    profiler = profile(space, predictor, shape, custom_leaf_types=leaves)
    for _ in range(3):
        sample: dict[str, Any] = {}
        network = space.random(sample)
        assert profiler.profile(sample) == pytest.approx(predictor.predict(network, "torch", shape), rel=0.01)


def run(script: str, folder: Path) -> list[str]:
    """The lines that a Python process in ``folder`` prints."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    # Without what install() in this process hands on to children.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


PRICE_A_LAYER = f"""
layer = torch.nn.Conv2d(3, 8, 3)
ours = nnmeter_nas.load_latency_predictor("{CPU}").predict(layer, "torch", (1, 3, 8, 8))
print(profiler.NnMeterProfiler(layer, torch.randn(1, 3, 8, 8), "{CPU}").profile({{}}) == ours)
"""


@pytest.mark.slow
def test_order_of_imports_does_not_matter(tmp_path: Path) -> None:
    """The profiler comes last, with a predictor that is there already; or first, with another nn-Meter."""
    last = f"""
import nnmeter_nas, torch
nnmeter_nas.compat.install()
import nn_meter
predictor = nn_meter.load_latency_predictor("{CPU}")
import nni.nas.profiler.pytorch.nn_meter as profiler
{PRICE_A_LAYER}
"""
    first = f"""
import nnmeter_nas, nn_meter, torch
import nni.nas.profiler.pytorch.nn_meter as profiler
to_onnx, theirs = profiler.to_onnx, nn_meter
nnmeter_nas.compat.install()
{PRICE_A_LAYER}
nnmeter_nas.compat.uninstall()
import nn_meter
print(profiler.to_onnx is to_onnx, nn_meter is theirs)
"""
    imports = "from nnmeter_nas import nn_meter_compat\n"
    assert run(imports + last, tmp_path)[-1] == "True"
    (tmp_path / "nn_meter.py").write_text(NN_METER_OF_SOMEBODY_ELSE)
    assert run(imports + first, tmp_path)[-2:] == ["True", "True True"]
