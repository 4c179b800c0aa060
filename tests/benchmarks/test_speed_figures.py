"""Speed beside NNI's own table and profiler: that the two do the same work is seen before it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nni.nas.nn.pytorch", reason="needs NNI and torch")

from layout import REPOSITORY
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.benchmarks.speed.figures import MeasurementError, Unmeasured
from nnmeter_nas.benchmarks.speed.nnmeter import DisagreementError
from nnmeter_nas.benchmarks.speed.profilers import check_profiles, profiler_figures
from nnmeter_nas.benchmarks.speed.spaces import measure_space, space_figures
from nnmeter_nas.benchmarks.speed.tables import check_prices
from nnmeter_nas.costs import FactorTable, build_table
from nnmeter_nas.search_spaces import proxylessnas
from nnmeter_nas.supernet.nni_space import space_of

CPU = "cortexA76cpu_tflite21"
#: Virtual environment of nn-Meter 2.0.
NNMETER = Path(os.environ.get("NNMETER_PYTHON", REPOSITORY / ".venv-nnmeter/bin/python")).parents[1]
needs_nnmeter = pytest.mark.skipif(not NNMETER.is_dir(), reason="needs nn-Meter 2.0; make test sets it up")


@pytest.fixture(scope="module")
def table() -> FactorTable:
    return build_table(space_of(proxylessnas("small")), load_latency_predictor(CPU))


def as_nni_prices(table: FactorTable, addition: float) -> dict[str, dict[str, float]]:
    """What NNI would price: residual layers without their addition, of candidates named alike the last."""
    prices: dict[str, dict[str, float]] = {}
    for label, known in table.candidates.items():
        less = addition if "zero" in known else 0.0
        for name, ms in zip(known, table.block(label), strict=True):
            prices.setdefault(label, {})[name.split("_")[-1]] = ms - (0.0 if name == "zero" else less)
    return prices


def test_tables_that_differ_by_residual_additions_alone_agree(table: FactorTable) -> None:
    check_prices(table, as_nni_prices(table, addition=0.01))


@pytest.mark.parametrize("label", ["layer_1", "layer_2"])
def test_a_candidate_priced_otherwise_is_told(table: FactorTable, label: str) -> None:
    prices = as_nni_prices(table, addition=0.01)
    prices[label]["e6"] *= 1.001
    with pytest.raises(DisagreementError, match=f"'{label}' on {CPU}"):
        check_prices(table, prices)


def test_residual_layers_that_nni_prices_higher_are_told(table: FactorTable) -> None:
    with pytest.raises(DisagreementError, match="'layer_2'"):
        check_prices(table, as_nni_prices(table, addition=-0.01))


@pytest.mark.parametrize(("left_out", "agree"), [
    ([0.5, 0.5, 0.5], True), ([0.0, 0.0, 0.0], True), ([0.5, 0.5, 0.6], False), ([-0.5, -0.5, -0.5], False),
])  # fmt: skip
def test_profiles_agree_if_nn_meter_leaves_out_the_same_of_each(left_out: list[float], agree: bool) -> None:
    ours = SimpleNamespace(profile=lambda sample: 10.0 * sample["depth"])
    theirs = SimpleNamespace(profile=lambda sample: 10.0 * sample["depth"] - left_out[sample["depth"]])
    samples: list[dict[str, Any]] = [{"depth": depth} for depth in range(3)]
    if agree:
        check_profiles(ours, theirs, samples)
    else:
        with pytest.raises(DisagreementError, match="ms more than nn-Meter"):
            check_profiles(ours, theirs, samples)


def test_without_nni_3_the_profile_is_left_out_and_said_so(tmp_path: Path) -> None:
    [result] = profiler_figures(tmp_path, CPU, tmp_path, tmp_path / "python")
    assert isinstance(result, Unmeasured)
    assert "NNI 3.0" in result.reason


def test_spaces_without_an_environment_are_left_out_and_said_so(tmp_path: Path) -> None:
    [result] = space_figures(CPU, [("3.0", tmp_path / "python")])
    assert isinstance(result, Unmeasured)
    assert "NNI 3.0" in result.reason


@pytest.mark.slow
@pytest.mark.nni3
def test_a_space_is_measured_each_time_anew() -> None:
    pytest.importorskip("nni")
    figure, *_ = measure_space("hub-shufflenet", CPU, 2)
    assert len(figure.ours.values) == 2
    assert min(figure.ours.values) > max(figure.ours.values) / 5


@pytest.mark.slow
def test_profilers_that_cannot_run_say_why(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="has no nn-Meter"):
        list(profiler_figures(tmp_path, CPU, tmp_path, Path(sys.executable)))


BOTH = f"""
import json, sys
from pathlib import Path
from nnmeter_nas.benchmarks.speed import nnmeter
nnmeter.TREES = 5
nn_meter = nnmeter.import_nn_meter(Path({str(NNMETER)!r}))
def both(device):
    return nnmeter.Both(nn_meter, device, Path(sys.argv[1]))
"""
TABLES = """
from nnmeter_nas.benchmarks.speed.tables import measure_tables
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.search_spaces import proxylessnas
figures = [measure_tables([both(device) for device in devices()], proxylessnas("small"), 2)]
"""
PROFILERS = f"""
import torch
from nni.nas.hub.pytorch.proxylessnas import ConvBNReLU, InvertedResidual
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear
from nnmeter_nas.benchmarks.speed.profilers import measure_profilers

class Small(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stem = ConvBNReLU(3, 16, stride=2)
        layers = [InvertedResidual(16, 16, expand, kernel) for expand in (3, 6) for kernel in (3, 5)]
        self.layer = LayerChoice(layers, label="layer")
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(16, 10)

    def forward(self, x):
        return self.classifier(self.pool(self.layer(self.stem(x))).flatten(1))

one = both("{CPU}")
figures = list(measure_profilers(Small(), one.ours, one.theirs, 2))
"""
PRINT = """
print(json.dumps([[f.name, len(f.ours.values), len(f.rival.values)] for f in figures]))
"""


def measured(script: str, folder: Path) -> list[tuple[str, int, int]]:
    """Of the figures that ``script`` makes: name, repeats of ours, and of the rival.

    In a process of its own, as nn-Meter would stay on the path.
    """
    command = [sys.executable, "-W", "ignore", "-c", BOTH + script + PRINT, folder]
    environment = {**os.environ, "HOME": str(folder)}  # where nn-Meter and NNI write
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [tuple(row) for row in json.loads(run.stdout.splitlines()[-1])]


@pytest.mark.slow
@needs_nnmeter
def test_tables_of_nni_and_ours_agree_on_all_devices(tmp_path: Path) -> None:
    pytest.importorskip("nni.retiarii", reason="needs NNI 2.10.1")
    assert measured(TABLES, tmp_path) == [("lookup tables of ProxylessNASSpace, 4 devices", 2, 1)]


@pytest.mark.slow
@pytest.mark.nni3
@needs_nnmeter
def test_profiles_of_nni_and_ours_agree_whichever_exporter(tmp_path: Path) -> None:
    pytest.importorskip("nni.nas.profiler.pytorch.flops", reason="NNI 2.10 has no profilers")
    assert measured(PROFILERS, tmp_path) == [
        ("profile of Small, NNI 3.0", 2, 1), ("the same, beside torch's former exporter", 2, 3),
    ]  # fmt: skip
