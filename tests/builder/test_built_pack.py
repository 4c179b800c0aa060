"""The rest of the package works on a built pack by its name, with nothing more to do."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="fitting a predictor needs torch")
pytest.importorskip("onnx")
pytest.importorskip("scipy")

import nnmeter_nas.builder.fitting as fitting  # noqa: E402
from commands import Command  # noqa: E402
from layout import HELPERS  # noqa: E402
from limits import limit_in  # noqa: E402
from nnmeter_nas import list_latency_predictors, load_latency_predictor  # noqa: E402
from nnmeter_nas.builder.build import build  # noqa: E402
from nnmeter_nas.builder.networks import random_network  # noqa: E402
from nnmeter_nas.builder.plan import Plan  # noqa: E402
from nnmeter_nas.cli import main  # noqa: E402
from nnmeter_nas.readers.onnx.writer import to_onnx  # noqa: E402
from nnmeter_nas.strategies import LatencyFilter  # noqa: E402

MINE = "my-laptop"
SHAPE = (1, 3, 16, 16)
pytestmark = [
    pytest.mark.slow,
    # Few networks: much of a space lies beyond them.
    pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with model files, in whose home a pack of the simulated device was built."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNMETER_NAS_HOME", str(folder / "home"))
        patch.setenv("PYTHONPATH", str(HELPERS))
        patch.setattr(fitting, "_QUICK_STEPS", 100)
        patch.setattr(fitting, "_STEPS", 200)
        plan = Plan(networks=16, round_size=16, visits=2, members=1)
        device = "simulated_device:Device"
        build(MINE, device, folder / "work", plan, lambda found: None, lambda text: None)
        for seed in (7000, 7001, 7002, 7003, 7005, 7007):
            (folder / f"{seed}.onnx").write_bytes(to_onnx(random_network(seed)))
        yield folder


class Block(torch.nn.Sequential):
    """A convolution and what devices run with it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        convolution = torch.nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, torch.nn.BatchNorm2d(outputs), torch.nn.ReLU())


def chosen(layer_choice: Any, base: type) -> Any:
    """A space of one choice, for either line of NNI."""

    class Space(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = Block(3, 16, 3)
            candidates = OrderedDict((f"k{k}", Block(16, 16, k)) for k in (3, 5, 7))
            self.body = layer_choice(candidates, label="kernel")
            self.classifier = torch.nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            return self.classifier(self.body(self.stem(x)).mean((2, 3)))

    return Space()


def test_it_is_listed_and_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert MINE in {card["name"] for card in list_latency_predictors()}
    assert main(["predictors", "list"]) == 0
    assert f"{MINE}" in capsys.readouterr().out
    assert main(["--list-predictors"]) == 0
    assert f"[Predictor] {MINE}: version=1.0" in capsys.readouterr().out
    assert main(["predictors", "info", MINE, "--verify"]) == 0
    info = capsys.readouterr().out
    assert "all match their SHA-256" in info
    assert "% within ±5 %, " in info, "how well the device repeats itself"
    model = str(folder / "7000.onnx")
    assert main(["predict", model, "--predictor", MINE, "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["low_ms"] < found["latency_ms"] < found["high_ms"]
    assert main(["explain", model, "--predictor", MINE]) == 0
    assert "9 of 10 such models take" in capsys.readouterr().out


def test_an_interval_is_around_each_latency() -> None:
    predictor = load_latency_predictor("MY-laptop")
    for seed in range(7000, 7004):
        found = predictor.predict_interval(random_network(seed))
        assert 0 < found.low < found.ms < found.high
        assert found.ms == pytest.approx(predictor.predict(random_network(seed)))


def test_it_is_calibrated_to_a_similar_device(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = load_latency_predictor(MINE)
    files = sorted(folder.glob("*.onnx"))
    lines = [f"{path.name},{1.5 * predictor.predict(path) + 0.2}" for path in files]
    (folder / "measured.csv").write_text("\n".join(["model,ms", *lines]))
    command = ["calibrate", "--predictor", MINE, "--measured", str(folder / "measured.csv")]
    assert main([*command, "--name", "my-old-laptop"]) == 0
    ms = load_latency_predictor("my-old-laptop").predict(files[0])
    assert ms == pytest.approx(1.5 * predictor.predict(files[0]) + 0.2, rel=0.03)
    with pytest.raises(SystemExit) as caught:  # it was not built, so no build replaces it
        main(["build", "my-old-laptop", "--backend", "simulated_device:Device"])
    assert caught.value.code == 2
    assert "was not built" in capsys.readouterr().err


def test_a_table_of_a_space_is_built_and_ranked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lut", "build", "--space", "spos-small", "--predictor", MINE, "-o", str(folder)]) == 0
    assert (folder / "spos-small_1x3x32x32" / f"{MINE}_1.0.npz").exists()
    capsys.readouterr()
    assert main(["lut", "rank", "spos-small", "--predictor", MINE, "--top", "2", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert 0 < first["latency_ms"] <= second["latency_ms"]


@pytest.mark.timeout(900)
def test_a_search_keeps_within_a_latency_on_it(folder: Path) -> None:
    pytest.importorskip("nni")
    limit = limit_in("spos-small", MINE, 0.3)
    command = Command(
        folder, "search", "--space", "spos-small", "--predictor", MINE, "--max-latency", str(limit),
        "--strategy", "random", "--trials", "1", "--epochs", "1", "-o", "run",
    )  # fmt: skip
    code, printed, errors = command.end()
    assert code == 0, errors
    assert f"latency on {MINE} at most" in printed
    best = json.loads((folder / "run" / "best" / "1.json").read_text())
    assert best["values"]["latency_ms"] <= limit


def test_a_filter_takes_it() -> None:
    pytest.importorskip("nni.retiarii", reason="makes candidates as NNI 2.10 does")
    from nni_candidates import make_candidates
    from nnmeter_nas.search_spaces import spos

    predictor = load_latency_predictor(MINE)
    candidates = make_candidates(spos("small"), "py", 6)
    every = LatencyFilter(1e9, MINE)
    assert all(every(model) for model in candidates)
    known = sorted(candidate.latency_ms for candidate in every.candidates)
    accept = LatencyFilter(known[2], predictor, confident=True)
    assert sum(accept(model) for model in candidates) <= 3


def test_proxylessnas_is_led_by_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nni.retiarii", reason="needs NNI 2.10.1")
    from nni.retiarii.nn.pytorch import LayerChoice

    from nnmeter_nas.estimators import HardwareLatencyEstimator

    space = chosen(LayerChoice, torch.nn.Module)
    estimator = HardwareLatencyEstimator(MINE, space, SHAPE, dump_lat_table=None)
    latencies = [estimator.cal_expected_latency({"kernel": one}) for one in torch.eye(3)]
    assert latencies[0] < latencies[1] < latencies[2]
    tiny = ["--n_cell_stages", "1,2", "--width-stages", "8,8", "--stride_stages", "2,2"]
    command = ["proxylessnas", "--applied_hardware", MINE, "--reference_latency", "3", *tiny]
    short = ["--epochs", "2", "--warmup_epochs", "1", "--settle_epochs", "0", "-o", str(folder / "proxyless")]
    assert main([*command, *short]) == 0
    assert f"ms on {MINE} by its full graph" in capsys.readouterr().out


@pytest.mark.nni3
def test_profilers_of_nni_3_take_it() -> None:
    pytest.importorskip("nni.nas.profiler.pytorch.flops", reason="NNI 2.10 has no profilers")
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace

    from nnmeter_nas import compat
    from nnmeter_nas.estimators.latency_profiler import LatencyProfiler

    space, predictor = chosen(LayerChoice, ModelSpace), load_latency_predictor(MINE)
    samples = [{"kernel": f"k{k}"} for k in (3, 5, 7)]
    whole = [predictor.predict(space.freeze(sample), "torch", SHAPE) for sample in samples]
    ours = LatencyProfiler(space, SHAPE, MINE)
    assert [ours.profile(sample) for sample in samples] == pytest.approx(whole)
    compat.install()
    try:
        from nni.nas.profiler.pytorch.nn_meter import NnMeterProfiler

        theirs = NnMeterProfiler(space, torch.randn(*SHAPE), MINE, custom_leaf_types=(Block,))
    finally:
        compat.uninstall()
    # The parts that it prices alone share no kernels.
    assert [theirs.profile(sample) for sample in samples] == pytest.approx(whole, rel=0.2)
