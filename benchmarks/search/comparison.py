"""Does a search that learns find more? Run every strategy on every task, and journal what it tried.

Accuracies are known beforehand, so no search trains anything. A finished search is a record of the journal
``searches.jsonl`` and does not run again. docs/search_comparison.md explains the design.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from nnmeter_nas.costs.table import IntArray
from nnmeter_nas.extras import load_extra
from nnmeter_nas.files import lock_folder, write_bytes
from nnmeter_nas.journal import Journal
from nnmeter_nas.parallel.bulk import spread, workers

from .contestants import CONTESTANTS, Setting
from .judging import Outcome, Tried, judge
from .one_shot import landings
from .tasks import digits_file, make_task, task_names

_JOURNAL = "searches.jsonl"
#: Digits of an index in a record: one character each.
_BASE = 36


class Search(NamedTuple):
    """One search to run: names of the task and the strategy, the seed, and the trials it may run."""

    task: str
    strategy: str
    seed: int
    trials: int


class Plan(NamedTuple):
    """What to compare.

    Attributes:
        topics, devices: of the tasks; see :func:`task_names`.
        strategies: names in :data:`CONTESTANTS`.
        seeds: of the searches of each strategy in each task.
        trials: of each search; a strategy that takes long may stop earlier.
    """

    topics: Sequence[str]
    devices: Sequence[str]
    strategies: Sequence[str]
    seeds: Sequence[int]
    trials: int

    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return task_names(self.topics, self.devices)

    def searches(self) -> list[Search]:
        """All searches, seed by seed."""
        return [
            Search(task, strategy, seed, min(self.trials, CONTESTANTS[strategy].most or self.trials))
            for seed in self.seeds
            for task in self.tasks()
            for strategy in self.strategies
        ]


def run_comparison(
    plan: Plan, work: Path, optuna: Path, jobs: int, console: Console, fresh: bool = False
) -> list[Outcome]:
    """Run the searches of a plan that the folder ``work`` does not have yet, and judge all of them.

    Args:
        plan: what to compare.
        work: keeps finished searches and the trainings on the digits.
        optuna: interpreter of an environment with Optuna.
        jobs: searches at a time.
        console: where to tell what is done.
        fresh: run the searches of the plan again, whatever is kept.

    Raises:
        MissingPackageError: NNI 3.0 or SciPy is not installed, and something in the plan needs it.
        SearchError: a training on the digits fails, Optuna does not run, or another process uses ``work``.
    """
    load_extra("scipy.stats", "bench", "comparing searches")
    if "digits" in plan.topics or any(CONTESTANTS[name].nni3 for name in plan.strategies):
        load_extra("nni.nas.execution.sequential", "nni", "comparing with NNI 3.0's strategies")
    wanted = plan.searches()
    with lock_folder(work, ".lock", "comparison"):
        if "digits" in plan.topics:
            _train_digits(work, console)
        prints = {name: make_task(name, work).fingerprint for name in plan.tasks()}
        if fresh:
            _forget(work / _JOURNAL, wanted)
        with Journal(work / _JOURNAL) as journal:
            known = _known(journal.records, prints)
            missing = [search for search in wanted if not _has(known, search)]
            console.print(f"{len(wanted)} searches, {len(wanted) - len(missing)} of them done before")
            with workers(jobs):
                found = spread(partial(_run, work=work, optuna=optuna), missing, "searches")
                for search, (rows, seconds) in zip(missing, found, strict=True):
                    journal.append(
                        {
                            **search._asdict(),
                            "fingerprint": prints[search.task],
                            "seconds": round(seconds, 3),
                            "rows": ["".join(np.base_repr(i, _BASE) for i in row) for row in rows.tolist()],
                        }
                    )
            known = _known(journal.records, prints)
    tried = {search: _tried(known[search[:3]], search.trials) for search in wanted}
    return [
        judge(
            make_task(name, work),
            {
                strategy: [found for search, found in tried.items() if search[:2] == (name, strategy)]
                for strategy in plan.strategies
            },
            plan.seeds,
            landings(name.split("/")[1], work) if name.startswith("digits/") else {},
        )
        for name in plan.tasks()
    ]


def _train_digits(work: Path, console: Console) -> None:
    """Train the networks of the digits that were not trained yet, and show how far it is."""
    from .digits import trained_accuracies  # late: it needs NNI 3.0

    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("trainings on the digits", total=None)
        trained_accuracies(
            digits_file(work), progress=lambda done, of: bars.update(bar, completed=done, total=of)
        )


def _run(search: Search, work: Path, optuna: Path) -> tuple[IntArray, float]:
    """Run a search; return what it tried, ``[n, positions]``, and the seconds it took."""
    task = make_task(search.task, work)
    setting = Setting(task, task.accuracies(search.seed), search.seed, search.trials, optuna)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI's own, about what is new in its libraries
        rows = CONTESTANTS[search.strategy].search(setting)
    return rows, time.perf_counter() - start


def _known(
    records: Sequence[dict[str, Any]], prints: dict[str, str]
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The newest record of each search whose task is what it was, by task, strategy and seed."""
    return {
        (record["task"], record["strategy"], record["seed"]): record
        for record in records
        if record["fingerprint"] == prints.get(record["task"])
    }


def _has(known: dict[tuple[str, str, int], dict[str, Any]], search: Search) -> bool:
    """Whether a search is done: a search with more trials begins like one with fewer."""
    record = known.get(search[:3])
    return record is not None and record["trials"] >= search.trials


def _tried(record: dict[str, Any], trials: int) -> Tried:
    rows = np.array([[int(index, _BASE) for index in row] for row in record["rows"][:trials]])
    return Tried(record["seed"], rows, trials, record["seconds"] / len(record["rows"]))


def _forget(path: Path, searches: Sequence[Search]) -> None:
    """Take the records of searches out of the journal."""
    if not path.exists():
        return
    again = {search[:3] for search in searches}
    with Journal(path) as journal:
        records = journal.records
    kept = [r for r in records if (r["task"], r["strategy"], r["seed"]) not in again]
    write_bytes(path)
    with Journal(path) as journal:
        for record in kept:
            journal.append(record)
