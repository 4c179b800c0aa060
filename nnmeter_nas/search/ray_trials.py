"""The trials of a search as tasks of Ray, on the machines of a cluster.

A trial runs in a process of its own. The first thing that it does there is to check what the machine has: one
that lacks something is left out from then on, and the trial goes to another. A trial whose machine dies goes
to another as well; one whose process dies has failed. Each trial has at most one task, so none counts twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SearchError
from ..nni.events import Ended, Submitted
from ..nni.running import MOST_LOSSES, Trials
from ..nni.trial import Outcome
from . import machine

logger = logging.getLogger(__name__)

#: Label of Ray that every machine has.
_NODE = "ray.io/node-id"


@dataclass(frozen=True)
class Needs:
    """What a trial takes of a machine, as Ray counts it.

    Attributes:
        cpus, gpus: how many, or a part of one.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def are_met_by(self, resources: Mapping[str, float]) -> bool:
        """Return whether a machine with these ``resources`` is large enough."""
        return resources.get("CPU", 0.0) >= self.cpus and resources.get("GPU", 0.0) >= self.gpus

    def places(self, resources: Mapping[str, float]) -> int:
        """Return how many trials fit on a machine with these ``resources`` at once."""
        shares = [resources.get(name, 0.0) / much
                  for name, much in (("CPU", self.cpus), ("GPU", self.gpus)) if much]  # fmt: skip
        return int(min(shares, default=1.0) + 1e-9)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass
class _Task:
    """A trial that has started.

    Attributes:
        trial: the trial.
        results: Ray's generator of what the trial sends.
        node, host: Ray's number and the name of the machine that it runs on; empty while it waits for one.
        since: when it began there, in seconds of ``time.monotonic``.
        deaths: how many machines have died with it.
    """

    trial: Submitted
    results: Any
    node: str = ""
    host: str = ""
    since: float = 0.0
    deaths: int = 0


class RayTrials(Trials):
    """Trials on the cluster that ``ray`` is connected to.

    Args:
        ray: the module.
        make_task: returns what :func:`.distant.run_task` takes, for a trial.
        modules: modules that every machine must be able to import.
        needs: what a trial takes of a machine.
        most: trials that may start; None means without limit.
        concurrency: trials at once; None means as many as the machines have room for.
        limit_s: seconds after which a trial is stopped; None means no limit.
        keep: called with a trial's number, its outcome, and where it failed, before its end is told.
        tell: called with what the user should know of the machines.

    Raises:
        SearchError: no machine of the cluster is large enough for a trial.
    """

    def __init__(
        self,
        ray: Any,
        make_task: Callable[[Submitted], Mapping[str, Any]],
        modules: list[str],
        needs: Needs,
        *,
        most: int | None,
        concurrency: int | None,
        limit_s: float | None,
        keep: Callable[[int, Outcome, str], None],
        tell: Callable[[str], None] = logger.warning,
    ) -> None:
        self._ray, self._make_task, self._modules, self._needs = ray, make_task, modules, needs
        self._left, self._concurrency, self._limit_s = most, concurrency, limit_s
        self._keep, self._tell = keep, tell
        self._running: dict[int, _Task] = {}
        self._unfit: dict[str, str] = {}  # Ray's number of a machine -> what it lacks
        self._here = machine.facts()
        self._has_machines = True
        # The machine may lack this package, or have another one of it.
        ray.cloudpickle.register_pickle_by_value(machine)
        # Each trial has a process of its own. Ray itself must not repeat a trial: it cannot tell one that
        # kills its process from a dead machine.
        self._remote = ray.remote(num_returns="streaming", max_retries=0, max_calls=1)(machine.attempt)
        if not self._machines():
            raise SearchError(
                f"no machine of the cluster has {needs} for a trial; let one join, or ask for less "
                f"with trial_cpus and trial_gpus"
            )

    def take_up(self, trials: list[Submitted]) -> list[Submitted]:
        """Return all ``trials``: Ray ends the tasks of a search with its process."""
        return trials

    def start(self, trial: Submitted) -> None:
        """Make ``trial`` a task."""
        if self._left is not None:
            self._left -= 1
        self._running[trial.number] = _Task(trial, self._submit(trial))

    def has_room(self) -> bool:
        """Return whether more trials may start, and fewer run than may at once."""
        if self._left == 0:
            return False
        most = self._concurrency
        if most is None:
            most = sum(self._needs.places(node["Resources"]) for node in self._machines())
        return len(self._running) < most

    def are_over(self) -> bool:
        """Return whether no more trials may start and none runs."""
        return self._left == 0 and not self._running

    def are_running(self) -> bool:
        """Return whether any trial has started and not ended."""
        return bool(self._running)

    def ended(self) -> list[Ended]:
        """Return the trials that ended since the last call, and give trials of dead machines to others."""
        if self._running:
            self._watch_machines()
        ends = [end for _, task in sorted(self._running.items()) if (end := self._end(task))]
        for end in ends:
            del self._running[end.number]
        return ends

    def _submit(self, trial: Submitted) -> Any:
        options: dict[str, Any] = {"num_cpus": self._needs.cpus, "num_gpus": self._needs.gpus}
        if self._unfit:
            options["label_selector"] = {_NODE: f"!in({','.join(self._unfit)})"}
        task = dict(self._make_task(trial))
        named = self._remote.options(**options, name=f"trial {trial.number}")
        return named.remote(self._here, self._modules, task)

    def _end(self, task: _Task) -> Ended | None:
        """Take what the trial has sent; return its end, or None if it goes on."""
        errors = self._ray.exceptions
        number = task.trial.number
        while self._ray.wait([task.results], timeout=0)[0]:
            try:
                kind, value = self._ray.get(next(task.results))
            except StopIteration:
                return self._failed(task, "its task ended without an outcome")
            except errors.NodeDiedError:
                return self._give_back(task)
            except errors.RayTaskError as error:  # our own code on the machine has failed
                return self._failed(task, str(error).strip().splitlines()[-1])
            except errors.RayError as error:
                return self._failed(task, f"its process died ({type(error).__name__})")
            if kind == "node":
                task.node, task.host, task.since = value, self._host(value), time.monotonic()
                logger.info("trial %d runs on %s", number, task.host)
            elif kind == "lacks":
                self._leave_out(task, value)
                return None
            else:
                trace = value.pop("trace")
                outcome = Outcome(**value)
                self._keep(number, outcome, trace)
                return Ended(number, outcome.metric, outcome.failure)
        if self._limit_s is not None and task.node and time.monotonic() - task.since > self._limit_s:
            self._ray.cancel(task.results, force=True)
            return self._failed(task, f"stopped at the limit of {self._limit_s:g} s")
        return None

    def _failed(self, task: _Task, why: str) -> Ended:
        seconds = time.monotonic() - task.since if task.node else 0.0
        self._keep(task.trial.number, Outcome(None, round(seconds, 3), why), "")
        return Ended(task.trial.number, None, why)

    def _give_back(self, task: _Task) -> Ended | None:
        """Start the trial again elsewhere, unless too many machines have died with it."""
        if task.node:  # else it had not begun there
            task.deaths += 1
            if task.deaths > MOST_LOSSES:
                return self._failed(task, f"{task.deaths} machines died with it")
            self._tell(f"trial {task.trial.number} runs again: the machine {task.host} died")
        self._again(task)
        return None

    def _leave_out(self, task: _Task, reasons: list[str]) -> None:
        """Run no trials on the machine of ``task`` from now on, and start the trial again elsewhere."""
        if task.node not in self._unfit:
            self._unfit[task.node] = f"{task.host}: {'; '.join(reasons)}"
            self._tell(f"the machine {task.host} is left out: {'; '.join(reasons)}")
        if not self._machines():
            raise SearchError(
                f"no machine of the cluster can run a trial: {' / '.join(self._unfit.values())}; install "
                f"there what is missing, and resume the search"
            )
        self._again(task)

    def _again(self, task: _Task) -> None:
        task.results, task.node, task.host = self._submit(task.trial), "", ""

    def _machines(self) -> list[dict[str, Any]]:
        """Return the machines that can run a trial, as Ray describes them."""
        return [
            node for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._unfit
            and self._needs.are_met_by(node["Resources"])
        ]  # fmt: skip

    def _host(self, number: str) -> str:
        """Return name and address of the machine with Ray's ``number``."""
        node = next(node for node in self._ray.nodes() if node["NodeID"] == number)
        return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"

    def _watch_machines(self) -> None:
        """Tell the user when no machine is left that could run a trial, and when there is one again."""
        has = bool(self._machines())
        if has != self._has_machines:
            self._has_machines = has
            self._tell("a machine has joined, and the search goes on" if has else
                       f"no machine of the cluster is left that has {self._needs} for a trial; the search "
                       f"waits for one to join")  # fmt: skip
