"""The outcome of a search: its trials, its measures, its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...errors import SearchError
from ...pages import figure
from .trials import Trial, pareto_front, trained_minutes


@dataclass(frozen=True)
class Hardware:
    """Applied hardware and the predictor pack that predicted its latencies."""

    device: str
    pack_version: float
    pack_fingerprint: str = ""


@dataclass(frozen=True)
class SearchReport:
    """The outcome of a finished search, or of a running one so far.

    Measures are known by name everywhere, such as ``latency_ms``.

    Attributes:
        space: name of the search space, as ``load_space`` takes it.
        input_shape: input shape of every architecture, NCHW.
        trials: all submitted trials, including failed and running ones.
        hardware: the hardware of each measure that is a latency.
        maxima, minima: upper and lower limits on measures.
        objectives: measures to minimise while maximising the metric.
        strategy: the strategy that chose the architectures.
        nni: version of NNI that ran the trials.
        metric: name of the metric that trials report.
        units: units of measures; the unit of a latency is ms.
        rejected: number of architectures that the search did not submit, by the reason, in words for users.
        latency_by_block: for each measure that is a latency: the best trial's latency in ms by label.
        intervals: for each measure that is a latency: limits in ms that hold nine of ten measured latencies,
            by the number of the trial; empty if the pack knows none.
        not_measured: for each measure that is a latency: the shares of it that are extrapolated and
            estimated, and the share of the work that is unpredicted, None if it is unknown; by basis, by the
            number of the trial; without those that are zero.
        importance: how much of what the strategy has learned it owes to each choice, by label; the shares add
            up to 1. Empty if it learns nothing.
        asked: number of trials asked for; None if no number was given.
        budget_minutes: minutes that trials may take in all before no further one is proposed; None if there
            is no such limit.
        note: why the search ended early, if it did.
        settings: everything else needed to repeat the search; JSON values.
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
    rejected: Mapping[str, int] = field(default_factory=dict)
    latency_by_block: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[int, tuple[float, float]]] = field(default_factory=dict)
    not_measured: Mapping[str, Mapping[int, Mapping[str, float | None]]] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    asked: int | None = None
    budget_minutes: float | None = None
    note: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def front(self) -> list[Trial]:
        """The Pareto front for the metric and the objectives, best metric first."""
        return pareto_front(self.trials, self.objectives)

    @property
    def best(self) -> Trial:
        """The trial with the best metric; among equals, the one with the lower objectives.

        Raises:
            SearchError: no trial finished its training.
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
    def minutes(self) -> float:
        """Minutes that trials have taken, added up over those that ran at once."""
        return trained_minutes(self.trials)

    @property
    def axes(self) -> list[str]:
        """Measures to plot the metric over: latencies, then other objectives.

        All trained trials have them. If there are none, all other measures of all trained trials.
        """
        known = [name for name in self.measures if all(name in trial.values for trial in self.trained)]
        return [n for n in dict.fromkeys([*self.hardware, *self.objectives]) if n in known] or known

    def unit(self, measure: str) -> str:
        """Return the unit of a measure; empty if it has none."""
        return "ms" if measure in self.hardware else self.units.get(measure, "")

    def plain_title(self, measure: str) -> str:
        """Return a measure's name for people."""
        return f"latency on {self.hardware[measure].device}" if measure in self.hardware else measure

    def title(self, measure: str) -> str:
        """Return a measure's name for people, with its unit."""
        unit = self.unit(measure)
        return f"{self.plain_title(measure)} ({unit})" if unit else self.plain_title(measure)

    def limits(self, measure: str) -> tuple[float, float]:
        """Return the lower and the upper limit of a measure; infinite if there is no limit."""
        return self.minima.get(measure, -math.inf), self.maxima.get(measure, math.inf)

    def worst_ratio(self, trial: Trial) -> float | None:
        """Return the largest ratio of a trial's measure to its upper limit; None without such limits."""
        ratios = [trial.values[name] / most for name, most in self.maxima.items() if name in trial.values]
        return max(ratios, default=None)


def seconds_words(seconds: float) -> str:
    """Format a duration in s with two digits, or more if they are whole seconds.

    >>> seconds_words(0.4), seconds_words(0.0312), seconds_words(9.0), seconds_words(83.2)
    ('0.4', '0.031', '9', '83')
    """
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"


def limit_words(report: SearchReport, measure: str) -> str:
    """Describe the limits on a measure: ``at most 4 ms``; empty without limits."""
    least, most = report.limits(measure)
    words = [f"at least {figure(least)}"] if least > -math.inf else []
    words += [f"at most {figure(most)}"] if most < math.inf else []
    return f"{' and '.join(words)} {report.unit(measure)}".rstrip() if words else ""


def limits_text(report: SearchReport) -> str:
    """Describe all limits in one line: ``latency on cortexA76cpu_tflite21 at most 4 ms``."""
    limited = dict.fromkeys([*report.maxima, *report.minima])
    return "; ".join(f"{report.plain_title(n)} {limit_words(report, n)}" for n in limited) or "none"


def ranked(report: SearchReport) -> list[Trial]:
    """Sort all trials: best metric first, equals by lower objectives; then running and failed trials."""
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
