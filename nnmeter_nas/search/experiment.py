"""Run a search on either line of NNI, from its settings to its report; a killed search loses nothing.

NNI trains each architecture in its own process. The search writes every submission and every end of a trial
to the run folder (:mod:`.run_folder`) before it acts on it, so another process can resume from there.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas import strategies

from .. import load_latency_predictor
from ..costs.measures import Measure, latencies, latency_by_block
from ..errors import SearchError
from ..extras import load_extra
from ..nni import NAS, nni_line, patch
from ..nni.events import Ended, Event
from ..packs.fingerprint import pack_fingerprint
from ..solve.problem import LATENCY, LATENCY_MS
from ..supernet.named import load_space, make_space
from ..supernet.space import Space
from .manager_process import contained, free_port
from .report.files import write_report
from .report.outcome import Hardware, SearchReport
from .run_folder import LOGS, TRIALS, RunFolder, Settings

logger = logging.getLogger(__name__)

#: Name of a strategy in a search -> its class in :mod:`nnmeter_nas.strategies`.
_STRATEGIES = {
    "pareto": "ParetoEvolution",
    "learned": "LearnedPareto",
    "ranked": "LatencyRanked",
    "random": "LatencyConstrainedRandom",
}
#: Number of attempts to start NNI's manager, each on another port.
_STARTS = 4
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
        """
        self.predictors = [
            load_latency_predictor(device, settings.predictor_version) for device in settings.devices
        ]
        self.space = load_space(settings.space, settings.input_shape)
        self.evaluator = _make_evaluator(settings, self.space.input_shape)
        # Price the space here to show progress; the strategy then finds the latencies in the cache.
        self._latencies = measured = latencies(self.space, self.predictors, progress)
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
            settings={name: value for name, value in asdict(settings).items() if name != "folder"},
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


def _experiments() -> Any:
    """Return the adapter that runs experiments on the installed line of NNI."""
    name = "experiment_nas" if nni_line() == NAS else "experiment_retiarii"
    return load_extra(f"nnmeter_nas.nni.{name}", "nni", "searching for architectures")


def _median_latencies(space: Space, measured: Sequence[Measure], seed: int) -> list[float]:
    """Return the median of each latency (ms) over random architectures."""
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(seed).integers(sizes, size=(SAMPLED, len(sizes)))
    return [float(np.median(latency.values(rows))) for latency in measured]


def _make_evaluator(settings: Settings, input_shape: tuple[int, ...]) -> Any:
    """Make the evaluator that ``settings.evaluator`` names: one of NNI's, or a function to wrap in one.

    The function gets the network or its factory, and those of ``settings.arguments`` and ``input_shape`` that
    it takes. It returns its metric or reports it with ``nni.report_final_result``.

    Raises:
        SearchError: there is no such function or evaluator.
    """
    name = settings.evaluator
    found = _imported(name)
    if hasattr(found, "_execute"):
        return found
    if not callable(found):
        kind = type(found).__name__
        raise SearchError(f"evaluator={name}: a {kind} is neither a function nor one of NNI's evaluators")
    known = inspect.signature(found).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    offered = {"input_shape": list(input_shape), **settings.arguments}
    arguments = {key: value for key, value in offered.items() if takes_all or key in known}
    return _experiments().FunctionalEvaluator(found, **arguments)


def run_search(
    search: Search,
    folder: RunFolder,
    port: int | None = None,
    started: Callable[[int], None] = lambda port: None,
    changed: Callable[[RunFolder], None] = lambda folder: None,
) -> SearchReport:
    """Run a search, or the rest of one, and keep its report up to date.

    Args:
        search, folder: the search, and its folder; trials in it are not run again.
        port: port for NNI's web page and REST interface on 127.0.0.1; if it is in use, another one is taken.
        started: called with the manager's port once NNI's manager runs.
        changed: called when a trial was submitted or has ended.

    Returns:
        The report, which is also written to the folder.

    Raises:
        SearchError: NNI fails, or no trial finished its training.
    """
    home = os.environ.get("HOME")
    with contained(folder.path / LOGS, _variables(search.settings)) as work:
        folder.recover()
        search.resumed(folder)
        changed(folder)
        running = _Running(search, folder, work, changed)
        if folder.is_unfinished:
            running.run(home, port, started)
    report = search.report(folder, _early(folder), is_final=True)
    write_report(report, folder.path)
    return report


def _early(folder: RunFolder) -> str:
    """Say why a search ended before it had all the trials that it was asked for; empty if it did not."""
    settings = folder.settings
    if settings.trials is not None and folder.ended >= settings.trials:
        return ""
    if not folder.is_spent:
        return "the strategy had no further architectures"
    if settings.trials is None:
        return ""  # a budget alone is how it was to end
    return f"the trials took the {settings.budget_minutes:g} minutes of the budget"


@dataclass
class _Running:
    """A search while NNI, which works in the folder ``work``, runs it.

    Attributes:
        changed: called when a trial was submitted or has ended.
        port: port of NNI's manager; None until it runs.
    """

    search: Search
    folder: RunFolder
    work: Path
    changed: Callable[[RunFolder], None]
    port: int | None = None

    def run(self, home: str | None, port: int | None, started: Callable[[int], None]) -> None:
        """Let NNI run the trials that are left, with the home folder ``home``; see :func:`run_search`."""
        from ..nni.launching import launcher_of_search

        patch()
        experiments = _experiments()
        config = self._config(experiments, home)
        strategy = self.search.strategy
        strategy.asks_no_more = self.folder.is_spent
        strategy.trials_folder = self.folder.path / TRIALS
        strategy.listen(self._happened)

        def begun(at: int) -> None:
            self.port = at
            started(at)

        with launcher_of_search(self.work), experiments.fresh_nni():
            for attempt in range(_STARTS):
                at = free_port(None if attempt else port)
                module = make_space(self.search.settings.space)
                try:
                    return experiments.run(module, self.search.evaluator, strategy, config, at, begun)
                except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                    failure = error
                    if self.port is not None:
                        break
                    # It never started: another process took the port, or it was too slow.
        logs = self.folder.path / LOGS
        if self.port is None:
            raise SearchError(
                f"NNI's manager did not start in {_STARTS} attempts, each on another port; its logs are in "
                f"{logs}; the last failed with {failure}"
            ) from failure
        raise SearchError(
            f"NNI stopped working ({failure}); its logs are in {logs}. No trial that finished is lost: the "
            f"search in {self.folder.path} can be resumed"
        ) from failure

    def _config(self, experiments: Any, home: str | None) -> Any:
        settings = self.search.settings
        config = experiments.make_config(
            settings.engine, self.search.space.input_shape, self.work, Path.cwd()
        )
        config.trial_concurrency = settings.concurrency
        if settings.trials is not None:
            config.max_trial_number = settings.trials - self.folder.ended
        if settings.trial_limit_s is not None:
            config.max_trial_duration = f"{settings.trial_limit_s}s"
        config.experiment_working_directory = str(self.work)
        config._trial_command_params = {
            "python": shlex.quote(sys.executable),
            "envs": "" if home is None else f"HOME={shlex.quote(home)}",  # not the home of NNI's processes
        }
        config.training_service.use_active_gpu = False
        return config

    def _happened(self, event: Event) -> None:
        """Record an event of the strategy before acting on it."""
        if isinstance(event, Ended) and event.failure:
            event = replace(event, failure=self._failure(event))
        self.folder.record(event)
        if isinstance(event, Ended):
            self.search.strategy.asks_no_more = self.folder.is_spent
            try:
                write_report(self.search.report(self.folder), self.folder.path)
            except Exception:  # the journal has everything, and the end writes the report again
                logger.exception("the report could not be written")
        self.changed(self.folder)

    def _failure(self, event: Ended) -> str:
        """Return why a trial failed: its exception, else its last line of errors, else NNI's status."""
        if (outcome := self.folder.outcome(event.number)) is not None and outcome.failure:
            return outcome.failure
        from ..nni.launching import trial_job

        assert self.port is not None
        job = trial_job(self.port, f"{TRIALS}/{event.number:04}.json")
        if job is None:
            return event.failure
        lines = [
            line for file in self.work.glob(f"**/trials/{job['trialJobId']}/*stderr")
            for line in file.read_text(errors="replace").split("\n") if line.strip()
        ]  # fmt: skip
        limit = self.search.settings.trial_limit_s
        # NNI 2.10.1 reports that it stopped the trial; 3.0 interrupts the trial and reports it as failed.
        if limit is not None and (job["status"] == "EARLY_STOPPED" or lines[-1:] == ["KeyboardInterrupt"]):
            return f"stopped at the limit of {limit} s"
        return lines[-1] if lines else f"{event.failure} ({job['status'].lower()})"


def _variables(settings: Settings) -> dict[str, str]:
    """Return the environment variables that let trials find the user's modules."""
    paths = [settings.folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _imported(name: str) -> Any:
    """Import ``module:attribute`` from the current folder or an installed package."""
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise SearchError(f"evaluator={name}: write module:function, such as my_training:train")
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        return functools.reduce(getattr, attribute.split("."), import_module(module))
    except Exception as error:  # importing a user's module can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise SearchError(f"evaluator={name}: cannot load it: {reason}") from error
    finally:
        sys.path.remove("")

