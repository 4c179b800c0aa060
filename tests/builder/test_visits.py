"""A visit runs a model in bursts, however long it takes and whatever it claims to have taken."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from nnmeter_nas.backends.host import Speed, SpeedWatch
from nnmeter_nas.builder import worker
from nnmeter_nas.builder.visits import Burst, Undisturbed, Visit


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


class _Machine(SpeedWatch):
    """A machine that is half as slow again as when nothing disturbs it."""

    def now(self) -> Speed:
        return Speed(3.0, 1.5)


def test_a_burst_is_kept_with_the_speed_around_it() -> None:
    found = worker.visit(_Model(10.0), _Machine())
    assert found.bursts == (Burst(10.0, Speed(3.0, 1.5)),)
    assert found.ms == 10.0
    assert found.speed == (3.0, 1.5)
    assert Undisturbed(Speed(2.0, 1.0)).latency([found]) == pytest.approx(10.0 / 1.5)


def test_the_speed_of_this_machine_is_found() -> None:
    watch = SpeedWatch()
    speed = watch.now()
    assert 0 < speed.small_ms < 100
    assert 0 < speed.large_ms < 1000


def test_visits_of_other_machines_have_no_speed() -> None:
    assert worker.visit(_Model(1.0)).speed is None
    assert Undisturbed.of([[Visit(1.0, None)], [Visit(2.0, None)]]) is None


def _visits(ms: float, exponents: tuple[float, float], random: np.random.Generator) -> list[Visit]:
    """Visits on a machine that is undisturbed a sixth of the time, and else up to twice as slow."""
    found = []
    for _ in range(4):
        large, small = np.where(random.random(6) < 1 / 6, 1.0, random.uniform(1.1, 2.0, (2, 6)))
        slower = large ** exponents[0] * small ** exponents[1] * random.lognormal(0, 0.01, 6)
        bursts = tuple(
            Burst(ms * by, Speed(1.5 * one, 0.4 * other))
            for by, one, other in zip(slower.tolist(), large.tolist(), small.tolist(), strict=True)
        )
        found.append(Visit(statistics.median(burst.ms for burst in bursts), None, bursts))
    return found


def test_small_models_that_slow_down_in_another_way_than_large_ones_are_converted_too() -> None:
    """Models slower than 8 ms follow large products; the quicker one is, the more it follows small ones."""
    random = np.random.default_rng(0)
    latencies = np.exp(random.uniform(math.log(0.5), math.log(128), 60)).tolist()

    def visits(ms: float) -> list[Visit]:
        return _visits(ms, (0.8, 0.4 * max(0.0, math.log(8 / ms))), random)

    undisturbed = Undisturbed.of([visits(ms) for ms in latencies])
    assert undisturbed is not None
    assert undisturbed.speed == pytest.approx((1.5, 0.4))
    for ms in (0.5, 1.0, 2.0, 8.0, 100.0):
        disturbed = [
            visit._replace(bursts=tuple(one for one in visit.bursts if one.speed.large_ms > 1.6))
            for visit in visits(ms)
        ]
        assert undisturbed.latency(disturbed) == pytest.approx(ms, rel=0.05)
    assert Undisturbed.from_entry(undisturbed.to_entry()) == undisturbed


def test_on_a_machine_of_one_speed_latencies_stay_as_they_are() -> None:
    bursts = ((1.0, Speed(1.5, 0.4)), (1.01, Speed(1.501, 0.4)))
    steady = [
        [Visit(ms, None, tuple(Burst(ms * by, now) for by, now in bursts))] * 2 for ms in (0.1, 1.0, 10.0)
    ]
    undisturbed = Undisturbed.of(steady)
    assert undisturbed is not None
    assert undisturbed.exponents == pytest.approx((1.0, 0.0), abs=0.01)
    assert undisturbed.latency(steady[0]) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
def test_a_burst_that_took_no_time_tells_nothing(ms: float) -> None:
    now = Speed(1.5, 0.4)
    sound = (Burst(2.0, now), Burst(2.0, now), Burst(2.0, now))
    assert Undisturbed(now).latency([Visit(2.0, None, (*sound, Burst(ms, now)))]) == 2.0
