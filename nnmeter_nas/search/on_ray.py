"""Run the trials of a search with Ray, on the machines of a cluster or in processes of this one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..files import write_bytes
from ..nni.events import Submitted
from ..nni.manager_scripts import environment_with
from ..nni.trial import Outcome, write_outcome
from ..parallel.ray_cluster import ray_cluster
from .manager_process import end_leftovers, orderly_signals
from .ray_trials import Needs, RayTrials
from .recorder import Recorder
from .run_folder import LOGS, TRIALS, RunFolder, Settings

#: What is not sent to the machines, beside what .gitignore and .rayignore name.
_NOT_CODE = [".git", "__pycache__", ".venv*", "venv"]


def run_on_ray(recorder: Recorder, told: Callable[[str], None]) -> None:
    """Run the trials that are left of a search.

    With an address, the folder of the search's modules goes to each machine of the cluster, and its trials
    run in a copy of it. Without one, a cluster is started on this machine, and trials run in the folder.

    Args:
        recorder: of the search.
        told: called with what the user should know of the machines.

    Raises:
        SearchError: no machine can run a trial.
        WorkerError: no cluster answers at the address, or none can be started.
    """
    search, folder = recorder.search, recorder.folder
    settings = search.settings
    end_leftovers(folder.path / LOGS)
    if not recorder.begin():
        return
    needs = Needs(settings.trial_cpus, settings.trial_gpus)
    cpus = math.ceil((settings.concurrency or 1) * needs.cpus)
    with (
        environment_with(settings.variables),
        ray_cluster(cpus, settings.address, "training_service=ray", **_code(settings, folder)) as ray,
        orderly_signals() as ignore_signals,
    ):
        try:
            search.strategy.search(_trials(ray, recorder, needs, told))
        finally:
            ignore_signals()  # nothing may interrupt the clean-up
            ray.shutdown()


def _trials(ray: Any, recorder: Recorder, needs: Needs, told: Callable[[str], None]) -> RayTrials:
    search, folder = recorder.search, recorder.folder
    settings = search.settings

    def task(trial: Submitted) -> dict[str, Any]:
        return {
            "space": settings.space,
            "architecture": dict(trial.architecture),
            "evaluator": settings.evaluator,
            "arguments": dict(settings.arguments),
            "input_shape": list(search.space.input_shape),
        }

    def keep(number: int, outcome: Outcome, trace: str) -> None:
        if trace:
            write_bytes(folder.path / TRIALS / f"{number:04}.txt", trace.encode())
        write_outcome(folder.path / TRIALS / f"{number:04}.json", outcome)

    recorder.listen()
    named = [name.partition(":")[0] for name in (settings.space, settings.evaluator) if ":" in name]
    return RayTrials(
        ray, task, named, needs,
        most=None if settings.trials is None else settings.trials - folder.ended,
        concurrency=settings.concurrency, limit_s=settings.trial_limit_s, keep=keep, tell=told,
    )  # fmt: skip


def _code(settings: Settings, folder: RunFolder) -> dict[str, Any]:
    """Return what tells Ray to send the user's modules to the machines of a cluster."""
    if settings.address is None:
        return {}
    excluded = list(_NOT_CODE)
    if folder.path.is_relative_to(settings.folder):
        excluded.append(f"/{folder.path.relative_to(settings.folder)}")
    return {"runtime_env": {"working_dir": settings.folder, "excludes": excluded}}
