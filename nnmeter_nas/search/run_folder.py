"""The folder of a search. It holds everything needed to resume after a crash at any moment.

======================= ==============================================================================
``search.json``         its settings, its predictor packs and the versions that it runs with
``journal.jsonl``       the submission and the end of each trial, in order
``trials/NNNN.json``    the outcome of a trial, written by the trial itself before it tells NNI
``nni-logs/``           NNI's own logs and records
======================= ==============================================================================

The files of a report lie next to them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..files import lock_folder, write_bytes
from ..journal import Journal
from ..nni.events import Ended, Event, Submitted, from_record, to_record, unended
from ..nni.trial import Outcome, read_outcome
from .report.files import empty_folder
from .report.trials import Trial, trained_minutes

SETTINGS, _JOURNAL, TRIALS, LOGS, _LOCK = "search.json", "journal.jsonl", "trials", "nni-logs", "search.lock"


@dataclass(frozen=True)
class Settings:
    """The settings of a search, all JSON values.

    Attributes:
        space: name of the search space, or ``module:attribute``.
        strategy: "learned", "pareto", "ranked" or "random".
        options: options of the strategy.
        devices: applied hardware to predict latencies on.
        predictor_version: version of the predictor packs; None means the newest.
        max_latency, min_latency: limits in ms, by device.
        limits: upper limits of other measures, such as flops, params, memory and size.
        objectives: what to minimise while maximising the metric: "latency", "flops", "params", "memory",
            "memory_tflite", "size".
        input_shape: NCHW; None means the space's own.
        trials: number of architectures to train; None if it is not limited.
        budget_minutes: the search proposes no further trial once those that ended have taken so many minutes,
            added up over trials that ran at once; None means no limit.
        concurrency: number of trials that run at once; None means as many as the machines of
            ``training_service`` have room for.
        evaluator: ``module:function`` that a trial runs.
        arguments: arguments of that function; it gets those that it takes.
        engine: "py", or "graph" for NNI's graph of the space.
        trial_limit_s: seconds after which a trial is stopped and counts as failed; None means no limit.
        seed: seed of the strategy.
        training_service: what runs the trials: "local" for NNI on this machine, "remote" for NNI on the
            ``machines``, or "ray".
        machines: the fields of each :class:`.machines.Machine`.
        address: address of the cluster of Ray; None means that one is started on this machine.
        trial_cpus, trial_gpus: what a trial takes of a machine; with Ray, parts of one too. NNI counts GPUs
            alone.
        folder: the current folder when the search began; trials find the user's modules and data there.
    """

    space: str
    strategy: str = "learned"
    options: Mapping[str, Any] = field(default_factory=dict)
    devices: Sequence[str] = ()
    predictor_version: float | None = None
    max_latency: Mapping[str, float] = field(default_factory=dict)
    min_latency: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    objectives: Sequence[str] = ("latency",)
    input_shape: Sequence[int] | None = None
    trials: int | None = 20
    budget_minutes: float | None = None
    concurrency: int | None = 2
    evaluator: str = "nnmeter_nas.estimators.digits:train_on_digits"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "py"
    trial_limit_s: int | None = None
    seed: int = 0
    training_service: str = "local"
    machines: Sequence[Mapping[str, Any]] = field(default_factory=list)
    address: str | None = None
    trial_cpus: float = 1.0
    trial_gpus: float = 0.0
    folder: str = "."

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that let trials find the user's modules."""
        paths = [self.folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}


class RunFolder:
    """The folder of one search, open and locked for this process.

    Attributes:
        facts: meaning of the settings when the search began: packs, space and versions, by name.
        events: all submissions and ends of trials so far, in order.
    """

    def __init__(self, path: Path, settings: Settings, facts: Mapping[str, Any]) -> None:
        """Open the folder; use :meth:`create` or :meth:`resume`."""
        self.path, self.settings, self.facts = path, settings, facts
        self._lock = lock_folder(path, _LOCK, "search")
        self._journal = Journal(path / _JOURNAL)
        self.events: list[Event] = []
        self._times: list[float] = []
        for record in self._journal.records:
            fields = dict(record)
            self._times.append(fields.pop("time", 0.0))
            self.events.append(from_record(fields))

    @staticmethod
    def check(path: Path, overwrite: bool) -> None:
        """Raise a SearchError if ``path`` holds a search and ``overwrite`` is False."""
        if (path / SETTINGS).exists() and not overwrite:
            raise SearchError(
                f"{path} holds a search already; resume it, take another folder, or replace it by "
                f"overwrite=True"
            )

    @classmethod
    def create(
        cls, path: Path, settings: Settings, facts: Mapping[str, Any], overwrite: bool = False
    ) -> RunFolder:
        """Start the folder of a new search; ``overwrite`` removes an earlier search from it.

        Raises:
            SearchError: the folder already holds a search, another process works in it, or it is a file.
        """
        cls.check(path, overwrite)
        with lock_folder(path, _LOCK, "search"):
            _clear(path)
            content = {"settings": dataclasses.asdict(settings), "facts": dict(facts)}
            write_bytes(path / SETTINGS, f"{json.dumps(content, indent=2)}\n".encode())
        return cls(path, settings, facts)

    @classmethod
    def resume(cls, path: Path, **changed: Any) -> RunFolder:
        """Open the folder of an interrupted search; ``changed`` settings replace those that it began with.

        Raises:
            SearchError: the folder holds no search, its files are damaged, or another process works in it.
        """
        settings, facts = read_settings(path)
        return cls(path, dataclasses.replace(settings, **changed), facts)

    def recover(self) -> None:
        """Record the ends of trials that finished while no search process ran."""
        for trial in unended(self.events):
            if (outcome := self.outcome(trial.number)) is not None:
                self.record(Ended(trial.number, outcome.metric, outcome.failure))

    def record(self, event: Event) -> None:
        """Add an event; it is on the disk when this returns."""
        now = time.time()
        self._journal.append({**to_record(event), "time": now})
        self.events.append(event)
        self._times.append(now)

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return sum(isinstance(event, Ended) for event in self.events)

    @property
    def is_spent(self) -> bool:
        """Whether the trials that ended have taken all minutes of the budget; False without a budget."""
        budget = self.settings.budget_minutes
        return budget is not None and trained_minutes(self.trials()) >= budget

    @property
    def is_unfinished(self) -> bool:
        """Whether trials are left to run: fewer ended than were asked for, and the budget is not spent.

        A trial that was submitted and has not ended runs even if the budget is spent.
        """
        most = self.settings.trials
        wanted = most is None or self.ended < most
        return wanted and (bool(unended(self.events)) or not self.is_spent)

    def outcome(self, number: int) -> Outcome | None:
        """Read the outcome that the trial of this number left; None if it left none."""
        return read_outcome(self.path / TRIALS / f"{number:04}.json")

    def trials(self) -> list[Trial]:
        """Return all trials in order of submission, including running ones."""
        begins: dict[int, tuple[Submitted, float]] = {}
        ends: dict[int, tuple[Ended, float]] = {}
        for event, moment in zip(self.events, self._times, strict=True):
            if isinstance(event, Submitted):
                begins[event.number] = event, moment
            else:
                ends[event.number] = event, moment
        return [self._trial(*begin, *ends.get(number, (None, 0.0))) for number, begin in begins.items()]

    def _trial(self, begin: Submitted, begun: float, end: Ended | None, over: float) -> Trial:
        submitted = Trial(begin.number, begin.architecture, begin.values, expected=begin.expected)
        if end is None:
            return submitted
        outcome = self.outcome(begin.number)
        seconds = over - begun if outcome is None else outcome.seconds
        return dataclasses.replace(submitted, metric=end.metric, seconds=seconds, failure=end.failure)

    def clear(self) -> None:
        """Remove the search, so that another can start here; keep all files that are not of it."""
        _clear(self.path)

    def close(self) -> None:
        """Close the folder, so that other processes can work in it."""
        self._journal.close()
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_settings(path: Path) -> tuple[Settings, dict[str, Any]]:
    """Read the settings and facts of the search in a folder.

    Raises:
        SearchError: there is no search, or its file is damaged.
    """
    file = path / SETTINGS
    try:
        content = json.loads(file.read_bytes())
        return Settings(**content["settings"]), content["facts"]
    except FileNotFoundError as error:
        raise SearchError(
            f"{path}: there is no search in this folder, as it has no {SETTINGS}; start one, or name another"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{file} is damaged ({error}); restore it, or start the search anew") from error


def _clear(path: Path) -> None:
    """Remove the search in a folder; keep all other files."""
    for name in (SETTINGS, _JOURNAL):
        (path / name).unlink(missing_ok=True)
    for name in (TRIALS, LOGS):
        shutil.rmtree(path / name, ignore_errors=True)
    empty_folder(path)
