"""Intervals: wider with doubt and level, calibrated on models held out, absent where nothing tells them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import graph_of
from nnmeter_nas import LatencyPredictor, calibrated, load_latency_predictor, read_model
from nnmeter_nas.errors import PackError, UnpredictedOperatorError
from nnmeter_nas.kernels.configuration import Configurations, configuration
from nnmeter_nas.packs import load_pack, save_pack
from nnmeter_nas.packs.doubt import Doubt, Prototypes, doubts_of
from nnmeter_nas.packs.intervals import LEVELS, Intervals, conformal_half_widths
from nnmeter_nas.packs.network import KernelNetwork
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models

DEVICES = sorted(devices())
CPU = "cortexA76cpu_tflite21"
NONE = Doubt(0.0, 0.0, 0.0, 0.0, 0.0)
#: Below the level, as the tests read only the first models of each family, of which few were held out.
LEAST_COVERAGE = 70


@pytest.fixture(params=DEVICES)
def predictor(request: pytest.FixtureRequest) -> LatencyPredictor:
    return load_latency_predictor(request.param)


def convolution(channels: int = 64, side: int = 56, kernel: int = 3) -> Any:
    return graph_of(
        ("c", "conv", ["x"], {
            "out_channels": channels, "kernel": (kernel, kernel), "stride": (1, 1), "padding": "same",
            "groups": 1,
        }),
        ("r", "relu", ["c"], {}),
        shape=(1, channels, side, side),
    )  # fmt: skip


@given(
    level=st.floats(0.5, 0.99),
    more=st.floats(0, 1),
    ms=st.floats(1e-3, 1e4),
    kind=st.sampled_from(Doubt._fields),
)
def test_doubt_and_level_only_widen(level: float, more: float, ms: float, kind: str) -> None:
    intervals = Intervals(dict(zip(LEVELS, np.linspace(0.01, 0.3, len(LEVELS)), strict=True)), {kind: 2.0})
    narrow = intervals.around(ms, NONE, level)
    wide = intervals.around(ms, NONE._replace(**{kind: more}), level)
    assert 0 < wide.low <= narrow.low < ms < narrow.high <= wide.high
    if level < 0.95:
        surer = intervals.around(ms, NONE, level + 0.04)
        assert surer.low < narrow.low
        assert narrow.high < surer.high


@pytest.mark.parametrize("count", [5, 20, 500])
def test_a_conformal_half_width_holds_for_its_share_of_new_errors(count: int) -> None:
    rng = np.random.default_rng(count)

    def errors(size: int) -> Any:
        return np.abs(rng.normal(size=size))

    covered = [np.mean(errors(200) <= conformal_half_widths(errors(count))[0.9]) for _ in range(400)]
    assert 0.88 < np.mean(covered) < 0.97


def test_half_widths_grow_with_the_level_even_of_few_models() -> None:
    halves = list(conformal_half_widths(np.array([0.01, 0.05, 0.02, 0.03, 0.01])).values())
    assert halves == sorted(halves)
    assert halves[-1] > 0.05


def test_the_card_keeps_intervals(tmp_path: Path) -> None:
    pack = load_latency_predictor(CPU).pack
    assert pack.intervals is not None
    assert pack.prototypes is not None
    save_pack(tmp_path, pack.card, pack.predictors, pack.prototypes)  # type: ignore[arg-type]
    again = load_pack(tmp_path)
    assert again.intervals == pack.intervals
    assert again.prototypes is not None
    for name, points in pack.prototypes.points.items():
        np.testing.assert_array_equal(again.prototypes.points[name], points)


@pytest.mark.parametrize(
    "entry",
    [None, {}, {"half_widths": {0.9: -1}, "slopes": {}}, {"half_widths": {2: 0.1}, "slopes": {}},
     {"half_widths": {0.9: math.nan}, "slopes": {}}, {"half_widths": {0.9: 0.1}, "slopes": {"distance": "x"}},
     {"half_widths": {}, "slopes": {}}, {"half_widths": 3, "slopes": {}}],
)  # fmt: skip
def test_a_card_without_usable_intervals_is_refused(entry: Any) -> None:
    with pytest.raises(PackError, match="usable intervals"):
        Intervals.from_card(entry)


def test_prototypes_that_do_not_fit_are_refused() -> None:
    for points in (np.zeros((2, 5)), np.zeros(6), np.zeros((0, 6)), np.array([["a"] * 6])):
        with pytest.raises(PackError, match="prototypes of conv"):
            Prototypes.from_arrays({"prototypes.conv": points})
    assert Prototypes.from_arrays({"center": np.zeros(3)}) is None


def test_predict_interval_surrounds_predict(predictor: LatencyPredictor) -> None:
    graph = convolution()
    low, ms, high = predictor.predict_interval(graph)
    assert ms == predictor.predict(graph)
    assert low < ms < high
    wider = predictor.predict_interval(graph, level=0.98)
    assert wider.low < low < high < wider.high
    explained = predictor.explain(graph)
    assert explained.interval() == (low, ms, high)
    assert str(explained.interval()) in explained.title
    for level in (0.0, 0.4, 1.0, 90):
        with pytest.raises(ValueError, match=f"level={level}"):
            predictor.predict_interval(graph, level=level)


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_a_model_far_from_those_measured_has_a_wider_interval(predictor: LatencyPredictor) -> None:
    def width(graph: Any) -> float:
        low, _, high = predictor.predict_interval(graph)
        return math.log(high / low)

    far = convolution(channels=3001, side=500, kernel=31)
    assert width(far) > 2 * width(convolution())
    estimated = graph_of(("s", "softmax", ["x"], {"axis": 1}), shape=(1, 64, 56, 56))
    assert predictor.explain(estimated).estimated_share == 1
    assert width(estimated) > 2 * width(convolution())


def test_a_pack_without_intervals_says_so() -> None:
    old = load_latency_predictor(CPU, 2.0)
    assert old.explain(convolution()).interval() is None
    with pytest.raises(PackError, match=r"version 2.0 .* knows no intervals; use a version from 2.1"):
        old.predict_interval(convolution())


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_a_model_with_an_operator_left_out_has_no_interval(predictor: LatencyPredictor) -> None:
    graph = graph_of(("r", "relu", ["x"], {}), ("u", "nobody_knows_it", ["r"], {}), shape=(1, 64, 56, 56))
    assert predictor.explain(graph).interval() is None
    with pytest.raises(UnpredictedOperatorError):
        predictor.predict_interval(graph)


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_a_calibrated_predictor_has_intervals_of_its_own_errors() -> None:
    original = load_latency_predictor(CPU)
    graphs = [convolution(channels, side) for channels in (16, 32, 64, 128) for side in (14, 28, 56, 112)]
    rng = np.random.default_rng(0)

    def timed(noise: float) -> list[Any]:
        return [(graph, 2 * original.predict(graph) * rng.lognormal(0, noise)) for graph in graphs]

    precise, noisy = (calibrated(original, timed(noise)) for noise in (0.001, 0.2))
    for mine in (precise, noisy):
        low, ms, high = mine.predict_interval(graphs[5])
        assert low < ms == mine.predict(graphs[5]) < high
    assert noisy.predict_interval(graphs[5]).high > 1.1 * noisy.predict(graphs[5])
    assert precise.predict_interval(graphs[5]).high < 1.1 * precise.predict(graphs[5])


@pytest.mark.parametrize("device", DEVICES)
def test_the_card_tells_coverage_of_models_and_families_held_out(device: str) -> None:
    covered = load_latency_predictor(device).pack.card["intervals"]["coverage"]
    assert len(covered) >= 13
    for name, found in covered.items():
        assert 0 <= found["coverage"] <= 100, name
        assert found["half_width"] > 0, name
    assert 85 <= covered["held_out_ids"]["coverage"] <= 95


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_intervals_hold_for_models_that_were_held_out(bench_dir: Path) -> None:
    held_out = pytest.importorskip("nnmeter_nas.benchmarks.packs.pack_training").held_out
    predictors = {device: load_latency_predictor(device) for device in DEVICES}
    inside: dict[str, list[bool]] = {device: [] for device in DEVICES}
    for path in dataset_files(bench_dir):
        for model in iter_models(path):
            if held_out([model.id])[0]:
                graph = read_model(model.graph, "nnmeter-ir")
                for device, measured in model.latency_ms.items():
                    low, _, high = predictors[device].predict_interval(graph)
                    inside[device].append(low <= measured <= high)
    for device, found in inside.items():
        assert 100 * np.mean(found) >= LEAST_COVERAGE, device


def test_slopes_come_from_the_doubt_that_errors_go_with() -> None:
    training = pytest.importorskip("nnmeter_nas.training.intervals")
    rng = np.random.default_rng(0)

    def errors(distance: float, count: int = 200) -> Any:
        doubts = np.zeros((count, 5))
        doubts[:, 2] = distance
        return training.Errors(np.abs(rng.normal(0, 0.02 * (1 + 5 * distance), count)), doubts)

    known, families = errors(0.0, 1000), {f"f{i}": errors(0.2 * i) for i in range(1, 8)}
    slopes = training.fit_intervals(known, list(families.values())).slopes
    assert 3 < slopes["distance"] < 8
    covered = training.coverage(known, families)
    assert all(80 <= found["coverage"] <= 99 for found in covered.values())


def test_prototypes_lie_among_what_was_measured(predictor: LatencyPredictor) -> None:
    pack = predictor.pack
    assert pack.prototypes is not None
    near, far = (predictor.explain(graph).doubt for graph in (convolution(), convolution(4096, 448)))
    assert near is not None
    assert far is not None
    assert near.distance < 1 < far.distance
    none = replace(pack, weights={})
    assert LatencyPredictor(none).explain(convolution()).interval() is None


def test_nothing_but_estimates_is_doubted_and_no_member_disagrees(predictor: LatencyPredictor) -> None:
    graph = graph_of(("s", "softmax", ["x"], {"axis": -1}), shape=(1, 64, 56, 56))
    doubt = predictor.explain(graph).doubt
    assert doubt is not None
    assert (doubt.extrapolated, doubt.estimated, doubt.distance, doubt.disagreement) == (0.0, 1.0, 0.0, 0.0)
    assert doubt.unlikeness > 0


def test_doubt_about_several_models_is_that_about_each(predictor: LatencyPredictor) -> None:
    graphs = [convolution(16), convolution(4000)]
    kernels = [[kernel for _, kernel in predictor.pack.kernel_graph(graph).nodes(data="kernel")]
               for graph in graphs]  # fmt: skip
    assert [len(of_graph) for of_graph in kernels] == [1, 1]
    found = Configurations.of([configuration(kernel) for [kernel] in kernels])
    network, prototypes = predictor.pack.predictors, predictor.pack.prototypes
    assert isinstance(network, KernelNetwork)
    assert prototypes is not None
    # Both models run the first kernel, and the second model both.
    runs = np.array([[1.0, 0.0], [1.0, 1.0]])
    ms, bases = network.predict(found), np.array(network.bases(found))
    doubts = doubts_of(network, prototypes, found, ms, bases, lambda values: runs @ values)
    for doubt, parts in zip(doubts, ([0], [0, 1]), strict=True):
        of_model = [kernels[part][0] for part in parts]
        assert doubt == pytest.approx(predictor.pack.doubt(of_model, predictor.pack.latencies(of_model)))
