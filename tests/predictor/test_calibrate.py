"""Calibration to another device: what it learns from few models, what it refuses, and how it is kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from forests import forest
from graphs import graph_of
from nnmeter_nas import LatencyPredictor, calibrated, load_latency_predictor
from nnmeter_nas.calibrate import fit_calibration, store, with_calibration
from nnmeter_nas.costs.build import build_table
from nnmeter_nas.errors import CalibrationError, PackError, UnknownDeviceError
from nnmeter_nas.files import HOME
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.kernels.fusion import parse_rules
from nnmeter_nas.packs import Pack, load_pack, remove_predictor
from nnmeter_nas.packs.calibration import Calibration
from nnmeter_nas.packs.fingerprint import pack_fingerprint
from nnmeter_nas.packs.nnmeter1.forest import write_forest
from nnmeter_nas.packs.nnmeter1.predictors import ForestPredictors
from nnmeter_nas.packs.pack import CARD, RULE_FILE, forest_file, write_card, write_checksums
from nnmeter_nas.packs.registry import devices, user_packs
from nnmeter_nas.supernet import load_space
from nnmeter_nas.supernet.space import Space

DEVICES = sorted(devices())
#: The device at hand: its convolutions are slow, launches dear, and each run takes a while to start.
SCALES, LAUNCH_MS, OFFSET_MS = {"conv": 1.4, "dwconv": 0.6}, 0.03, 0.2


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(params=DEVICES)
def original(request: pytest.FixtureRequest) -> LatencyPredictor:
    return load_latency_predictor(request.param)


@pytest.fixture
def cpu() -> LatencyPredictor:
    return load_latency_predictor("cortexA76cpu_tflite21")


def network(rng: np.random.Generator) -> nx.DiGraph:
    """A random network of convolutions, depthwise convolutions and pools."""
    operators: list[tuple[Any, ...]] = []
    last = "x"
    for i in range(int(rng.integers(3, 12))):
        channels = int(rng.integers(1, 30)) * 8
        kernel = int(rng.choice([1, 3, 5]))
        window = {"kernel": (kernel, kernel), "padding": "same"}
        operators.append((f"c{i}", "conv", [last], {**window, "out_channels": channels}))
        last = f"c{i}"
        if rng.random() < 0.5:
            depthwise = {**window, "out_channels": channels, "groups": channels}
            operators.append((f"d{i}", "conv", [last], depthwise))
            last = f"d{i}"
    operators.append(("pool", "globalavgpool", [last]))
    return graph_of(*operators, shape=(1, 3, int(rng.integers(8, 64)), 32))


def networks(count: int, seed: int) -> list[nx.DiGraph]:
    rng = np.random.default_rng(seed)
    return [network(rng) for _ in range(count)]


def latency_there(original: LatencyPredictor, graph: nx.DiGraph) -> float:
    """Latency in ms on the device at hand."""
    nodes = original.explain(graph).kernel_graph.nodes(data=True)
    kernels = [SCALES.get(kernel_type(d["kernel"]), 1.0) * d["latency_ms"] + LAUNCH_MS for _, d in nodes]
    return sum(kernels) + OFFSET_MS


def timed(original: LatencyPredictor, count: int, noise: float = 0.0, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [(g, latency_there(original, g) * rng.lognormal(0, noise)) for g in networks(count, seed)]


def errors(predictor: LatencyPredictor, original: LatencyPredictor) -> np.ndarray[Any, Any]:
    """Relative errors on networks that were not timed."""
    return np.array([abs(predictor.predict(g) / latency_there(original, g) - 1) for g in networks(40, 99)])


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_few_models_make_a_predictor_of_another_device(original: LatencyPredictor) -> None:
    before = errors(original, original)
    assert np.mean(before) > 0.1
    assert np.mean(errors(calibrated(original, timed(original, 12)), original)) < 0.03
    assert np.mean(errors(calibrated(original, timed(original, 40)), original)) < 0.01


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_five_noisy_models_help_or_are_refused(cpu: LatencyPredictor) -> None:
    before, helped = np.mean(errors(cpu, cpu)), 0
    for seed in range(6):
        fit = fit_calibration(cpu, timed(cpu, 5, noise=0.05, seed=seed))
        if fit.helps:
            helped += 1
            assert np.mean(errors(with_calibration(cpu, fit), cpu)) < before
    assert helped >= 3


def test_the_error_that_it_is_judged_by_is_that_of_models_left_out(cpu: LatencyPredictor) -> None:
    models = timed(cpu, 8, noise=0.05)
    fit = fit_calibration(cpu, models)
    assert fit.before == pytest.approx([cpu.explain(graph).latency_ms for graph, _ in models])
    without = fit_calibration(cpu, models[1:])
    expected = with_calibration(cpu, without, "other").explain(models[0][0]).latency_ms
    # Another model may leave out a kernel type of little weight, so the figures need not be equal.
    assert fit.after[0] == pytest.approx(expected, rel=0.02)


def test_measurements_of_the_original_device_and_noise_are_refused(cpu: LatencyPredictor) -> None:
    exact = [(graph, cpu.explain(graph).latency_ms) for graph in networks(10, 0)]
    with pytest.raises(CalibrationError, match=r"does not help: of 10 models.*measure more models"):
        calibrated(cpu, exact)
    rng = np.random.default_rng(0)
    with pytest.raises(CalibrationError, match="does not help"):
        calibrated(cpu, [(graph, ms * rng.choice([0.4, 2.5])) for graph, ms in exact])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:4], "at least 5 models, and 4 are given"),
        (lambda rows: [(rows[0][0], 0.0), *rows], "0.0 ms is not a positive number"),
        (lambda rows: [(rows[0][0], float("nan")), *rows], "nan ms is not"),
    ],
)
def test_unusable_measurements_are_refused(cpu: LatencyPredictor, change: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrated(cpu, change(timed(cpu, 6)))


@pytest.mark.parametrize("name", ["", "../up", "a b"])
def test_a_name_that_is_none_is_refused(cpu: LatencyPredictor, name: str) -> None:
    with pytest.raises(PackError, match="name of a device"):
        calibrated(cpu, timed(cpu, 8), name=name or "/")


def test_names_of_bundled_packs_and_calibrated_packs_are_refused(cpu: LatencyPredictor) -> None:
    with pytest.raises(CalibrationError, match="ships with the package"):
        calibrated(cpu, timed(cpu, 8), name="ADRENO640gpu_tflite21")
    mine = calibrated(cpu, timed(cpu, 8))
    with pytest.raises(CalibrationError, match="calibrated already; calibrate cortexA76cpu_tflite21 instead"):
        calibrated(mine, timed(cpu, 8))
    with pytest.raises(CalibrationError, match="not calibrated"):
        store(cpu)


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_it_is_stored_loaded_sent_and_removed(cpu: LatencyPredictor, home: Path) -> None:
    mine = calibrated(cpu, timed(cpu, 8), name="my-phone")
    graph = networks(1, 5)[0]
    folder = store(mine)
    assert folder == user_packs() / "my-phone" / "1.0"
    loaded = load_latency_predictor("My-Phone")
    assert loaded.predict(graph) == mine.predict(graph) == pickle.loads(pickle.dumps(mine)).predict(graph)
    assert loaded.predict(graph) != cpu.predict(graph)
    assert len({pack_fingerprint(p.pack) for p in (cpu, mine)}) == 2
    card = loaded.pack.card
    made_from = card["calibration"]["made_from"]
    assert (made_from["predictor"], made_from["version"]) == (cpu.device, cpu.version)
    assert made_from["fingerprint"] == pack_fingerprint(cpu.pack)
    assert card["calibration"]["models"] == 8
    left_out = card["calibration"]["one_model_left_out"]
    assert left_out["after"]["mape"] < left_out["before"]["mape"]
    assert "accuracy" not in card
    assert remove_predictor("my-phone") == [1.0]
    with pytest.raises(UnknownDeviceError):
        load_latency_predictor("my-phone")


@pytest.fixture
def forests() -> LatencyPredictor:
    """A pack of version 1.0 among the user's."""
    kernels = {"conv-bn-relu": 7, "dwconv-bn-relu": 7, "relu": 2}
    folder = user_packs() / "old" / "1.0"
    for name, features in kernels.items():
        write_forest(folder / forest_file(name), forest(features))
    (folder / RULE_FILE).write_text('{"MON": {"obey": 0}}', encoding="utf-8")
    sizes = {name: {"bytes": (folder / forest_file(name)).stat().st_size} for name in kernels}
    write_card(folder, {"kind": "forests", "name": "old", "version": 1.0, "category": "cpu",
                        "kernel_types": list(kernels), "forests": sizes})  # fmt: skip
    write_checksums(folder, [CARD, RULE_FILE, *map(forest_file, kernels)])
    return load_latency_predictor("old")


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_a_pack_of_forests_is_calibrated_without_copying_them(forests: LatencyPredictor) -> None:
    assert isinstance(forests.pack.predictors, ForestPredictors)
    mine = calibrated(forests, timed(forests, 10), name="new")
    folder = store(mine)
    assert load_latency_predictor("new").predict(networks(1, 5)[0]) == mine.predict(networks(1, 5)[0])
    name = forest_file("conv-bn-relu")
    assert (folder / name).samefile(user_packs() / "old" / "1.0" / name)
    assert load_pack(user_packs() / "old" / "1.0").calibration is None


def test_tables_and_explanations_count_what_each_run_takes(cpu: LatencyPredictor) -> None:
    pytest.importorskip("torch", reason="traces search spaces")
    mine = calibrated(cpu, timed(cpu, 20))
    offset_ms = mine.pack.offset_ms
    assert offset_ms > OFFSET_MS / 2
    found = mine.explain(networks(1, 5)[0])
    kernels = sum(ms for _, ms in found.kernel_graph.nodes(data="latency_ms"))
    assert found.latency_ms == pytest.approx(kernels + offset_ms)
    assert f"besides the kernels: {offset_ms:.3f} ms" in str(found)
    space = load_space("spos-small")
    table = build_table(space, mine)
    rows = random_architectures(space, 5)
    for architecture, ms in zip(rows, table.latencies(table.indices(rows)), strict=True):
        assert ms == pytest.approx(mine.explain(space.model_graph(architecture)).latency_ms, rel=1e-9)


def random_architectures(space: Space, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    candidates = space.candidates.items()
    return [{label: str(rng.choice(known)) for label, known in candidates} for _ in range(count)]


def test_no_kernel_gets_a_negative_latency() -> None:
    found = Calibration(scale=0.5, launch_ms=-1.0, offset_ms=0.0, kernel_types={"conv": (0.1, -2.0)})
    assert found.kernel_ms("conv", 0.2) > 0
    assert found.kernel_ms("relu", 1e-9) > 0
    assert found.kernel_ms("relu", 10.0) == 4.0


@pytest.mark.parametrize(
    "entry",
    [
        {},
        [],
        {"scale": 1, "launch_ms": 0, "offset_ms": 0},
        {"scale": "x", "launch_ms": 0, "offset_ms": 0, "kernel_types": {}},
        {"scale": float("inf"), "launch_ms": 0, "offset_ms": 0, "kernel_types": {}},
        {"scale": 1, "launch_ms": 0, "offset_ms": 0, "kernel_types": {"a": 1}},
    ],
)
def test_a_damaged_calibration_is_a_pack_error(entry: Any, cpu: LatencyPredictor) -> None:
    with pytest.raises(PackError, match="no usable calibration"):
        Calibration.from_card(entry)
    with pytest.raises(PackError, match="no usable calibration"):
        _ = Pack({**cpu.pack.card, "calibration": entry}, parse_rules([]), cpu.pack.predictors).calibration
