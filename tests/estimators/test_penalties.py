"""Latency penalties are NNI's formulas, lead downhill, and refuse what would make them meaningless."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from nnmeter_nas.errors import SearchError, SettingsError
from nnmeter_nas.estimators import latency_penalty
from nnmeter_nas.estimators.penalties import PENALTIES

LOSS = torch.tensor(2.5, dtype=torch.float64)


def test_penalties_are_nnis_formulas_with_its_defaults() -> None:
    expected = torch.tensor(30.0, dtype=torch.float64)
    assert latency_penalty("add#linear", None, 20.0)(LOSS, expected).item() == pytest.approx(2.5 + 0.2 * 0.5)
    assert latency_penalty("add#linear", {"lambda": 2}, 20.0)(LOSS, expected).item() == pytest.approx(3.5)
    share = math.log(30) / math.log(20)
    assert latency_penalty("mul#log", None, 20.0)(LOSS, expected).item() == pytest.approx(2.5 * share**0.6)
    found = latency_penalty("mul#log", {"alpha": 0.5, "beta": 1.5}, 20.0)(LOSS, expected)
    assert found.item() == pytest.approx(0.5 * 2.5 * share**1.5)


def test_hinge_is_nothing_up_to_the_reference_and_linear_above() -> None:
    for ms in (0.1, 19.0, 20.0):
        below = torch.tensor(ms, dtype=torch.float64, requires_grad=True)
        total = latency_penalty("add#hinge", None, 20.0)(LOSS, below)
        total.backward()
        assert total.item() == LOSS.item()
        assert below.grad == 0
    above = torch.tensor(30.0, dtype=torch.float64)
    assert latency_penalty("add#hinge", None, 20.0)(LOSS, above).item() == pytest.approx(3.0)
    assert latency_penalty("add#hinge", {"lambda": 4}, 20.0)(LOSS, above).item() == pytest.approx(4.5)


@pytest.mark.parametrize("kind", ["add#linear", "mul#log"])
def test_gradients_of_loss_and_latency_match_finite_differences(kind: str) -> None:
    loss = LOSS.clone().requires_grad_()
    for ms in (3.0, 19.0, 20.0, 200.0):
        expected = torch.tensor(ms, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(latency_penalty(kind, None, 20.0), (loss, expected))


@pytest.mark.parametrize(
    ("kind", "parameters", "reference", "message"),
    [
        ("mul#logs", None, 20.0, "did you mean 'mul#log'"),
        (None, None, 20.0, "grad_reg_loss_type=None"),
        ("add#hinge", {"lambda": -1.0}, 20.0, "lambda=-1.0"),
        ("add#hinge", None, 0.0, "reference_latency=0.0"),
        ("add#linear", {"lamda": 1.0}, 20.0, "did you mean 'lambda'"),
        ("mul#log", {"lambda": 1.0}, 20.0, "Known: alpha, beta"),
        ("add#linear", {"lambda": "2"}, 20.0, "lambda='2' is no number"),
        ("add#linear", {"lambda": -1.0}, 20.0, "lambda=-1.0"),
        ("mul#log", {"alpha": 0.0}, 20.0, "alpha=0.0"),
        ("mul#log", {"beta": math.nan}, 20.0, "beta=nan"),
        ("add#linear", None, 0.0, "reference_latency=0.0"),
        ("add#linear", None, math.inf, "reference_latency=inf"),
        ("add#linear", None, math.nan, "reference_latency=nan"),
        ("add#linear", None, None, "reference_latency=None"),
        ("mul#log", None, 1.0, "add#linear takes shorter ones"),
        ("mul#log", None, 0.4, "add#linear takes shorter ones"),
    ],
)
def test_arguments_without_meaning_are_refused_before_a_search(
    kind: Any, parameters: Any, reference: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        latency_penalty(kind, parameters, reference)


def test_reference_below_one_ms_still_pulls_the_right_way_under_add_linear() -> None:
    penalty = latency_penalty("add#linear", None, 0.4)
    fast, slow = (penalty(LOSS, torch.tensor(ms)).item() for ms in (0.3, 0.9))
    assert fast < LOSS.item() < slow


def test_expected_latency_that_gives_no_number_stops_the_search() -> None:
    for ms in (1.0, 0.5):
        with pytest.raises(SearchError, match=f"is {ms:g} ms, and mul#log needs more than 1 ms"):
            latency_penalty("mul#log", None, 5.0)(LOSS, torch.tensor(ms))
    for kind in PENALTIES:
        with pytest.raises(SearchError, match="went astray"):
            latency_penalty(kind, None, 5.0)(LOSS, torch.tensor(math.nan))
