"""A visit runs a model in bursts, however long it takes and whatever it claims to have taken."""

from __future__ import annotations

import math
from itertools import count

import pytest

from nnmeter_nas.builder import worker


class _Model:
    """A model that takes so many ms; some runs take longer."""

    def __init__(self, ms: float) -> None:
        self._ms, self.runs = ms, 0

    def run(self) -> float:
        self.runs += 1
        return self._ms * (3 if self.runs % 5 == 0 else 1)


@pytest.mark.parametrize(
    ("ms", "least", "most"),
    [(0.01, 60, 260), (1.0, 26, 120), (50.0, 5, 12), (1e4, 5, 5)],
)
def test_small_models_run_often_and_large_ones_a_few_times(ms: float, least: int, most: int) -> None:
    model = _Model(ms)
    assert worker.visit(model).ms == ms
    assert least <= model.runs <= most


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_is_none_comes_back_as_it_is(ms: float) -> None:
    assert worker.visit(_Model(ms)).ms == pytest.approx(3 * ms if ms < 0 else ms, nan_ok=True)


def test_a_burst_is_divided_by_the_speed_of_the_machine_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine becomes slower by half, and what runs on it with it: latencies stay as they were."""
    slowness = (1.0 if piece < 3 else 1.5 for piece in count())
    now = [1.0]

    def work_ms() -> float:
        now[0] = next(slowness)
        return 2.0 * now[0]

    class Slowing(_Model):
        def run(self) -> float:
            return 10.0 * now[0]

    monkeypatch.setattr(worker, "work_ms", work_ms)
    found = worker.visit(Slowing(10.0), on_host=True)
    assert found.ms == pytest.approx(5.0 * found.speed_ms)
    assert found.at(2.0).ms == pytest.approx(10.0, rel=0.01)


def test_visits_of_other_machines_stay_as_they_are() -> None:
    assert worker.visit(_Model(1.0)).speed_ms is None
    assert worker.Visit(1.0, None).at(2.0) == worker.Visit(1.0, None)
    assert worker.Visit(1.0, None, 4.0).at(None) == worker.Visit(1.0, None, 4.0)
