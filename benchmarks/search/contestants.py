"""The strategies of the comparison: ours and the rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.strategies import LatencyStrategy, LearnedPareto, ParetoEvolution

from .nni_log import quiet
from .optuna_rivals import OptunaSampler
from .samplers import search_with
from .tasks import Accuracies, Task


@dataclass(frozen=True)
class Setting:
    """One search of a task: the accuracies of its seed, the trials it may run, Optuna's interpreter."""

    task: Task
    known: Accuracies
    seed: int
    trials: int
    optuna: Path


@dataclass(frozen=True)
class Contestant:
    """A strategy of the comparison.

    Attributes:
        title: its name in reports.
        search: returns the architectures it tries, in order, ``[n, positions]``.
        nni3: whether it needs NNI 3.0.
        most: trials after which it stops, where more would take too long.
    """

    title: str
    search: Callable[[Setting], IntArray]
    nni3: bool = False
    most: int | None = None


def _ours(make: Callable[..., LatencyStrategy], setting: Setting) -> IntArray:
    """Trials of one of our strategies, one at a time as in NNI's engine."""
    task = setting.task
    strategy = make(predictor=task.latency.table, seed=setting.seed)
    strategy.begin(strategy.make_problem(task.space))
    rows: list[IntArray] = []
    while len(rows) < setting.trials and (row := strategy.ask()) is not None:
        strategy.tell(row, float(setting.known.reported(row[None])[0]))
        rows.append(row)
    return np.array(rows)


def _nni(name: str, arguments: Mapping[str, Any], setting: Setting) -> IntArray:
    """Trials of one of NNI's strategies behind the filter, in NNI's engine."""
    from nni.nas import strategy

    from .nni_rivals import search

    task = setting.task

    def row(sample: Mapping[str, Any]) -> IntArray:
        chosen = [candidates.index(str(sample[label])) for label, candidates in task.space.candidates.items()]
        return np.array([chosen])

    samples = search(
        getattr(strategy, name)(seed=setting.seed, **arguments),
        task.nni_space,
        task.slowest,
        lambda sample: float(task.latency.values(row(sample))[0]),
        lambda sample: float(setting.known.reported(row(sample))[0]),
        setting.trials,
    )
    return np.concatenate([row(sample) for sample in samples])


def _nni_tpe(setting: Setting) -> IntArray:
    from .nni_tpe import TpeSampler

    with quiet():
        sampler = TpeSampler(setting.task.problem.sizes, setting.seed)
        return search_with(sampler, setting.task, setting.known, setting.trials, setting.seed)


def _optuna(name: str, setting: Setting) -> IntArray:
    with OptunaSampler(setting.optuna, name, setting.task.problem.sizes, setting.seed) as sampler:
        return search_with(sampler, setting.task, setting.known, setting.trials, setting.seed)


#: With NNI's default population of 100, the first 100 trials would be those of its Random.
_EVOLUTION = {"population_size": 20, "sample_size": 5, "mutation_prob": 0.2}
#: The strategy that is compared with all others.
JUDGED = "learned"
#: Strategies by their name in the command.
CONTESTANTS: Mapping[str, Contestant] = {
    JUDGED: Contestant("LearnedPareto", partial(_ours, LearnedPareto)),
    "pareto": Contestant("ParetoEvolution", partial(_ours, ParetoEvolution)),
    "random": Contestant("NNI Random + LatencyFilter", partial(_nni, "Random", {}), nni3=True),
    "evolution": Contestant(
        "NNI RegularizedEvolution + LatencyFilter",
        partial(_nni, "RegularizedEvolution", _EVOLUTION),
        nni3=True,
    ),
    "nni-tpe": Contestant("NNI TPE", _nni_tpe),
    "optuna-nsga2": Contestant("Optuna NSGAIISampler", partial(_optuna, "NSGAIISampler")),
    "optuna-tpe": Contestant("Optuna TPESampler", partial(_optuna, "TPESampler")),
    "optuna-gp": Contestant("Optuna GPSampler", partial(_optuna, "GPSampler"), most=50),
}
