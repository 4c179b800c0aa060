"""Running trials and how they ended: what a search needs of them, and how to read it from NNI's models."""

from __future__ import annotations

import importlib
import math
import time
from abc import ABC, abstractmethod
from typing import Any

from ..errors import SearchError
from .events import Ended, Submitted

#: Seconds that NNI may take to report a metric after a trial ends, or a trial's end after the experiment's.
GRACE_S = 5.0
#: Machines that may die with a trial and it still runs again; it may be what kills them.
MOST_LOSSES = 2
#: Seconds between two requests to NNI's manager whether the experiment is over.
_ASK_MANAGER_S = 1.0


class Trials(ABC):
    """The trials of a search while they run, wherever that is, and room for more of them."""

    @abstractmethod
    def take_up(self, trials: list[Submitted]) -> list[Submitted]:
        """In a resumed search, watch those of the ``trials`` that still run; return the others."""

    @abstractmethod
    def start(self, trial: Submitted) -> None:
        """Make the model of ``trial``, and have it trained."""

    @abstractmethod
    def has_room(self) -> bool:
        """Return whether another trial would start now."""

    @abstractmethod
    def are_over(self) -> bool:
        """Return whether no more trials start and none runs."""

    @abstractmethod
    def are_running(self) -> bool:
        """Return whether any trial has started and not ended."""

    @abstractmethod
    def ended(self) -> list[Ended]:
        """Return the trials that ended since the last call, in order of their numbers."""


class RunningTrials(Trials):
    """The trials of an experiment of NNI: models submitted to it.

    Both lines set ``status`` and ``metric`` on the submitted model object itself.
    """

    def __init__(self) -> None:
        self._models: dict[int, Any] = {}
        self._trained: dict[int, float] = {}
        self._asked, self._is_over = 0.0, False
        self._over_since: float | None = None

    @abstractmethod
    def _has_ended(self) -> bool:
        """Ask NNI whether the experiment has ended, or nothing runs and it starts no more trials."""

    def are_over(self) -> bool:
        """Return whether NNI starts no more trials and none runs, or NNI has given up on the running ones."""
        now = time.monotonic()
        if now - self._asked >= _ASK_MANAGER_S:
            self._asked, self._is_over = now, self._has_ended()
        if not self._is_over:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = now
        # Late reports have time to arrive.
        return not self.are_running() or now - self._over_since > GRACE_S

    def are_running(self) -> bool:
        """Return whether any trial is still running."""
        return bool(self._models)

    def add(self, number: int, model: Any) -> None:
        """Watch ``model``, which belongs to the trial ``number``."""
        self._models[number] = model

    def ended(self) -> list[Ended]:
        """Return the trials that ended since the last call, in order of their numbers."""
        ends = [end for number, model in sorted(self._models.items()) if (end := self._end(number, model))]
        for end in ends:
            del self._models[end.number]
        return ends

    def _end(self, number: int, model: Any) -> Ended | None:
        status = model.status.value
        if status in ("failed", "interrupted"):
            return Ended(number, None, "the trial failed")
        if status == "invalid":
            return Ended(number, None, "a filter rejected it")
        if status != "trained":
            return None
        since = self._trained.setdefault(number, time.monotonic())
        if model.metric is None and time.monotonic() - since < GRACE_S:
            return None
        return outcome(number, model.metric)


def manager_status(port: int, url_prefix: str | None) -> str:
    """Ask NNI's manager for the status of its experiment, such as RUNNING or DONE.

    Raises:
        SearchError: the manager has failed; NNI's own strategies would wait for ever.
    """
    rest: Any = importlib.import_module("nni.experiment.rest")
    state = rest.get(port, "/check-status", url_prefix)
    if state["status"] == "ERROR":
        raise SearchError(f"NNI's manager failed: {'; '.join(state['errors']) or 'no reason given'}")
    return str(state["status"])


def outcome(number: int, metric: Any) -> Ended:
    """Return the end of a trial that NNI calls a success; without a finite metric it counts as failed."""
    if isinstance(metric, dict):
        metric = metric.get("default")
    if metric is None:
        return Ended(number, None, "the trial reported no metric")
    if not isinstance(metric, int | float) or not math.isfinite(metric):
        return Ended(number, None, f"the trial reported {metric!r}")
    return Ended(number, float(metric))
