"""Metrics: the figures by which packs are judged are what their names say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nnmeter_nas import latency_metrics
from nnmeter_nas.training.accuracy import accuracy, accuracy_by

PAIRS = st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)), min_size=2, max_size=30)


def test_figures_of_a_known_example() -> None:
    found = accuracy([10.4, 18.0, 30.0, 60.0], [10.0, 20.0, 30.0, 40.0])
    assert found["models"] == 4
    assert found["within_5"] == 50.0
    assert found["within_10"] == 75.0
    assert found["mape"] == pytest.approx((4 + 10 + 0 + 50) / 4)
    assert found["rmspe"] == pytest.approx(math.sqrt((16 + 100 + 0 + 2500) / 4))
    assert found["rmse_ms"] == pytest.approx(math.sqrt((0.16 + 4 + 0 + 400) / 4))
    assert found["spearman"] == pytest.approx(1.0)


def test_summary_has_nn_meters_order() -> None:
    rmse, rmspe, relative, within_5, within_10, within_15 = latency_metrics([10.4, 22.8, 30.0], [10, 20, 30])
    assert rmse == pytest.approx(math.sqrt((0.16 + 7.84) / 3))
    assert rmspe == pytest.approx(math.sqrt((16 + 196) / 3))
    assert relative == pytest.approx(rmse / 20)
    assert (within_5, within_10, within_15) == pytest.approx((2 / 3, 2 / 3, 1.0))


@pytest.mark.parametrize("limit", [5, 10])
def test_error_of_exactly_the_limit_counts_as_within(limit: int) -> None:
    measured = np.array([1.0, 3.0, 7.7, 20.0, 100.0])
    for sign in (1, -1):
        assert accuracy(measured * (1 + sign * limit / 100), measured)[f"within_{limit}"] == 100.0


@pytest.mark.parametrize(("predicted", "measured"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [1.0])])
def test_nothing_to_compare_is_refused(predicted: list[float], measured: list[float]) -> None:
    with pytest.raises(ValueError, match=r"y_pred.*y_true"):
        latency_metrics(predicted, measured)


@pytest.mark.filterwarnings("ignore:An input array is constant")
@given(PAIRS)
def test_both_summaries_agree(pairs: list[tuple[float, float]]) -> None:
    predicted, measured = np.array(pairs).T
    found, (rmse, rmspe, _, within_5, within_10, _) = (
        accuracy(predicted, measured),
        latency_metrics(predicted, measured),
    )
    assert (found["rmse_ms"], found["rmspe"]) == pytest.approx((rmse, rmspe))
    assert (found["within_5"], found["within_10"]) == pytest.approx((100 * within_5, 100 * within_10))
    assert found["within_5"] <= found["within_10"]


def test_groups_are_judged_apart_and_together() -> None:
    predicted, measured = np.array([1.0, 2.2, 3.0, 8.0]), np.array([1.0, 2.0, 4.0, 8.0])
    found = accuracy_by(["a", "a", "b", "b"], predicted, measured)
    assert set(found) == {"all", "a", "b"}
    assert found["a"] == accuracy(predicted[:2], measured[:2])
    assert found["all"]["spearman"] == pytest.approx(spearmanr(predicted, measured).statistic)
    assert found["all"]["models"] == 4


def test_one_model_has_no_rank_correlation() -> None:
    assert math.isnan(accuracy([1.0], [1.0])["spearman"])
