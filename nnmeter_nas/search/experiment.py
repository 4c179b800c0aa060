"""A search, made from its settings: its space, strategy and evaluator, and the report of what it found."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from nnmeter_nas import strategies

from .. import load_latency_predictor
from ..costs.measures import QUANTITIES, Measure, latencies, latency_by_block
from ..errors import SearchError, SettingsError
from ..extras import need_extra
from ..packs.fingerprint import pack_fingerprint
from ..solve.problem import LATENCY, LATENCY_MS
from ..supernet.named import load_space
from ..supernet.space import Space
from .evaluators import make_evaluator
from .remote import check_line
from .report.outcome import Hardware, SearchReport
from .run_folder import RunFolder, Settings

#: Name of a strategy in a search -> its class in :mod:`nnmeter_nas.strategies`.
_STRATEGIES = {
    "pareto": "ParetoEvolution",
    "learned": "LearnedPareto",
    "ranked": "LatencyRanked",
    "random": "LatencyConstrainedRandom",
}
#: Settings that say where the user's things are: a report may be shown to others.
_OF_THE_USER = ("folder", "machines", "address")
#: Number of random architectures; their median latency is the limit if none is given.
SAMPLED = 200
#: What a strategy has learned is told anew once the trials have grown by this share: it takes seconds.
_STALE = 0.1


class Search:
    """A search, ready to run: a space, a strategy and an evaluator made from its settings.

    Attributes:
        settings: the given settings. If they have no limit, each device gets one: the median latency of
            random architectures.
        strategy: the strategy. It knows the space, which has architectures inside the limits.
        facts: the current meaning of the settings; a search can be resumed only with the same facts.
    """

    def __init__(self, settings: Settings, progress: Callable[[int], None] | None = None) -> None:
        """Load everything that the settings name, and price the space.

        ``progress`` is called with the number of architectures priced so far, if the table must be built.

        Raises:
            SearchError: no architecture of the space is inside the limits; names the fastest one.
            UnknownDeviceError, SpaceError, PackError, ReaderError: something that the settings name cannot be
                loaded.
            SettingsError: the training service cannot run the search.
            MissingPackageError: the search or its report will need a package that is not installed.
        """
        _check_service(settings)
        self.predictors = [
            load_latency_predictor(device, settings.predictor_version) for device in settings.devices
        ]
        self.space = load_space(settings.space, settings.input_shape)
        self.evaluator = make_evaluator(settings.evaluator, settings.arguments, self.space.input_shape)
        # Price the space here to show progress; the strategy then finds the tables in the cache.
        self._latencies = measured = latencies(self.space, self.predictors, progress)
        for name in {*settings.limits, *settings.objectives, *(settings.options.get("hints") or ())}:
            if name in QUANTITIES:
                QUANTITIES[name](self.space, progress=progress)
        if not (settings.max_latency or settings.min_latency or settings.limits):
            medians = _median_latencies(self.space, measured, settings.seed)
            settings = replace(settings, max_latency=dict(zip(settings.devices, medians, strict=True)))
        self.settings = settings
        self.strategy = self._make_strategy(settings)
        self.strategy.prepare(self.space)
        self._important: tuple[int, dict[str, float]] = (0, {})
        self.facts: dict[str, Any] = {
            "space": self.space.fingerprint,
            "packs": {p.device: [p.version, pack_fingerprint(p.pack)] for p in self.predictors},
            "nni": version("nni"),
        }

    def resumed(self, folder: RunFolder) -> None:
        """Restore the strategy to the state of the search in ``folder``.

        Raises:
            SearchError: the space, a predictor pack, NNI or the code has changed since the search began.
        """
        for name, then in folder.facts.items():
            if name in self.facts and self.facts[name] != then:
                raise SearchError(
                    f"{folder.path}: the search began with {name} {then}, and now it is "
                    f"{self.facts[name]}; bring that back, or start a search anew in another folder"
                )
        self.strategy.replay(folder.events)

    def report(self, folder: RunFolder, note: str = "", is_final: bool = False) -> SearchReport:
        """Report the results so far; what takes long is done anew for the final report, or now and then."""
        settings, problem = self.settings, self.strategy.problem
        several = len(self.predictors) > 1
        hardware = {
            f"{LATENCY_MS}_{p.device}" if several else LATENCY_MS:
            Hardware(p.device, p.version, pack_fingerprint(p.pack))
            for p in self.predictors
        }  # fmt: skip
        objectives = [
            name for objective in problem.objectives
            for name in (hardware if objective == LATENCY else [objective])
        ]  # fmt: skip
        report = SearchReport(
            space=settings.space,
            trials=folder.trials(),
            hardware=hardware,
            maxima=problem.maxima,
            minima=problem.minima,
            objectives=objectives,
            input_shape=self.space.input_shape,
            strategy=settings.strategy,
            nni=version("nni"),
            units={name: measure.unit for name, measure in problem.measures.items()},
            rejected=dict(self.strategy.rejected),
            importance=self._importance(folder, is_final),
            asked=settings.trials,
            budget_minutes=settings.budget_minutes,
            note=note,
            settings={name: value for name, value in asdict(settings).items() if name not in _OF_THE_USER},
        )
        intervals: dict[str, dict[int, tuple[float, float]]] = {}
        not_measured: dict[str, dict[int, Mapping[str, float | None]]] = {}
        for name, p in zip(hardware, self.predictors, strict=True):
            of_trials = {t.number: self._sureness(p.device, tuple(t.choices.items())) for t in report.trials}
            intervals[name] = {number: found for number, (found, _) in of_trials.items() if found}
            not_measured[name] = {number: shares for number, (_, shares) in of_trials.items() if shares}
        report = replace(report, intervals=intervals, not_measured=not_measured)
        if not report.front:
            return report
        choices = report.best.choices
        return replace(report, latency_by_block={
            name: self._latency_by_block(p.device, tuple(choices.items()))
            for name, p in zip(hardware, self.predictors, strict=True)
        })  # fmt: skip

    def _importance(self, folder: RunFolder, is_final: bool) -> dict[str, float]:
        """What the strategy owes to each choice, as of when a tenth fewer trials had ended at most."""
        if is_final or folder.ended >= (1 + _STALE) * self._important[0]:
            self._important = folder.ended, self.strategy.importance()
        return self._important[1]

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a process has one search
    def _latency_by_block(self, device: str, choices: tuple[tuple[str, str], ...]) -> dict[str, float]:
        at = next(i for i, p in enumerate(self.predictors) if p.device == device)
        return latency_by_block(self.space, self.predictors[at], dict(choices), self._latencies[at])

    @functools.lru_cache(maxsize=10_000)  # noqa: B019 - a process has one search
    def _sureness(
        self, device: str, choices: tuple[tuple[str, str], ...]
    ) -> tuple[tuple[float, float] | None, Mapping[str, float | None]]:
        """Limits in ms of an architecture's interval, None if there is none, and its not measured shares."""
        predictor = next(p for p in self.predictors if p.device == device)
        found = predictor.explain(self.space.model_graph(dict(choices)))
        shares = {"extrapolated": found.extrapolated_share, "estimated": found.estimated_share}
        told: dict[str, float | None] = {basis: share for basis, share in shares.items() if share}
        if found.unpredicted:
            told["unpredicted"] = None if math.isnan(share := found.unpredicted_share) else share
        interval = found.interval()
        return interval and (interval.low, interval.high), told

    def _make_strategy(self, settings: Settings) -> Any:
        try:
            return getattr(strategies, _STRATEGIES[settings.strategy])(
                max_latency=settings.max_latency or None,
                min_latency=settings.min_latency or None,
                predictor=self.predictors,
                limits=settings.limits,
                objectives=settings.objectives,
                space=self.space,
                seed=settings.seed,
                **settings.options,
            )
        except ValueError as error:
            raise SearchError(f"strategy={settings.strategy}: {error}") from error


def _check_service(settings: Settings) -> None:
    """Raise a SettingsError if the training service cannot run a search with these settings.

    What is used only once trials run is asked for here, before anything is made or trained.
    """
    service = settings.training_service
    need_extra("matplotlib", "plot", "the report of a search")
    if service == "ray":
        need_extra("ray", "ray", "training_service=ray")
    if service == "ray" and settings.engine != "py":
        raise SettingsError(
            f"engine={settings.engine} is one of NNI's, and training_service=ray makes networks without NNI: "
            f"take engine=py, or another training_service"
        )
    if service == "remote":
        check_line()
        if not settings.machines:
            raise SettingsError("training_service=remote needs machines")
        if settings.trial_gpus != int(settings.trial_gpus):
            raise SettingsError(
                f"trial_gpus={settings.trial_gpus:g}: NNI takes whole GPUs; let trials share one by "
                f"trials_per_gpu of a machine, or take training_service=ray"
            )


def _median_latencies(space: Space, measured: Sequence[Measure], seed: int) -> list[float]:
    """Return the median of each latency (ms) over random architectures."""
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(seed).integers(sizes, size=(SAMPLED, len(sizes)))
    return [float(np.median(latency.values(rows))) for latency in measured]
