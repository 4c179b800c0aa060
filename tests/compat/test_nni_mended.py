"""NNI 2.10.1: what the package mends for its own classes is mended for scripts that run after install()."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii.oneshot.pytorch.proxyless", reason="the trainer of NNI 2.10")

from nni.nas.experiment.pytorch import RetiariiExperiment  # noqa: E402
from nni.retiarii import model_wrapper  # noqa: E402
from nni.retiarii.nn import pytorch as nn  # noqa: E402
from nni.retiarii.oneshot.pytorch import proxyless  # noqa: E402

from layout import HELPERS  # noqa: E402
from nnmeter_nas import compat  # noqa: E402
from nnmeter_nas.estimators import HardwareLatencyEstimator  # noqa: E402
from nnmeter_nas.nni import patches, unpatch  # noqa: E402
from nnmeter_nas.strategies import LatencyFilter  # noqa: E402

pytestmark = [
    pytest.mark.slow,  # imports NNI
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning"),
]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """NNI as it is after install(), in a folder for what it writes."""
    monkeypatch.chdir(tmp_path)
    unpatch()
    compat.install()
    yield
    compat.uninstall()


@model_wrapper
class Space(nn.Module):
    """One choice: a cheap layer or a dear one, which learn alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        layers = [nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(8, 8, 1)]
        # NNI prices only candidates of several layers.
        self.layer = nn.LayerChoice([nn.Sequential(layer, nn.ReLU()) for layer in layers], label="layer")
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layer(self.stem(x)).mean((2, 3)))


@pytest.mark.parametrize(("weight", "found"), [(50.0, 1), (-50.0, 0)])
@pytest.mark.usefixtures("installed")
def test_proxylessnas_of_nni_heeds_its_latency(weight: float, found: int) -> None:
    torch.manual_seed(0)
    model = Space()
    images = torch.utils.data.TensorDataset(torch.randn(32, 3, 16, 16), torch.randint(0, 10, (32,)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    trainer = proxyless.ProxylessTrainer(
        model, torch.nn.functional.cross_entropy, lambda logits, y: {}, optimizer,
        num_epochs=4, dataset=images, batch_size=4, workers=0, device=torch.device("cpu"),
        arc_learning_rate=0.2, grad_reg_loss_type="add#linear", grad_reg_loss_params={"lambda": weight},
        applied_hardware="cortexA76cpu_tflite21", dummy_input=(1, 3, 16, 16), ref_latency=1.0,
    )  # fmt: skip
    before = [candidate[0].weight.detach().clone() for candidate in trainer.nas_modules[0][1].ops]
    trainer.fit()
    assert trainer.export() == {"layer": found}
    after = [candidate[0].weight for candidate in trainer.nas_modules[0][1].ops]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    probabilities = {"layer": torch.tensor([0.25, 0.75])}
    table = trainer.latency_estimator.block_latency_table
    expected = table["stationary_block"]["root"] + 0.25 * table["layer"]["0"] + 0.75 * table["layer"]["1"]
    assert float(trainer.latency_estimator.cal_expected_latency(probabilities)) == pytest.approx(expected)
    assert torch.optim.Adam is type(trainer.ctrl_optim)


def test_an_estimator_in_the_place_of_nnis_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.uninstall()
    monkeypatch.setattr(proxyless, "HardwareLatencyEstimator", HardwareLatencyEstimator)  # as our page says
    own = HardwareLatencyEstimator.cal_expected_latency
    compat.install()
    try:
        assert HardwareLatencyEstimator.cal_expected_latency is own
    finally:
        compat.uninstall()


def test_uninstalling_restores_nni_unless_something_of_ours_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> list[Any]:
        return [RetiariiExperiment.run, proxyless.HardwareLatencyEstimator.cal_expected_latency]

    # Filters of other tests may still exist.
    monkeypatch.setattr(patches, "_ours", weakref.WeakSet())
    unpatch()
    original = state()
    compat.install()
    patched = state()
    assert not set(patched) & set(original)
    accept = LatencyFilter(5.0, "cortexA76cpu_tflite21")
    compat.uninstall()
    assert state() == patched
    compat.install()
    del accept
    compat.uninstall()
    assert state() == original


@pytest.mark.timeout(600)
def test_a_search_with_a_filter_of_the_users_runs_under_the_graph_engine(tmp_path: Path) -> None:
    """Without the patches it ends at once: NNI's checkpoint has no room for a space (``PayloadTooLarge``)."""
    script = [str(HELPERS / "nn_meter_search.py"), str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "nnmeter_nas.compat", *script],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "statuses.json").read_text()) == ["SUCCEEDED"] * 2
