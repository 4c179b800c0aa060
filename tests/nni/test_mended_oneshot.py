"""NNI 3.0: after install(), one-shot strategies heed penalties and filters made from NNI's own profilers."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.nas.profiler.pytorch.flops", reason="NNI 2.10 has no profilers")
pytest.importorskip("pytorch_lightning", reason="what NNI's one-shot strategies train with")

import nni.nas.strategy as strategies  # noqa: E402
from nni.nas.nn.pytorch import LayerChoice, ModelSpace  # noqa: E402
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule  # noqa: E402
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, RangeProfilerFilter  # noqa: E402
from torch import nn  # noqa: E402

from nni3_oneshot import train  # noqa: E402
from nnmeter_nas import compat  # noqa: E402
from nnmeter_nas.nni import patches  # noqa: E402

pytestmark = [
    pytest.mark.nni3,
    pytest.mark.filterwarnings("ignore"),
]


class Space(ModelSpace):
    """Two choices of a kernel size."""

    def __init__(self) -> None:
        super().__init__()

        def block(kernel: int) -> Any:
            return nn.Sequential(nn.Conv2d(8, 8, kernel, padding=kernel // 2), nn.BatchNorm2d(8), nn.ReLU())

        def choice(label: str) -> Any:
            return LayerChoice({"k1": block(1), "k5": block(5)}, label=label)

        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), choice("first"), choice("second"))
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layers(x).mean((2, 3)))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NNI as it is after install(), in a folder for what Lightning writes."""
    monkeypatch.chdir(tmp_path)
    compat.install()
    yield
    compat.uninstall()


def profiler_of(space: Any) -> Any:
    from nni.nas.profiler.pytorch.nn_meter import NnMeterProfiler

    return NnMeterProfiler(space, torch.randn(1, 3, 16, 16), "cortexA76cpu_tflite21")


@pytest.mark.parametrize("name", ["Proxyless", "DARTS"])
def test_penalty_with_nn_meters_profiler_moves_the_architecture(name: str) -> None:
    likely = []
    for scale in (100.0, -100.0):
        torch.manual_seed(0)
        space = Space()
        penalty = ExpectationProfilerPenalty(profiler_of(space), baseline=1.0, scale=scale)
        strategy = getattr(strategies, name)(arc_learning_rate=0.2, penalty=penalty)
        train(strategy, space, steps=10)
        likely.append([odds["k1"] for odds in strategy.oneshot_module.export_probs().values()])
    assert min(likely[0]) > 0.9
    assert max(likely[1]) < 0.1


def test_filter_with_nn_meters_profiler_lets_no_violator_through() -> None:
    space = Space()
    profiler = profiler_of(space)
    samples = [
        dict(zip(("first", "second"), s, strict=True)) for s in itertools.product(("k1", "k5"), repeat=2)
    ]
    limit = min(map(profiler.profile, samples))
    strategy = strategies.RandomOneShot(filter=RangeProfilerFilter(profiler, max=limit))
    train(strategy, space, steps=4)
    exported = [next(iter(strategy.list_models())).sample for _ in range(10)]
    assert [profiler.profile(sample) <= limit for sample in exported] == [True] * 10


def test_uninstalling_restores_the_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    # Filters and profilers of other tests may still exist.
    monkeypatch.setattr(patches, "_ours", weakref.WeakSet())
    patched = DartsLightningModule.training_step
    compat.uninstall()
    original = DartsLightningModule.training_step
    compat.install()
    assert DartsLightningModule.training_step is not original
    assert original is patched.__wrapped__
