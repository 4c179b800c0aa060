"""NNI 3.0: strategies of a ``NasExperiment``, networks of its spaces, and the code around its trials."""

from __future__ import annotations

import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import nni
from nni.nas.evaluator import Evaluator
from nni.nas.execution import Middleware
from nni.nas.space import ModelStatus, RawFormatModelSpace, SimplifiedModelSpace
from nni.nas.strategy.base import Strategy
from nni.nas.utils.serializer import get_default_serializer
from nni.runtime.trial_command_channel import (
    TrialCommandChannel,
    get_default_trial_command_channel,
    set_default_trial_command_channel,
)

from ..errors import SearchError
from ..readers.nni.ir import read_nni_ir
from ..supernet.choices import candidate_name, plain_architecture
from ..supernet.nni3 import _values as listed_values
from ..supernet.nni_space import space_of
from ..supernet.space import Space
from .asking import AskingStrategy, space_given
from .candidates import plain_value
from .events import Ended, Event, Submitted, from_record, to_record
from .running import MOST_LOSSES, RunningTrials, manager_status
from .trial import Outcome, Reported, run_trial, write_outcome

logger = logging.getLogger(__name__)


class NniStrategy(AskingStrategy, Strategy):
    """Base of this package's strategies, for ``NasExperiment`` and ``Chain``; see :class:`AskingStrategy`.

    It writes the experiment's checkpoint at each event, not only when the experiment stops. So a killed
    experiment resumes like a stopped one.
    """

    _models: Models

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        self._models = Models(model_space)
        if self.problem is None:
            self.prepare(space_given(self.space, self.input_shape) or self._models.space(self.input_shape))
        return model_space

    def _run(self) -> None:
        self.search(_Trials(self, self._models, self.engine))

    def _record(self, event: Event) -> None:
        super()._record(event)
        experiment = _experiment_of(self._engine)
        if experiment is not None:
            file = experiment._checkpoint_directory / "state.ckpt"
            get_default_serializer().save(experiment.state_dict(), file)

    def state_dict(self) -> dict[str, Any]:
        """Return all events as plain values.

        Raises:
            SearchError: the search has not begun, or could not be resumed. NNI then keeps its checkpoint.
        """
        if not self._is_whole:
            raise SearchError(f"{type(self).__name__} has not begun, or cannot be resumed: it has no state")
        return {"seed": self.seed, "events": [to_record(event) for event in self.events]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned.

        Raises:
            SearchError: the strategy asks for different architectures than before; see :meth:`replay`.
        """
        self.seed = state_dict["seed"]
        self.begin(self.problem)
        self.replay(map(from_record, state_dict["events"]))


class Models:
    """Makes NNI's models of a model space from architectures.

    Attributes:
        candidates: label -> name of each candidate -> NNI's value for it.
    """

    def __init__(self, model_space: Any) -> None:
        self._model_space = model_space
        self.candidates = _candidates(model_space)

    def make(self, architecture: Mapping[str, Any]) -> Any:
        """Make NNI's model of an architecture.

        Raises:
            SpaceError: the architecture is of another space.
        """
        return self._model_space.freeze(_sample(self.candidates, architecture))

    def space(self, input_shape: Any) -> Space:
        """Return the space of these models."""
        if isinstance(self._model_space, SimplifiedModelSpace):
            return space_of(self._model_space.model.get(), input_shape)
        if isinstance(self._model_space, RawFormatModelSpace):
            return space_of(self._model_space.model_space, input_shape)

        def model_graph(architecture: Mapping[str, str]) -> nx.DiGraph:
            return read_nni_ir(self.make(architecture), input_shape)

        names = {label: tuple(candidates) for label, candidates in self.candidates.items()}
        return Space.of_function(type(self._model_space).__name__, names, model_graph)


def _candidates(space: Any) -> dict[str, dict[str, Any]]:
    """Return label -> name of each candidate -> NNI's value for it."""
    return {
        label: {
            candidate_name(plain_value(label, value)): _as_nni(mutable, value)
            for value in listed_values(label, mutable)
        }
        for label, mutable in space.simplify().items()
    }


def _as_nni(mutable: Any, value: Any) -> Any:
    """Convert ``value`` for NNI: inputs chosen together become a list in the order of all inputs."""
    return [one for one in mutable.values if one in value] if isinstance(value, frozenset) else value


def _sample(candidates: Mapping[str, Mapping[str, Any]], architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``architecture`` with NNI's values for its candidates."""
    plain = plain_architecture(architecture, {label: tuple(names) for label, names in candidates.items()})
    return {label: candidates[label][name] for label, name in plain.items()}


def _experiment_of(engine: Any) -> Any:
    """Return the experiment that ``engine`` runs trials for, or None if trials run in this process."""
    return getattr(_innermost(engine), "nodejs_binding", None)


def _innermost(engine: Any) -> Any:
    """Return the engine below all middleware."""
    while isinstance(engine, Middleware):
        engine = engine.engine
    return engine


class _Trials(RunningTrials):
    """Trials that an engine runs."""

    def __init__(self, strategy: AskingStrategy, models: Models, engine: Any) -> None:
        super().__init__()
        self._strategy, self._made, self._engine = strategy, models, engine
        self._experiment = _experiment_of(engine)
        self._started: dict[int, Submitted] = {}
        self._losses: Counter[int] = Counter()
        self._submitted = 0 if self._experiment is None else len(self._experiment.list_trial_jobs())

    def start(self, trial: Submitted) -> None:
        """Submit the model of ``trial`` to the engine."""
        model = self._made.make(trial.architecture)
        file = self._strategy.outcome_file(trial.number)
        model.evaluator = MeasuredEvaluator(model.evaluator, trial.values, file, trial.number)
        self.add(trial.number, model)
        self._started[trial.number] = trial
        self._submitted += 1
        self._engine.submit_models(model)

    def ended(self) -> list[Ended]:
        """Return the trials that ended since the last call; start those again whose machine died."""
        for number, model in list(self._models.items()):
            if model.status is ModelStatus.Failed and self._was_lost(number):
                self._losses[number] += 1
                logger.warning("trial %d runs again, as its machine is out of reach", number)
                experiment: Any = self._experiment
                most = experiment.get_experiment_profile()["params"].get("maxTrialNumber")
                if most is not None:  # NNI counts it once more
                    experiment.update_max_trial_number(most + 1)
                self.start(self._started[number])
        return super().ended()

    def _was_lost(self, number: int) -> bool:
        """Return whether NNI gave up a trial of another machine. One that loses many machines has failed."""
        if self._experiment is None or self._losses[number] == MOST_LOSSES or number not in self._started:
            return False
        if getattr(self._experiment.config.training_service, "platform", None) != "remote":
            return False
        jobs = [job for job in self._experiment.list_trial_jobs() if _number_of(job) == number]
        return bool(jobs) and "CANCELED" in jobs[-1].status

    def has_room(self) -> bool:
        """Return whether a worker is free and budget is left."""
        if not self._engine.idle_worker_available():
            return False
        return bool(self._engine.budget_available()) and self._trials_left()

    def _has_ended(self) -> bool:
        experiment = self._experiment
        if experiment is not None and manager_status(experiment.port, experiment.url_prefix) in (
            "DONE", "STOPPED",
        ):  # fmt: skip
            return True
        return not (self.are_running() or self._engine.budget_available())

    def take_up(self, trials: list[Submitted]) -> list[Submitted]:
        """Watch the ``trials`` that NNI has in its database; return the others, which must be started.

        NNI itself reruns trials that had not ended when the experiment did, except cancelled ones.
        """
        jobs = self._jobs() if trials else {}
        engine, watched = _innermost(self._engine), {}
        for trial in trials:
            if trial.number in jobs:
                job, model = jobs[trial.number]
                model.status = ModelStatus.Training
                engine._models[job.hyperParameters[0].parameter_id] = weakref.ref(model)
                self._started[trial.number] = trial
                watched[job.trialJobId] = model
                self.add(trial.number, model)
        # The engine does not report trials that ended before it knew these models.
        for job in self._experiment.list_trial_jobs() if watched else []:
            if job.trialJobId in watched and job.status in ("SUCCEEDED", "FAILED", "EARLY_STOPPED"):
                model = watched[job.trialJobId]
                if job.finalMetricData:
                    model.metrics.final = job.finalMetricData[-1].data
                model.status = engine._interpret_trial_job_status(job.status)
        return [trial for trial in trials if trial.number not in jobs]

    def _jobs(self) -> dict[int, tuple[Any, Any]]:
        """Return NNI's job and model of each trial by its number, except cancelled trials."""
        found: dict[int, tuple[Any, Any]] = {}
        for job in self._experiment.list_trial_jobs() if self._experiment is not None else []:
            number = _number_of(job)
            if number is not None and "CANCELED" not in job.status:
                found[number] = job, _model_of(job)
        return found

    def _trials_left(self) -> bool:
        if self._experiment is None:
            return True
        most = self._experiment.get_experiment_profile()["params"].get("maxTrialNumber", math.inf)
        return bool(self._submitted < most)


def _model_of(job: Any) -> Any:
    """Return the model of one of NNI's jobs."""
    return nni.load(nni.dump(job.hyperParameters[0].parameters))


def _number_of(job: Any) -> int | None:
    """Return the number of the trial that one of NNI's jobs runs; None if it is none of ours."""
    number = getattr(_model_of(job).evaluator, "number", None)
    return number if isinstance(number, int) else None


class MeasuredEvaluator(Evaluator):
    """Wraps an evaluator so that its trials report measures beside their metric; see :mod:`..trial`."""

    def __init__(
        self, evaluator: Evaluator, values: Mapping[str, float], file: Path | None, number: int | None = None
    ) -> None:
        self.evaluator, self.values, self.file = evaluator, dict(values), file
        self.number = number

    @staticmethod
    def _load(**ir: Any) -> MeasuredEvaluator:
        return MeasuredEvaluator(**{**ir, "file": None if ir["file"] is None else Path(ir["file"])})

    def _dump(self) -> dict[str, Any]:
        return {**vars(self), "file": None if self.file is None else str(self.file)}

    def evaluate(self, model: Any) -> Any:
        """Run the wrapped evaluator on a torch module, and report."""
        return self._run(lambda: self.evaluator.evaluate(model))

    def _execute(self, model: Any) -> Any:
        return self._run(lambda: self.evaluator._execute(model))

    def _run(self, evaluate: Callable[[], Any]) -> Any:
        keep = partial(write_outcome, self.file)
        return run_trial(evaluate, _collected, nni.report_final_result, self.values, keep)


class _Holding(TrialCommandChannel):
    """A channel that keeps final metrics and passes on everything else."""

    def __init__(self, channel: TrialCommandChannel, reported: Reported) -> None:
        self._channel, self._reported = channel, reported

    def receive_parameter(self) -> Any:
        """Receive from the underlying channel."""
        return self._channel.receive_parameter()

    def send_metric(self, type: Any, parameter_id: Any, trial_job_id: str, sequence: int, value: Any) -> None:
        """Keep a final metric; pass on any other."""
        if type == "FINAL":
            self._reported.append(value)
        else:
            self._channel.send_metric(type, parameter_id, trial_job_id, sequence, value)


@contextmanager
def _collected() -> Iterator[Reported]:
    """Hold back all final metrics, however they are reported."""
    reported: Reported = []
    channel = get_default_trial_command_channel()
    set_default_trial_command_channel(_Holding(channel, reported))
    try:
        yield reported
    finally:
        set_default_trial_command_channel(channel)


def build_network(make_space: Callable[[], Any], architecture: Mapping[str, Any]) -> Any:
    """Build the network of an architecture as a torch module.

    Args:
        make_space: makes the search space anew.
        architecture: label -> the candidate's name, or NNI's value for it.

    Raises:
        SpaceError: the architecture is of another space.
    """
    space = make_space()
    return space.freeze(_sample(_candidates(space), architecture))


def try_architecture(
    make_space: Callable[[], Any],
    architecture: Mapping[str, Any],
    evaluator: Any,
    keep: Callable[[Outcome], None],
) -> None:
    """Run an evaluator on an architecture in this process, without an experiment.

    Args:
        make_space: makes the search space anew.
        architecture: label -> the candidate's name.
        evaluator: NNI's.
        keep: called with the outcome.

    Raises:
        Exception: whatever the evaluator raises, after ``keep`` was called.
    """
    run_trial(
        lambda: evaluator.evaluate(build_network(make_space, architecture)),
        _collected, lambda metric: None, {}, keep,
    )  # fmt: skip
