"""The trials of a search and their Pareto front."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...nni.events import Expected


@dataclass(frozen=True)
class Trial:
    """One architecture that a search submitted.

    Attributes:
        number: its place in the order of trials, from 1.
        choices: name of the chosen candidate by label.
        values: its measures by name, such as ``latency_ms`` (predicted).
        metric: the metric that it reported, higher is better, usually held-out accuracy from 0 to 1; None
            while it runs, and if it failed.
        seconds: how long its process ran; None if unknown.
        failure: why it failed; empty if it did not fail.
        expected: the metric that the strategy expected when it proposed the trial; None if it expected none.
    """

    number: int
    choices: Mapping[str, str]
    values: Mapping[str, float] = field(default_factory=dict)
    metric: float | None = None
    seconds: float | None = None
    failure: str = ""
    expected: Expected | None = None

    @property
    def state(self) -> str:
        """``trained``, ``failed`` or ``running``."""
        if self.failure:
            return "failed"
        if self.metric is None:
            return "running"
        return "trained" if math.isfinite(self.metric) else "failed"


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Return the trials that no other trial beats.

    A trial beats another if its metric is at least as high, its objectives are at least as low, and one of
    them is better. Of trials equal in all, only the first is kept. Trials that lack a metric or an objective
    are left out. The best metric comes first.

    >>> fast, slow = Trial(1, {}, {"latency_ms": 2.0}, 0.9), Trial(2, {}, {"latency_ms": 3.0}, 0.8)
    >>> pareto_front([slow, fast], ["latency_ms"]) == [fast]
    True
    """
    points = [
        (-trial.metric, *(trial.values[name] for name in objectives), trial.number, place)
        for place, trial in enumerate(trials)
        if trial.metric is not None and trial.state == "trained" and set(objectives) <= trial.values.keys()
    ]
    front: list[Trial] = []
    kept: list[tuple[float, ...]] = []
    # In this order, any trial that beats another comes before it.
    for _, *lows, _, place in sorted(points):
        if not any(all(a <= b for a, b in zip(other, lows, strict=True)) for other in kept):
            kept.append(tuple(lows))
            front.append(trials[int(place)])
    return front


def trained_minutes(trials: Sequence[Trial]) -> float:
    """Minutes that trials have taken, added up over those that ran at once; failed ones count too.

    >>> trained_minutes([Trial(1, {}, seconds=90.0), Trial(2, {})])
    1.5
    """
    return sum(trial.seconds or 0.0 for trial in trials) / 60


def failures(trials: Sequence[Trial]) -> dict[str, int]:
    """Count the trials that failed with each message, most frequent first."""
    messages = (t.failure or f"the metric is {t.metric}" for t in trials if t.state == "failed")
    return dict(Counter(messages).most_common())
