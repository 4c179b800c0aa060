"""End experiments of NNI that would wait for ever, and say what keeps a search from going on.

In 2.10.1, an experiment waits for as many trials as it was told to run. If its strategy has nothing more to
try, because each new candidate was rejected or tried before, these trials never come. And evolution waits for
its own number of cycles, even after the experiment has run all its trials. Either line calls filters in
silence, for as long as they reject everything.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

from .replaced import wrap
from .running import GRACE_S

logger = logging.getLogger(__name__)

#: Seconds between two looks at the trials that an experiment still runs.
POLL_S = 2.0
#: Seconds of rejections alone after which a warning says so, each time.
_WARN_S = 30.0


class _Tally:
    """What one filter of the running experiment said."""

    def __init__(self, accept: Any) -> None:
        self.accept: Callable[[], Any] = lambda: accept
        with contextlib.suppress(TypeError):  # of the few things without weak references
            self.accept = weakref.ref(accept)
        self.name = getattr(accept, "__name__", type(accept).__name__)
        self.seen = self.accepted = self._in_a_row = 0
        self._since = time.monotonic()

    def count(self, is_accepted: bool) -> None:
        """Count one candidate; warn if only rejections were heard for long."""
        self.seen += 1
        if is_accepted:
            self.accepted, self._in_a_row = self.accepted + 1, 0
            return
        self._in_a_row += 1
        if self._in_a_row == 1:
            self._since = time.monotonic()
        # Ours warns itself, and knows more.
        if time.monotonic() - self._since >= _WARN_S and not hasattr(self.accept(), "verdict"):
            self._since = time.monotonic()
            logger.warning("the search goes on, but %s rejected the last %d candidates, and accepted %d of "
                           "all %d", self.name, self._in_a_row, self.accepted, self.seen)

    def __str__(self) -> str:
        verdict = getattr(self.accept(), "verdict", None)
        why = f" ({verdict()})" if verdict is not None and not self.accepted else ""
        return f"{self.name} accepted {self.accepted} of {self.seen} candidates{why}"


#: One for each filter that the running experiment has called.
_tallies: list[_Tally] = []


def _count(accept: Any, is_accepted: bool) -> None:
    tally = next((one for one in _tallies if one.accept() is accept), None)
    if tally is None:
        tally = _Tally(accept)
        _tallies.append(tally)
    tally.count(is_accepted)


class _BudgetSpentError(Exception):
    """The experiment has run all its trials."""


def end_what_waits() -> None:
    """Patch NNI 2.10.1 as the module says, as its next experiment starts."""
    _tallies.clear()
    _count_what_filters_reject()
    _end_evolution()
    _wait_for_trials_that_exist()


def tell_of_filters() -> None:
    """Patch NNI 3.0, whose experiments end, to say why one ends early, as its next experiment starts."""
    _tallies.clear()
    middleware: Any = importlib.import_module("nni.nas.strategy.middleware").Filter
    experiment: Any = importlib.import_module("nni.nas.experiment").NasExperiment

    def submitted(submit: Any, self: Any, *models: Any) -> None:
        for model in models:
            before = self._filter_count_total
            submit(self, model)
            _count(self.filter_fn, self._filter_count_total == before)

    def waited(wait: Any, self: Any) -> bool:
        if self._engine is not None and self._engine.budget_available():
            _say_that_it_ends(self, len(list(self._engine.list_models())))
        is_done: bool = wait(self)
        return is_done

    wrap(middleware, "submit_models", submitted, "filters that reject everything are heard of")
    wrap(experiment, "_wait_completion", waited)


def _count_what_filters_reject() -> None:
    for name in ("bruteforce", "evolution"):
        module: Any = importlib.import_module(f"nni.nas.strategy.{name}")

        def filtered(filter_model: Any, accept: Any, model: Any) -> bool:
            is_accepted: bool = filter_model(accept, model)
            if accept is not None:
                _count(accept, is_accepted)
            return is_accepted

        wrap(module, "filter_model", filtered, "filters that reject everything are heard of")


def _end_evolution() -> None:
    """Let evolution end once the experiment has run all its trials, whatever number of cycles it has left."""
    evolution: Any = importlib.import_module("nni.nas.strategy.evolution").RegularizedEvolution
    is_over: Callable[[], bool] = importlib.import_module("nni.nas.execution").budget_exhausted

    def moved(move: Any, self: Any) -> None:
        move(self)
        if is_over():
            time.sleep(GRACE_S)  # late reports have time to arrive
            move(self)
            raise _BudgetSpentError

    def ran(run: Any, self: Any, *args: Any) -> None:
        try:
            run(self, *args)
        except _BudgetSpentError:
            logger.info("%s ends, as the experiment has run all its trials", type(self).__name__)

    wrap(evolution, "_move_succeeded_models_to_population", moved)
    wrap(evolution, "run", ran, "evolution ends with its experiment")


def _wait_for_trials_that_exist() -> None:
    """Once the strategy has ended, let an experiment wait for the trials that were started, and no others."""
    experiment: Any = importlib.import_module("nni.experiment").Experiment
    retiarii: Any = importlib.import_module("nni.nas.experiment.pytorch").RetiariiExperiment
    execution: Any = importlib.import_module("nni.nas.execution")

    def waited(wait: Any, self: Any) -> bool:
        if isinstance(self, retiarii):
            started = len(list(execution.list_models()))
            most = self.config.max_trial_number
            if (most is None or started < most) and not execution.budget_exhausted():
                _say_that_it_ends(self, started)
                while not all(map(execution.is_stopped_exec, execution.list_models())):
                    if self.get_status() in ("DONE", "STOPPED", "ERROR"):
                        break
                    time.sleep(POLL_S)
                return True
        is_done: bool = wait(self)
        return is_done

    wrap(experiment, "_wait_completion", waited, "experiments end with their strategy")


def _say_that_it_ends(experiment: Any, started: int) -> None:
    """Say why an experiment ends with fewer trials than it may run."""
    strategy = getattr(experiment.strategy, "_strategy", experiment.strategy)  # of 3.0's Chain
    most = experiment.config.max_trial_number
    trials = f"{started} trials" if most is None else f"{started} of {most} trials"
    told = "".join(f"; {tally}" for tally in _tallies)
    logger.warning(
        "the experiment ends after %s: %s has nothing more to try%s", trials, type(strategy).__name__, told
    )
