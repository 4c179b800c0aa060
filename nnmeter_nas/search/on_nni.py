"""Run the trials of a search with NNI, each in a process of its own, on this machine or on others."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..nni import patch
from ..nni.events import Ended
from ..nni.trial import Outcome, write_outcome
from ..supernet.named import make_space
from .evaluators import experiments
from .experiment import Search
from .machines import Machine, fit_machines, places
from .manager_process import contained, free_port
from .recorder import Recorder
from .remote import place_on
from .run_folder import LOGS, TRIALS, RunFolder
from .tunnels import tunnels

#: Number of attempts to start NNI's manager, each on another port.
_STARTS = 4
#: Trials at once on this machine, which does not tell how many it has room for.
_AT_ONCE = 2


def run_on_nni(
    recorder: Recorder, port: int | None, started: Callable[[int], None], told: Callable[[str], None]
) -> None:
    """Run the trials that are left of a search.

    Args:
        recorder: of the search.
        port: port for NNI's web page and REST interface on 127.0.0.1; if it is in use, another one is taken.
        started: called with the manager's port once NNI's manager runs.
        told: called with what the user should know of the machines.

    Raises:
        SearchError: NNI fails, or no machine can run a trial.
    """
    home = os.environ.get("HOME")
    search, folder = recorder.search, recorder.folder
    settings = search.settings
    with contained(folder.path / LOGS, settings.variables) as work:
        if not recorder.begin():
            return
        running = _Running(search, folder, work)
        if settings.training_service == "remote":
            named = [Machine.of(values) for values in settings.machines]
            machines = fit_machines(named, told, int(settings.trial_gpus))
            running = _RunningElsewhere(search, folder, work, machines=machines, told=told)
        recorder.listen(running.complete)
        running.run(home, port, started)


@dataclass
class _Running:
    """A search while NNI, which works in the folder ``work``, runs it.

    Attributes:
        port: port of NNI's manager; None until it runs.
    """

    search: Search
    folder: RunFolder
    work: Path
    port: int | None = None

    def run(self, home: str | None, port: int | None, started: Callable[[int], None]) -> None:
        """Let NNI run the trials that are left, with the home folder ``home``; see :func:`run_on_nni`."""
        from ..nni.launching import launcher_of_search

        patch()
        nni = experiments()
        config = self._config(nni, home)
        strategy = self.search.strategy
        strategy.trials_folder = self.outcomes

        def begun(at: int) -> None:
            self.port = at
            started(at)

        with launcher_of_search(self.work), nni.fresh_nni():
            for attempt in range(_STARTS):
                at = free_port(None if attempt else port)
                module = make_space(self.search.settings.space)
                try:
                    with self.reachable(at):
                        return nni.run(module, self.search.evaluator, strategy, config, at, begun)
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

    def _config(self, nni: Any, home: str | None) -> Any:
        settings = self.search.settings
        config = nni.make_config(settings.engine, self.search.space.input_shape, self.work, Path.cwd())
        config.trial_concurrency = settings.concurrency or _AT_ONCE
        if settings.trials is not None:
            config.max_trial_number = settings.trials - self.folder.ended
        if settings.trial_limit_s is not None:
            config.max_trial_duration = f"{settings.trial_limit_s}s"
        config.experiment_working_directory = str(self.work)
        self.place(config, home)
        return config

    @property
    def outcomes(self) -> Path | None:
        """The folder that trials write their outcomes to."""
        return self.folder.path / TRIALS

    @contextlib.contextmanager
    def reachable(self, port: int) -> Iterator[None]:
        """Let trials reach the manager at ``port``, while entered."""
        yield

    def place(self, config: Any, home: str | None) -> None:
        """Say in NNI's configuration where trials run, and how."""
        config._trial_command_params = {
            "python": shlex.quote(sys.executable),
            "envs": "" if home is None else f"HOME={shlex.quote(home)}",  # not the home of NNI's processes
        }
        config.training_service.use_active_gpu = False

    def complete(self, event: Ended) -> Ended:
        """Return the end of a trial with why it failed: its exception, else what NNI knows."""
        outcome = self.folder.outcome(event.number)
        if not event.failure or (outcome is not None and outcome.failure):
            return event if outcome is None else replace(event, failure=outcome.failure)
        job = self._job(re.escape(f"{TRIALS}/{event.number:04}.json"))
        if job is None:
            return event
        files = self.work.glob(f"**/trials/{job['trialJobId']}/*stderr")
        errors = "".join(file.read_text(errors="replace") for file in files)
        return replace(event, failure=self._why(event, job, errors))

    def _job(self, mark: str) -> dict[str, Any] | None:
        """Ask NNI for the newest trial whose parameters have what the pattern ``mark`` finds."""
        from ..nni.launching import trial_job

        assert self.port is not None
        return trial_job(self.port, mark)

    def _why(self, event: Ended, job: dict[str, Any], errors: str) -> str:
        """Return why a trial failed: the last line of its ``errors``, else NNI's status."""
        lines = [line for line in errors.split("\n") if line.strip()]
        limit = self.search.settings.trial_limit_s
        # NNI 2.10.1 reports that it stopped the trial; 3.0 interrupts the trial and reports it as failed.
        if limit is not None and (job["status"] == "EARLY_STOPPED" or lines[-1:] == ["KeyboardInterrupt"]):
            return f"stopped at the limit of {limit} s"
        return lines[-1] if lines else f"{event.failure} ({job['status'].lower()})"


@dataclass
class _RunningElsewhere(_Running):
    """A search whose trials NNI runs on other machines.

    Attributes:
        machines: the machines.
        told: called with what the user should know of them.
    """

    machines: Sequence[Machine] = ()
    told: Callable[[str], None] = print

    @property
    def outcomes(self) -> None:
        """None: what trials write stays on their machines."""

    @contextlib.contextmanager
    def reachable(self, port: int) -> Iterator[None]:
        """Open the tunnels of the machines to the manager at ``port``."""
        with tunnels(self.machines, port, self.told) as reached:
            if len(reached) < len(self.machines):
                raise OSError("not every machine could open its tunnel")
            yield

    def place(self, config: Any, home: str | None) -> None:
        """Let NNI run trials on the machines, in the folder that it sends there."""
        settings = self.search.settings
        place_on(self.machines, config)
        config.trial_gpu_number = int(settings.trial_gpus)
        if settings.concurrency is None:
            config.trial_concurrency = places(self.machines, int(settings.trial_gpus))

    def complete(self, event: Ended) -> Ended:
        """Return the end of a trial with what NNI knows, and keep that as its outcome."""
        job = self._job(rf"file\W+null\W+number\W+{event.number}\b")  # quotes may be escaped
        seconds = 0.0
        if job is not None:
            ended = job.get("endTime") or time.time() * 1000
            seconds = max(0.0, (ended - (job.get("startTime") or ended)) / 1000)
            if event.failure:
                event = replace(event, failure=self._why(event, job, self._errors(job)))
        file = self.folder.path / TRIALS / f"{event.number:04}.json"
        write_outcome(file, Outcome(event.metric, round(seconds, 3), event.failure))
        return event

    def _errors(self, job: dict[str, Any]) -> str:
        """Fetch what a trial wrote on its standard error; empty if its machine does not answer."""
        from ..nni.launching import trial_errors

        assert self.port is not None
        return trial_errors(self.port, job["trialJobId"])
