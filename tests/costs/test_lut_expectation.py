"""The expected latency that architecture parameters learn from is the table's, and so is its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.costs import FactorTable, build_table  # noqa: E402
from nnmeter_nas.costs.expectation import expected_latency  # noqa: E402
from nnmeter_nas.errors import LookupTableError  # noqa: E402
from toy_supernets import width_supernet  # noqa: E402


@pytest.fixture(scope="module")
def table() -> FactorTable:
    """Of a space where two choices change each other's latency."""
    return build_table(width_supernet(), load_latency_predictor("cortexA76cpu_tflite21"))


def random_weights(table: FactorTable) -> dict[str, Any]:
    """Architecture parameters."""
    generator = torch.Generator().manual_seed(0)
    sizes = {label: len(known) for label, known in table.candidates.items()}
    return {label: torch.randn(n, generator=generator, requires_grad=True) for label, n in sizes.items()}


def expectation(table: FactorTable, weights: dict[str, Any]) -> Any:
    return expected_latency(table, {label: w.softmax(0) for label, w in weights.items()})


@pytest.mark.parametrize(("dtype", "digits"), [("float64", 1e-12), ("float32", 1e-5)])
def test_it_is_the_expected_latency_of_the_table(table: FactorTable, dtype: str, digits: float) -> None:
    p = {label: w.detach().softmax(0).to(getattr(torch, dtype)) for label, w in random_weights(table).items()}
    found = expected_latency(table, p)
    assert found.shape == ()
    assert found.dtype == getattr(torch, dtype)
    expected = table.expected({label: value.double().numpy() for label, value in p.items()})
    assert found.item() == pytest.approx(expected, rel=digits)


def test_its_gradient_meets_finite_differences(table: FactorTable) -> None:
    weights = {label: w.detach().double().requires_grad_() for label, w in random_weights(table).items()}
    expectation(table, weights).backward()
    step = 1e-5
    for label, w in weights.items():
        assert w.grad.abs().max() > 1e-3
        for i in range(len(w)):
            around = []
            for sign in (-1, 1):
                moved = w.detach().clone()
                moved[i] += sign * step
                around.append(expectation(table, {**weights, label: moved}).item())
            assert w.grad[i].item() == pytest.approx((around[1] - around[0]) / (2 * step), rel=1e-4, abs=1e-8)


def test_descending_it_ends_on_the_fastest_architecture(table: FactorTable) -> None:
    weights = random_weights(table)
    optimizer = torch.optim.Adam(weights.values(), lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        expectation(table, weights).backward()
        optimizer.step()
    chosen = np.array([[int(weights[label].argmax()) for label in table.labels]])
    every = np.stack(np.meshgrid(*(range(len(k)) for k in table.candidates.values())), -1).reshape(-1, 3)
    assert table.latencies(chosen)[0] == table.latencies(every).min()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((3,), float("nan")), "'kernel' must be numbers from 0 to 1"),
        (torch.tensor([0.5, 0.5]), r"'kernel' must be of shape \[3\]"),
        (torch.tensor([1.0, 1.0, 1.0]), "'kernel' must sum to 1"),
        (torch.tensor([1, 0, 0]), "'kernel' must be a tensor of floats"),
        ([1.0, 0.0, 0.0], "'kernel' must be a tensor of floats"),
    ],
)
def test_wrong_probabilities_are_refused_by_label(table: FactorTable, value: Any, message: str) -> None:
    p = {label: w.detach().softmax(0) for label, w in random_weights(table).items()}
    with pytest.raises(LookupTableError, match=message):
        expected_latency(table, {**p, "kernel": value})
    del p["kernel"]
    with pytest.raises(LookupTableError, match="lack the choice 'kernel'"):
        expected_latency(table, p)
