"""Where small networks take less than their kernels, predictions, tables, limits and searches agree on it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tables import any_tables, random_table, with_header
from graphs import graph_of
from nnmeter_nas import LatencyPredictor, LatencyWarning, load_latency_predictor
from nnmeter_nas.calibrate import fit_calibration, with_calibration
from nnmeter_nas.costs import FactorTable, load_table, save_table
from nnmeter_nas.costs.measures import latency, latency_by_block
from nnmeter_nas.costs.table import every_architecture
from nnmeter_nas.errors import PackError, SearchError
from nnmeter_nas.packs.fingerprint import pack_fingerprint
from nnmeter_nas.packs.warmth import COLD, Warmth
from nnmeter_nas.solve.likeliest import likeliest
from nnmeter_nas.solve.problem import Problem
from nnmeter_nas.solve.ranking import closest, fastest, slowest
from nnmeter_nas.solve.sampling import UniformSampler
from nnmeter_nas.solve.survey import survey
from nnmeter_nas.supernet import load_space

WARMTH = Warmth(below_ms=6.0, exponent=0.4, least_ms=3.0)
DEVICE = "cortexA76cpu_tflite21"


@st.composite
def warmths(draw: st.DrawFn) -> Warmth:
    below = draw(st.floats(0.01, 100))
    return Warmth(below, draw(st.floats(0, 2)), below * draw(st.floats(0.01, 1)))


def warm(predictor: LatencyPredictor, warmth: Warmth) -> LatencyPredictor:
    """The same device, where small networks gain."""
    card = {**predictor.pack.card, "warmth": warmth.to_card()}
    return LatencyPredictor(replace(predictor.pack, card=card))


@pytest.fixture(scope="module")
def cold_device() -> LatencyPredictor:
    return load_latency_predictor(DEVICE)


@given(warmths(), st.lists(st.floats(1e-4, 1e4), min_size=2))
def test_latency_rises_with_the_sum_and_leads_back_to_it(warmth: Warmth, sums: list[float]) -> None:
    ordered = np.sort(sums)
    ms = warmth.ms(ordered)
    assert (np.diff(ms) >= -1e-12 * ms[1:]).all()
    assert (ms <= ordered).all()
    np.testing.assert_allclose(warmth.sums(ms), ordered)
    np.testing.assert_allclose(ms[ordered >= warmth.below_ms], ordered[ordered >= warmth.below_ms])
    assert warmth.sums(math.inf) == math.inf
    assert warmth.sums(-math.inf) == -math.inf


@pytest.mark.parametrize(
    "entry",
    [
        {},
        3,
        {"below_ms": 1, "exponent": -1, "least_ms": 1},
        {"below_ms": 1, "exponent": 0, "least_ms": 2},
        {"below_ms": "x", "exponent": 0, "least_ms": 2},
    ],
)
def test_a_card_with_another_warmth_is_refused(entry: object) -> None:
    with pytest.raises(PackError, match="no usable warmth"):
        Warmth.from_card(entry)


@given(any_tables(integers=False), warmths())
def test_tables_apply_it_to_sums_and_rank_alike(table: FactorTable, warmth: Warmth) -> None:
    found = with_header(table, warmth=warmth)
    every = every_architecture(table.sizes)
    expected = warmth.ms(table.values(every))
    np.testing.assert_allclose(found.values(every), expected)
    row = every[len(every) // 2]
    one = {label: known[i] for (label, known), i in zip(table.candidates.items(), row, strict=True)}
    assert found.value(one) == pytest.approx(found.values(row[None])[0])
    np.testing.assert_array_equal(fastest(found, 3), fastest(table, 3))
    np.testing.assert_array_equal(slowest(found, 3), slowest(table, 3))
    limit = float(np.median(expected))
    drawn = UniformSampler(found, at_most=limit).draw(20, np.random.default_rng(0))
    assert (found.values(drawn) <= limit).all()
    half = np.quantile(expected, 0.5, method="inverted_cdf")
    assert survey(found, 1, bins=5000).quantile(0.5) == pytest.approx(half, abs=0.05)
    odds = {label: np.full(len(known), 1 / len(known)) for label, known in table.candidates.items()}
    if limit > 0:
        assert found.values(likeliest(found, odds, limit)[None])[0] <= limit


def test_a_space_too_large_to_list_is_drawn_from_within_limits_in_ms() -> None:
    table = with_header(random_table((3,) * 12, [(0,), (3, 4), (5,), (7, 8), (10, 11)], 0), warmth=WARMTH)
    values = table.values(every_architecture(table.sizes))
    low, high = np.quantile(values, [0.2, 0.25])
    sampler = UniformSampler(table, at_most=high, at_least=low)
    drawn = table.values(sampler.draw(500, np.random.default_rng(0)))
    assert ((drawn >= low) & (drawn <= high)).all()
    assert sampler.size == pytest.approx(((values >= low) & (values <= high)).sum(), rel=0.1)
    assert abs(table.values(closest(table, low, 1, high))[0] - low) < 0.05
    with pytest.raises(SearchError, match=rf"values go from {values.min():.6g} to {values.max():.6g}"):
        UniformSampler(table, at_most=values.min() - 1)


@pytest.mark.parametrize("suffix", [".npz", ".yaml"])
def test_files_keep_it(tmp_path: Path, suffix: str) -> None:
    table = with_header(random_table((2, 3), [(0,), (1,), (0, 1)], 1), warmth=WARMTH, device=DEVICE)
    path = tmp_path / f"table{suffix}"
    with pytest.warns(LatencyWarning, match="NNI sums up") if suffix == ".yaml" else nullcontext():
        save_table(table, path)
    assert load_table(path).header.warmth == WARMTH
    assert load_table(path).header.device == DEVICE


def test_expected_latency_is_that_of_the_expected_sum_and_has_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    from nnmeter_nas.costs.expectation import expected_latency

    for exponent, least in ((0.4, 3.0), (0.4, 5.9), (0.0, 6.0)):
        table = random_table((3, 2), [(0,), (1,), (0, 1)], 2)
        table = with_header(table, warmth=Warmth(6.0, exponent, least))
        alphas = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in table.sizes]

        def found(*given: torch.Tensor, table: FactorTable = table) -> torch.Tensor:
            return expected_latency(table, {str(i): a.softmax(0) for i, a in enumerate(given)})

        plain = {str(i): a.detach().softmax(0).numpy() for i, a in enumerate(alphas)}
        assert found(*alphas).item() == pytest.approx(table.expected(plain))
        assert torch.autograd.gradcheck(found, alphas)


def test_predictions_explanations_and_tables_agree(cold_device: LatencyPredictor) -> None:
    pytest.importorskip("torch", reason="reads a search space")
    space = load_space("spos-small")
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(0).integers(sizes, size=(20, len(sizes)))
    cold = latency(space, cold_device).values(rows)
    warmth = Warmth(float(np.median(cold)), 0.5, float(cold.min()))
    predictor = warm(cold_device, warmth)
    assert pack_fingerprint(predictor.pack) != pack_fingerprint(cold_device.pack)
    measure = latency(space, predictor)
    problem = Problem(space.candidates, {"latency_ms": measure}, {"latency_ms": float(np.median(cold))})
    np.testing.assert_allclose(problem.values(rows)[:, 0], warmth.ms(cold), rtol=1e-6)
    for row, sums in zip(rows[:3], cold[:3], strict=True):
        architecture = problem.architecture(row)
        explained = predictor.explain(space.model_graph(architecture))
        assert explained.latency_ms == pytest.approx(float(warmth.ms(sums)), rel=1e-6)
        kernels = [ms for _, ms in explained.kernel_graph.nodes(data="latency_ms")]
        assert math.fsum(kernels) == pytest.approx(explained.latency_ms)
        blocks = latency_by_block(space, predictor, architecture, measure)
        assert math.fsum(blocks.values()) == pytest.approx(explained.latency_ms, rel=1e-6)
    fast = predictor.explain(space.model_graph(problem.architecture(rows[cold.argmin()])))
    assert "stays in the processor's caches" in str(fast)
    assert cold_device.pack.warmth == COLD
    assert "caches" not in str(cold_device.explain(space.model_graph(problem.architecture(rows[0]))))


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_calibration_of_such_a_device_keeps_it(cold_device: LatencyPredictor) -> None:
    def network(width: int) -> object:
        wide = {"kernel": (3, 3), "padding": "same", "out_channels": width}
        layers = [(f"c{i}", "conv", [f"c{i - 1}" if i else "x"], wide) for i in range(3)]
        return graph_of(*layers, shape=(1, 3, 32, 32))

    graphs = [network(width) for width in (8, 16, 24, 32, 48, 64, 96, 128)]
    sums = np.array([cold_device.predict(graph) for graph in graphs])
    predictor = warm(cold_device, warmth := Warmth(float(np.median(sums)), 0.5, float(sums.min())))
    measured = warmth.ms(2 * sums).tolist()  # a device half as fast, as warm
    fit = fit_calibration(predictor, list(zip(graphs, measured, strict=True)))
    np.testing.assert_allclose(fit.before, warmth.ms(sums), rtol=1e-6)
    found = with_calibration(predictor, fit, "half-as-fast")
    np.testing.assert_allclose([found.predict(graph) for graph in graphs], measured, rtol=0.03)
    np.testing.assert_allclose(fit.after, measured, rtol=0.05)
