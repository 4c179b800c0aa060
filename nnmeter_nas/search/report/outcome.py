"""The outcome of a search: its trials, what they were measured by, the limits they had to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...errors import SearchError
from .trials import Trial, pareto_front


@dataclass(frozen=True)
class Hardware:
    """What latencies were predicted with: applied hardware, and its predictor pack."""

    device: str
    pack_version: float
    pack_fingerprint: str = ""


@dataclass(frozen=True)
class SearchReport:
    """The outcome of a search, or of as much of it as has run.

    Measures go by their names, such as ``latency_ms``, everywhere.

    Attributes:
        space: name of the search space, as ``load_space`` takes it.
        input_shape: NCHW, of every architecture.
        trials: all that were submitted, failed and running ones included.
        hardware: of the measures that are latencies.
        maxima, minima: the limits on measures.
        objectives: measures to keep low beside the metric, which is to be high.
        strategy: what chose the architectures.
        nni: version of NNI that ran the trials.
        metric: what trials report.
        units: of measures; a latency's is ms.
        looked_at: architectures whose measures the search looked at, if it counted them.
        rejected: how many of them it did not submit, by the reason, in words for users.
        latency_by_block: of the best trial: latency in ms by label, for each measure that is a latency.
        asked: trials that were asked for; None if there is no such number.
        note: why the search ended before that, if it did.
        settings: whatever else is needed to repeat the search; JSON values.
    """

    space: str
    input_shape: Sequence[int]
    trials: Sequence[Trial]
    hardware: Mapping[str, Hardware]
    maxima: Mapping[str, float] = field(default_factory=dict)
    minima: Mapping[str, float] = field(default_factory=dict)
    objectives: Sequence[str] = ("latency_ms",)
    strategy: str = ""
    nni: str = ""
    metric: str = "accuracy"
    units: Mapping[str, str] = field(default_factory=dict)
    looked_at: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    latency_by_block: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    asked: int | None = None
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto front of metric and objectives, best metric first."""
        return pareto_front(self.trials, self.objectives)

    @property
    def best(self) -> Trial:
        """The trial of the best metric; of equals the one of lower objectives.

        Raises:
            SearchError: no trial was trained to its end.
        """
        if front := self.front:
            return front[0]
        failed = [trial.failure for trial in self.trials if trial.failure]
        raise SearchError(
            f"none of the {len(self.trials)} trials was trained to its end; "
            f"the first failed with: {failed[0] if failed else 'no trial ran'}"
        )

    @cached_property
    def measures(self) -> list[str]:
        """Names of all measures that trials have."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.values))

    @property
    def labels(self) -> list[str]:
        """Labels of all choices that trials made."""
        return list(dict.fromkeys(label for trial in self.trials for label in trial.choices))

    @cached_property
    def trained(self) -> list[Trial]:
        """The trials that reported a metric."""
        return [trial for trial in self.trials if trial.state == "trained"]

    @property
    def axes(self) -> list[str]:
        """Measures of all trained trials to draw the metric over: latencies first, then other objectives."""
        known = [name for name in self.measures if all(name in trial.values for trial in self.trained)]
        return [n for n in dict.fromkeys([*self.hardware, *self.objectives]) if n in known] or known

    def unit(self, measure: str) -> str:
        """Unit of a measure; empty if it has none."""
        return "ms" if measure in self.hardware else self.units.get(measure, "")

    def plain_title(self, measure: str) -> str:
        """A measure as people call it."""
        return f"latency on {self.hardware[measure].device}" if measure in self.hardware else measure

    def title(self, measure: str) -> str:
        """A measure as people call it, with its unit."""
        unit = self.unit(measure)
        return f"{self.plain_title(measure)} ({unit})" if unit else self.plain_title(measure)

    def limits(self, measure: str) -> tuple[float, float]:
        """The least and the most that a measure may be; infinite where there is no limit."""
        return self.minima.get(measure, -math.inf), self.maxima.get(measure, math.inf)

    def worst_ratio(self, trial: Trial) -> float | None:
        """The largest of a trial's measures over their upper limits; None without any."""
        ratios = [trial.values[name] / most for name, most in self.maxima.items() if name in trial.values]
        return max(ratios, default=None)


def figure(value: float, zeros: bool = False) -> str:
    """A number in four digits; large ones by thousands (k), millions (M) and billions (G).

    Args:
        value: the number.
        zeros: write zeros at the end, so that numbers below each other have as many decimals.

    >>> figure(3.14159), figure(320_400_000), figure(0.5), figure(0.5, zeros=True)
    ('3.142', '320.4 M', '0.5', '0.5000')
    """
    for unit, size, least in (("G", 1e9, 1e9), ("M", 1e6, 1e6), ("k", 1e3, 1e4)):
        if abs(value) >= least:
            return f"{figure(value / size, zeros)} {unit}"
    return f"{value:#.4g}".rstrip(".") if zeros else f"{value:.4g}"


def limit_words(report: SearchReport, measure: str) -> str:
    """The limits on a measure: ``at most 4 ms``; empty without any."""
    least, most = report.limits(measure)
    words = [f"at least {figure(least)}"] if least > -math.inf else []
    words += [f"at most {figure(most)}"] if most < math.inf else []
    return f"{' and '.join(words)} {report.unit(measure)}".rstrip() if words else ""


def limits_text(report: SearchReport) -> str:
    """All limits in a line: ``latency on cortexA76cpu_tflite21 at most 4 ms``."""
    limited = dict.fromkeys([*report.maxima, *report.minima])
    return "; ".join(f"{report.plain_title(n)} {limit_words(report, n)}" for n in limited) or "none"


def ranked(report: SearchReport) -> list[Trial]:
    """All trials: best metric first and of equals lower objectives, then running and failed ones."""
    order = {"trained": 0, "running": 1, "failed": 2}

    def key(trial: Trial) -> tuple[float, ...]:
        lows = [trial.values.get(name, math.inf) for name in report.objectives]
        return (
            order[trial.state],
            -(trial.metric or 0.0) if not order[trial.state] else 0.0,
            *lows,
            trial.number,
        )

    return sorted(report.trials, key=key)
