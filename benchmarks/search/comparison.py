"""Do latency-ranked strategies find more than rivals that filter? Compare hypervolume at equal budget.

Every strategy searches the same tasks with the same seeds. A task is a space, a device, a latency limit and a
number of trials. Accuracies are synthetic or come from earlier trainings, so no search trains anything. NNI's
strategies run in NNI's engine behind a latency filter. docs/search_comparison.md explains the design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs import measures
from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import every_architecture
from nnmeter_nas.extras import load_extra
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.predictor import LatencyPredictor
from nnmeter_nas.solve.ranking import latency_reach
from nnmeter_nas.strategies import (
    LatencyConstrainedRandom,
    LatencyRanked,
    LatencyStrategy,
    ParetoEvolution,
    Problem,
)
from nnmeter_nas.supernet.named import make_space
from nnmeter_nas.supernet.nni_space import space_of
from nnmeter_nas.supernet.space import Space

from .accuracy import TOP, SyntheticAccuracy
from .statistics import Comparison, compare, hypervolume, hypervolumes

IndexArray = npt.NDArray[np.intp]
Row = tuple[int, ...]

#: Share of the space's architectures that meet the latency limit.
_LIMIT_QUANTILE = 0.3
#: Share of the space's architectures whose accuracy is below the reference point's.
_FLOOR_QUANTILE = 0.1
#: Number of random architectures that give the quantiles of a larger space.
SAMPLED = 20_000

RANDOM = "Random + LatencyFilter"
EVOLUTION = "RegularizedEvolution + LatencyFilter"
#: Our strategies, with their default parameters.
OURS: Mapping[str, Callable[[float, int], LatencyStrategy]] = {
    "ParetoEvolution": lambda limit, seed: ParetoEvolution(max_latency=limit, seed=seed),
    "LatencyRanked, ascending": lambda limit, seed: LatencyRanked(max_latency=limit, seed=seed),
    "LatencyRanked, closest": lambda limit, seed: LatencyRanked(
        max_latency=limit, order="closest", seed=seed
    ),
    "LatencyConstrainedRandom": lambda limit, seed: LatencyConstrainedRandom(max_latency=limit, seed=seed),
}


class Accuracies(Protocol):
    """Accuracies of architectures."""

    def accuracies(self, rows: IndexArray) -> FloatArray:
        """Accuracy by which searches are judged, ``[N, positions] -> [N]``."""
        ...

    def reported(self, rows: IndexArray) -> FloatArray:
        """Accuracy that trials report, ``[N, positions] -> [N]``."""
        ...


@dataclass(frozen=True)
class TableAccuracy:
    """Accuracies of earlier trainings; trials report the same numbers."""

    by_row: Mapping[Row, float]

    def accuracies(self, rows: IndexArray) -> FloatArray:
        """See :class:`Accuracies`."""
        return np.array([self.by_row[tuple(row)] for row in rows.tolist()])

    reported = accuracies


@dataclass(frozen=True)
class Task:
    """One task that every strategy searches.

    Attributes:
        name, title: its name in the command, and in reports.
        nni_space, space: the space as an NNI object, and as data.
        latency, limit, fastest: of its architectures, of what trials may take, and of the fastest; in ms.
        trials: number of trials each search may run.
        ceiling: upper bound of the accuracy.
        accuracy: returns the accuracies for a seed.
    """

    name: str
    title: str
    nni_space: Any
    space: Space
    latency: Measure
    limit: float
    fastest: float
    trials: int
    ceiling: float
    accuracy: Callable[[int], Accuracies]


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        rows: the architectures tried, in order, ``[n, positions]``; n may be less than the trials allowed.
        latency: in ms, ``[n]``.
        accuracy: without the noise of trials, ``[n]``.
        hypervolume: after each allowed trial, ``[trials]``; as a share of the box from the reference point
            to the fastest latency and the highest accuracy.
    """

    strategy: str
    seed: int
    rows: IndexArray
    latency: FloatArray
    accuracy: FloatArray
    hypervolume: FloatArray


@dataclass(frozen=True)
class Outcome:
    """The result of a task.

    Attributes:
        floors: accuracy of the reference point, by seed.
        reachable: hypervolume of all architectures together, by seed; of a random sample if the space is
            large.
        runs: runs by strategy, in the order of seeds.
        evolution: name of the best RegularizedEvolution, which represents them all.
        comparisons: our strategies against the rivals.
    """

    task: Task
    floors: Mapping[int, float]
    reachable: Mapping[int, float]
    runs: Mapping[str, Sequence[Run]]
    evolution: str
    comparisons: Sequence[Comparison] = field(default=())


def run_comparison(
    device: str, names: Sequence[str], seeds: Sequence[int], work: Path, console: Console
) -> list[Outcome]:
    """Run all searches of the tasks ``names``, from :data:`TASKS`, on a device.

    The folder ``work`` stores the trainings on the digits, to resume.

    Raises:
        MissingPackageError: NNI 3.0 or SciPy is not installed.
        SearchError: a training on the digits fails.
    """
    load_extra("nni.nas.execution.sequential", "nni", "comparing with NNI 3.0's strategies")
    load_extra("scipy.stats", "bench", "comparing searches")
    predictor = load_latency_predictor(device)
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        for name in names:
            task = TASKS[name](predictor, work, bars)
            outcomes.append(run_task(task, seeds, bars))
    return outcomes


def run_task(task: Task, seeds: Sequence[int], bars: Progress | None = None) -> Outcome:
    """Run all searches of a task and compare them."""
    from nni.nas.strategy import Random, RegularizedEvolution

    from .nni_rivals import EVOLUTIONS

    evolutions = {
        f"RegularizedEvolution {setting}": partial(RegularizedEvolution, **arguments)
        for setting, arguments in EVOLUTIONS.items()
    }
    searches: dict[str, Callable[[int, Accuracies], IndexArray]] = {
        **{name: partial(_nni_search, task, make)
           for name, make in {RANDOM: Random, **evolutions}.items()},
        **{name: partial(_our_search, task, make) for name, make in OURS.items()},
    }  # fmt: skip
    runs: dict[str, list[Run]] = {name: [] for name in searches}
    floors, reachable = {}, {}
    everything = _architectures(task.space)
    bar = bars.add_task(f"searches, {task.title}", total=len(seeds) * len(searches)) if bars else None
    for seed in seeds:
        known = task.accuracy(seed)
        floors[seed] = float(np.quantile(known.accuracies(everything), _FLOOR_QUANTILE))
        ms, accuracy = task.latency.values(everything), known.accuracies(everything)
        reachable[seed] = hypervolume(ms, accuracy, task.limit, floors[seed]) / _box(task, floors[seed])
        for name, search in searches.items():
            runs[name].append(_run(task, name, seed, search(seed, known), known, floors[seed]))
            if bars is not None and bar is not None:
                bars.advance(bar)
    final = {name: [float(run.hypervolume[-1]) for run in found] for name, found in runs.items()}
    best = max(evolutions, key=lambda name: float(np.mean(final[name])))
    final[EVOLUTION] = final[best]
    return Outcome(task, floors, reachable, runs, best, compare(final, list(OURS), [RANDOM, EVOLUTION]))


def _run(task: Task, name: str, seed: int, rows: IndexArray, known: Accuracies, floor: float) -> Run:
    latency, accuracy = task.latency.values(rows), known.accuracies(rows)
    found = hypervolumes(latency, accuracy, task.limit, floor) / _box(task, floor)
    missing = task.trials - len(found)
    return Run(name, seed, rows, latency, accuracy, np.pad(found, (0, missing), mode="edge"))


def _box(task: Task, floor: float) -> float:
    """The hypervolume of an architecture with the fastest latency and the highest accuracy."""
    return (task.limit - task.fastest) * (task.ceiling - floor)


def _our_search(
    task: Task, make: Callable[[float, int], LatencyStrategy], seed: int, known: Accuracies
) -> IndexArray:
    """Trials of one of our strategies, one at a time as in NNI's engine, ``[n, positions]``."""
    strategy = make(task.limit, seed)
    strategy.begin(Problem(task.space.candidates, {"latency_ms": task.latency}, {"latency_ms": task.limit}))
    rows: list[IndexArray] = []
    while len(rows) < task.trials and (row := strategy.ask()) is not None:
        strategy.tell(row, float(known.reported(row[None])[0]))
        rows.append(row)
    return np.array(rows)


def _nni_search(task: Task, make: Callable[..., Any], seed: int, known: Accuracies) -> IndexArray:
    """Trials of one of NNI's strategies, ``[n, positions]``."""
    from .nni_rivals import search

    def row(sample: Mapping[str, Any]) -> IndexArray:
        chosen = [candidates.index(str(sample[label])) for label, candidates in task.space.candidates.items()]
        return np.array([chosen])

    samples = search(
        make(seed=seed),
        task.nni_space,
        task.limit,
        lambda sample: float(task.latency.values(row(sample))[0]),
        lambda sample: float(known.reported(row(sample))[0]),
        task.trials,
    )
    return np.concatenate([row(sample) for sample in samples])


def _architectures(space: Space) -> IndexArray:
    """All architectures of a space, or a random sample if it is large, ``[N, positions]``."""
    sizes = [len(known) for known in space.candidates.values()]
    if np.prod(sizes, dtype=float) <= SAMPLED:
        return every_architecture(sizes)
    return np.random.default_rng(0).integers(sizes, size=(SAMPLED, len(sizes)))


def _task(name: str, title: str, nni_space: Any, predictor: LatencyPredictor, trials: int, ceiling: float,
          accuracy: Callable[[Space], Callable[[int], Accuracies]]) -> Task:  # fmt: skip
    space = space_of(nni_space)
    latency = measures.latency(space, predictor)
    ms = latency.values(_architectures(space))
    limit = float(np.quantile(ms, _LIMIT_QUANTILE))
    fastest = float(ms.min())
    if latency.table is not None and len(ms) == SAMPLED:  # drawn from a larger space
        fastest, _ = latency_reach(latency.table)
    return Task(name, title, nni_space, space, latency, limit, fastest, trials, ceiling, accuracy(space))


def _synthetic(name: str, title: str, trials: int, works: Callable[[Space, IndexArray], Any] | None,
               predictor: LatencyPredictor, work: Path, bars: Progress) -> Task:  # fmt: skip
    def accuracy(space: Space) -> Callable[[int], Accuracies]:
        flops = measures.flops(space).values
        names = list(space.candidates.values())
        return lambda seed: SyntheticAccuracy(names, flops, seed, works and partial(works, space))

    return _task(name, title, make_space(name), predictor, trials, TOP, accuracy)


def _digits(predictor: LatencyPredictor, work: Path, bars: Progress) -> Task:
    from .digits import digits_space, trained_accuracies

    bar = bars.add_task("trainings on the digits", total=None)
    trained = trained_accuracies(
        work / "digits.jsonl", progress=lambda done, of: bars.update(bar, completed=done, total=of)
    )

    def accuracy(space: Space) -> Callable[[int], Accuracies]:
        known = list(space.candidates.values())
        rows = {
            tuple(k.index(b) for k, b in zip(known, blocks, strict=True)): a for blocks, a in trained.items()
        }
        return lambda seed: TableAccuracy(rows)

    title = "digits, real training"
    return _task("digits", title, digits_space(), predictor, 50, max(trained.values()), accuracy)


def reaches_output(space: Space, rows: IndexArray) -> npt.NDArray[np.bool_]:
    """Whether the output of a NAS-Bench-201 cell depends on its input, ``[N, 6] -> [N]``.

    Labels are ``edge_<from>_<to>``; the candidate ``none`` passes nothing on.
    """
    reached = {0: np.ones(len(rows), dtype=bool)}
    edges = [tuple(map(int, label.split("_")[1:])) for label in space.candidates]
    for position, (source, target) in sorted(enumerate(edges), key=lambda edge: edge[1][1]):
        passes = rows[:, position] != list(space.candidates.values())[position].index("none")
        reached[target] = reached.get(target, False) | (reached[source] & passes)
    return reached[max(reached)]


#: Makes each task, by name.
TASKS: Mapping[str, Callable[[LatencyPredictor, Path, Progress], Task]] = {
    "nasbench201": partial(
        _synthetic, "nasbench201-small", "NAS-Bench-201, synthetic accuracy", 100, reaches_output
    ),
    "spos": partial(_synthetic, "spos", "SPOS, synthetic accuracy", 100, None),
    "digits": _digits,
}
