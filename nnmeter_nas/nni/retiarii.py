"""NNI 2.10.1: strategies of a ``RetiariiExperiment``, networks of its spaces, and code around its trials."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain, combinations, combinations_with_replacement, islice
from pathlib import Path
from typing import Any

import networkx as nx
import nni
from nni.experiment import rest
from nni.nas.evaluator import Evaluator
from nni.nas.execution import api
from nni.nas.execution.common import get_advisor
from nni.nas.nn.pytorch.mutator import extract_mutation_from_pt_module
from nni.nas.strategy.base import BaseStrategy
from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model
from nni.retiarii import fixed_arch

from ..errors import SpaceError
from ..readers.nni.ir import read_nni_ir
from ..supernet.choices import candidate_name, plain_architecture
from ..supernet.nni2 import MOST_VALUES
from ..supernet.nni_space import space_of
from ..supernet.space import Space
from .asking import AskingStrategy, space_given
from .candidates import carries_operators, plain_value
from .events import Submitted
from .running import RunningTrials, manager_status
from .trial import Outcome, Reported, run_trial, write_outcome

logger = logging.getLogger(__name__)


class NniStrategy(AskingStrategy, BaseStrategy):
    """Base of this package's strategies, for ``RetiariiExperiment``; see :class:`AskingStrategy`."""

    def run(self, base_model: Any, applied_mutators: list[Any]) -> None:
        """Search the space of an experiment; the experiment calls this.

        Raises:
            SearchError: nothing is inside the limits, or the experiment fails.
            SpaceError: ``space`` differs from the experiment's space.
        """
        models = Models(base_model, applied_mutators)
        if self.problem is None:
            self.prepare(space_given(self.space, self.input_shape) or models.space(self.input_shape))
        trials = _Trials(self, models)
        self.search(trials)
        trials.close()


class Models:
    """Makes NNI's models of a base model and its mutators from architectures.

    Attributes:
        candidates: label -> name of each candidate -> NNI's value for it.
    """

    def __init__(self, base_model: Any, mutators: list[Any]) -> None:
        self._base_model, self._mutators = base_model, mutators
        self._asked: dict[Any, list[list[Any]]] = {}  # mutator -> the options of each of its decisions
        for (mutator, _), values in dry_run_for_search_space(base_model, mutators).items():
            self._asked.setdefault(mutator, []).append(values)
        self.candidates: dict[str, dict[str, Any]] = {}
        for mutator, asked in self._asked.items():
            label, values = mutator.label, _values(mutator.label, asked)
            self.candidates[label] = {candidate_name(plain_value(label, value)): value for value in values}

    def make(self, architecture: Mapping[str, Any]) -> Any:
        """Make NNI's model of an architecture.

        Raises:
            SpaceError: the architecture is of another space.
        """
        plain = plain_architecture(architecture, {label: tuple(c) for label, c in self.candidates.items()})
        sample: dict[Any, Any] = {}
        for mutator, asked in self._asked.items():
            value = self.candidates[mutator.label][plain[mutator.label]]
            answers = value if isinstance(value, list) else [value]
            if _any_number(asked):
                answers = [one in answers for one in range(len(asked))]
            sample |= {(mutator, position): answer for position, answer in enumerate(answers)}
        return get_targeted_model(self._base_model, self._mutators, sample)

    def space(self, input_shape: Any) -> Space:
        """Return the space of these models."""
        base = self._base_model
        if base.python_class is not None:
            return space_of(base.python_class(**(base.python_init_params or {})), input_shape)
        if not carries_operators(base):
            raise SpaceError("NNI's base model has neither class nor operators; pass space= to the strategy")

        def model_graph(architecture: Mapping[str, str]) -> nx.DiGraph:
            return read_nni_ir(self.make(architecture), input_shape)

        return Space.of_function(str(base.root_graph.name), self._names(), model_graph)

    def _names(self) -> dict[str, tuple[str, ...]]:
        return {label: tuple(names) for label, names in self.candidates.items()}


def _any_number(asked: list[list[Any]]) -> bool:
    """Return whether a mutator decides on each input separately, so that it may choose any number."""
    return len(asked) > 1 and all(isinstance(value, bool) for value in asked[0])


def _values(label: str, asked: list[list[Any]]) -> list[Any]:
    """List all values of a choice: its mutator picks one, several, or decides on each input separately."""
    if len(asked) == 1:
        return asked[0]
    found: Iterator[tuple[Any, ...]]
    if _any_number(asked):
        sizes = range(1, len(asked) + 1)
        found = chain.from_iterable(combinations(range(len(asked)), size) for size in sizes)
    else:
        found = combinations_with_replacement(asked[0], len(asked))
    listed = list(map(list, islice(found, MOST_VALUES + 1)))
    if len(listed) > MOST_VALUES:
        raise SpaceError(f"{label!r} has more than {MOST_VALUES} values; give it fewer to choose from")
    return listed


class _Trials(RunningTrials):
    """Trials of the experiment in this process."""

    def __init__(self, strategy: AskingStrategy, models: Models) -> None:
        super().__init__()
        self._strategy, self._made = strategy, models
        self._engine: Any = api.get_execution_engine()
        if self._submitted:
            logger.warning(
                "NNI 2.10.1 resumes trials and no strategies: %s begins anew; searches that can be resumed "
                "are those of the command nnmeter-nas search", type(strategy).__name__,
            )  # fmt: skip

    def take_up(self, trials: list[Submitted]) -> list[Submitted]:
        """Return all ``trials``: NNI 2.10.1 does not tell which trials a resumed experiment had."""
        return trials

    def start(self, trial: Submitted) -> None:
        """Submit the model of ``trial`` to NNI."""
        model = self._made.make(trial.architecture)
        file = self._strategy.outcome_file(trial.number)
        model.evaluator = MeasuredEvaluator(model.evaluator, trial.values, file)
        self.add(trial.number, model)
        api.submit_models(model)

    def has_room(self) -> bool:
        """Return whether a worker is free and more trials are allowed."""
        return api.query_available_resources() > 0 and self._trials_left()

    def _has_ended(self) -> bool:
        return manager_status(self._engine.port, self._engine.url_prefix) == "DONE"

    def close(self) -> None:
        """End an experiment that ran fewer trials than its maximum; otherwise NNI waits for the rest."""
        if self._trials_left() and not self._is_over:
            logger.info("the experiment ends after %d trials", self._submitted)
            self._profile["params"]["maxTrialNumber"] = self._submitted
            place = self._engine.port, "/experiment?update_type=MAX_TRIAL_NUM"
            rest.put(*place, self._profile, self._engine.url_prefix)

    def _trials_left(self) -> bool:
        self._profile: dict[str, Any] = rest.get(self._engine.port, "/experiment", self._engine.url_prefix)
        return bool(self._submitted < self._profile["params"].get("maxTrialNumber", math.inf))

    @property
    def _submitted(self) -> int:
        return int(get_advisor().parameters_count)


class MeasuredEvaluator(Evaluator):
    """Wraps an evaluator so that its trials report measures beside their metric; see :mod:`..trial`."""

    def __init__(self, evaluator: Evaluator, values: Mapping[str, float], file: Path | None) -> None:
        self.evaluator, self.values, self.file = evaluator, dict(values), file

    @staticmethod
    def _load(ir: Any) -> MeasuredEvaluator:
        file = None if ir["file"] is None else Path(ir["file"])
        return MeasuredEvaluator(Evaluator._load(ir["evaluator"]), ir["values"], file)

    def _dump(self) -> dict[str, Any]:
        file = None if self.file is None else str(self.file)
        inner = self.evaluator._dump()
        return {"type": self.__class__, "evaluator": inner, "values": self.values, "file": file}

    def _execute(self, model_cls: Any) -> Any:
        evaluate = partial(self.evaluator._execute, model_cls)
        keep = partial(write_outcome, self.file)
        return run_trial(evaluate, _collected, nni.report_final_result, self.values, keep)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeasuredEvaluator) and self._dump() == other._dump()

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def _collected() -> Iterator[Reported]:
    """Hold back all final metrics, however they are reported."""
    platform: Any = nni.trial.platform
    reported: Reported = []
    send = platform.send_metric

    def hold(message: str) -> None:
        metric = nni.load(message)
        if metric["type"] == "FINAL":
            reported.append(nni.load(metric["value"]))
        else:
            send(message)

    platform.send_metric = hold
    try:
        yield reported
    finally:
        platform.send_metric = send


def build_network(make_space: Callable[[], Any], architecture: Mapping[str, Any]) -> Any:
    """Build the network of an architecture as a torch module; arguments and errors as for 3.0."""
    base_model, mutators = extract_mutation_from_pt_module(make_space())
    models = Models(base_model, mutators or [])
    plain = plain_architecture(architecture, {label: tuple(c) for label, c in models.candidates.items()})
    with fixed_arch({label: models.candidates[label][name] for label, name in plain.items()}, verbose=False):
        return make_space()


def try_architecture(
    make_space: Callable[[], Any],
    architecture: Mapping[str, Any],
    evaluator: Any,
    keep: Callable[[Outcome], None],
) -> None:
    """Run an evaluator on an architecture without an experiment; arguments and errors as for 3.0."""
    factory = partial(build_network, make_space, architecture)
    run_trial(partial(evaluator._execute, factory), _collected, lambda metric: None, {}, keep)
