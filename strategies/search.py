"""Run a multi-trial NNI 2.10.1 experiment to its end and say what became of each candidate.

NNI chooses candidates, filters them and trains each in a process of its own; this module starts the
experiment, follows it, collects the outcome and stops it, whatever happens.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nni.experiment import RunMode, launcher, rest
from nni.nas.execution import api, get_execution_engine, list_models
from nni.nas.execution.common import AbstractGraphListener, ModelStatus, integration_api
from nni.nas.experiment.config.engine_config import BaseEngineConfig, PyEngineConfig
from nni.nas.experiment.pytorch import RetiariiExeConfig, RetiariiExperiment
from nni.nas.nn.pytorch.mutator import extract_mutation_from_pt_module
from nni.nas.strategy.utils import dry_run_for_formatted_search_space
from nni.retiarii import fixed_arch
from nni.runtime.log import silence_stdout

from nnmeter_nas.errors import SearchError
from nnmeter_nas.report import Trial

from .manager_process import contained, free_port
from .nni_lines import mend_nni, sample_of

#: Builds a space, or under ``fixed_arch`` one network of it.
Build = Callable[[], Any]
#: Latency (ms) of the candidate with the given choices (block by label).
Price = Callable[[dict[str, str]], float]
#: Told after each trial: how many have ended so far, how many of them failed.
Progress = Callable[[int, int], None]

#: Attempts to start NNI's manager, each on another port.
STARTS = 4
#: Seconds a final metric may come in after the end of its trial.
METRIC_GRACE_S = 5.0


def choices_of(build: Build) -> dict[str, list[str]]:
    """The candidates of each choice of a space, by label, in the space's order."""
    model, mutators = extract_mutation_from_pt_module(build())
    found = dry_run_for_formatted_search_space(model, mutators)
    return {label: list(choice["_value"]) for label, choice in found.items()}


def build_network(build: Build, choices: dict[str, str]) -> Any:
    """The network of a space that ``choices`` (block by label) stands for, as a torch module."""
    with fixed_arch(choices, verbose=False):
        return build()


def sample_latencies(build: Build, price: Price, count: int, seed: int = 0) -> list[float]:
    """Latencies (ms) of ``count`` random candidates of a space, drawn with ``seed``."""
    draw, space = random.Random(seed), choices_of(build)
    return [price({label: draw.choice(blocks) for label, blocks in space.items()}) for _ in range(count)]


def run_search(
    build: Build,
    strategy: Any,
    evaluator: Any,
    price: Price,
    logs: Path,
    trials: int = 12,
    concurrency: int = 2,
    engine: Literal["py", "graph"] = "py",
    input_shape: Sequence[int] = (1, 3, 32, 32),
    trial_limit_s: int = 1800,
    port: int | None = None,
    seed: int = 0,
    started: Callable[[int], None] = lambda port: None,
    progress: Progress = lambda ended, failed: None,
) -> tuple[list[Trial], str]:
    """Run ``strategy`` on a space until ``trials`` candidates are trained, each in an NNI trial.

    Candidates depend on ``seed`` alone, not on which trial ends first, unless the strategy learns from
    accuracies. A failed trial does not end the search.

    Args:
        build: the search space.
        strategy: an NNI strategy, usually ``Random(model_filter=LatencyFilter(...))``.
        evaluator: what a trial runs; its final metric is the accuracy.
        price: latency of a candidate, for the outcome; that of the filter is ``LatencyFilter.latency_of``.
        logs: folder that NNI's own logs and records are moved into.
        trials: candidates to train.
        concurrency: trials that run at once.
        engine: "py" builds candidates from Python, "graph" from NNI's graph of the space.
        input_shape: NCHW, which the graph engine traces the space with.
        trial_limit_s: seconds after which a trial is stopped and counts as failed.
        port: for NNI's web page and REST interface, on 127.0.0.1; another is taken if it is in use.
        seed: of the choice of candidates.
        started: called once NNI's manager runs, with its port.
        progress: called from another thread whenever a trial ends.

    Returns:
        The trials in their order, and why the search ended before all ran (empty if they did).

    Raises:
        SearchError: no candidate meets the filter's limit, or NNI fails.
    """
    silence_stdout()
    mend_nni()
    random.seed(seed)  # the source that NNI's strategies draw from
    with contained(logs) as work, _nni_settings(work):
        code = work / "code"  # where trials run, and the graph engine writes candidates
        code.mkdir()
        config = RetiariiExeConfig("local")
        config.execution_engine = (
            BaseEngineConfig(dummy_input=list(input_shape)) if engine == "graph" else PyEngineConfig()
        )
        config.trial_concurrency = concurrency
        config.max_trial_number = trials
        config.max_trial_duration = f"{trial_limit_s}s"
        config.experiment_working_directory = str(work)
        config.trial_code_directory = str(code)
        config._trial_command_params = {"python": shlex.quote(sys.executable)}
        config.training_service.use_active_gpu = False
        for attempt in range(STARTS):
            experiment = _Experiment(build(), evaluator, [], strategy)
            experiment.started, experiment.progress = started, progress
            try:
                experiment.run(config, free_port(None if attempt else port))
                return experiment.outcome(work, price)
            except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
                if experiment.port is not None:
                    raise SearchError(f"NNI stopped working ({error}); its logs are in {logs}") from error
                failure = error  # it never started: somebody took the port in between, or it was too slow
            finally:
                experiment.end()
        raise SearchError(f"NNI's manager did not start in {STARTS} attempts, each on another port; the last "
                          f"failed with: {failure}; its logs are in {logs}") from failure


@contextlib.contextmanager
def _nni_settings(work: Path) -> Iterator[None]:
    """What NNI's launcher has no arguments for; afterwards NNI is as if no experiment had run.

    The manager gets 30 s to answer instead of 3, since its first start from a cold disk takes longer; what it
    prints goes to its logs, as it does for a detached one; the list of experiments is kept in ``work``.
    """
    before = launcher._check_rest_server, launcher._start_rest_server, launcher.Experiments
    check, start, experiments = before
    launcher._check_rest_server = functools.partial(check, retry=30)
    launcher._start_rest_server = lambda arguments, mode: start(arguments, RunMode.Detach)
    launcher.Experiments = functools.partial(experiments, home_dir=str(work / "nni-experiments"))
    try:
        yield
    finally:
        launcher._check_rest_server, launcher._start_rest_server, launcher.Experiments = before
        api._execution_engine = api._default_listener = integration_api._advisor = None


class _Experiment(RetiariiExperiment):
    """NNI's experiment, with an end in every case and an outcome for every trial."""

    started: Callable[[int], None]
    progress: Progress
    note = ""
    _proc: Any

    def outcome(self, work: Path, price: Price) -> tuple[list[Trial], str]:
        """All trials that NNI started, and why there are no more of them."""
        jobs = {json.loads(job["hyperParameters"][0])["parameter_id"]: job
                for job in rest.get(self.port, "/trial-jobs")}
        # Strategies submit ahead; what NNI did not start any more is left out.
        submitted = get_execution_engine()._running_models.items()
        models = [(key, model) for key, model in submitted if key in jobs]
        deadline = time.monotonic() + METRIC_GRACE_S
        while any(not _settled(model) for _, model in models) and time.monotonic() < deadline:
            time.sleep(0.1)
        trials = []
        for number, (key, model) in enumerate(models, 1):
            job, choices = jobs[key], sample_of(model)
            accuracy = model.metric if model.status == ModelStatus.Trained else None
            seconds = (job["endTime"] - job["startTime"]) / 1000 if job.get("endTime") else None
            failure = "" if accuracy is not None else _failure(job, work / self.id / "trials")
            trials.append(Trial(number, choices, price(choices), accuracy, seconds, failure))
        if len(trials) < self.config.max_trial_number and not self.note:
            self.note = "the strategy had no further candidates"
        return trials, self.note

    def end(self) -> None:
        """Stop NNI's manager if it is still there; NNI would ask a dead one to stop, and complain."""
        if self._proc is not None and self._proc.poll() is not None:
            self._proc = None
        self.stop()

    def _create_execution_engine(self, config: Any) -> None:
        super()._create_execution_engine(config)
        engine = get_execution_engine()
        engine.budget_exhausted = self._is_done
        engine.register_graph_listener(_Counter(self.progress))
        self.started(self.port)

    def _is_done(self) -> bool:
        """Whether all trials have ended; strategies ask while they wait for a free place.

        Raises:
            SearchError: NNI's manager has given up; NNI's own check would wait for ever.
        """
        state = rest.get(self.port, "/check-status")
        if state["status"] == "ERROR":
            raise SearchError(f"NNI's manager failed: {'; '.join(state['errors']) or 'no reason given'}")
        return bool(state["status"] == "DONE")

    def _run_strategy(self, base_model_ir: Any, applied_mutators: Any) -> None:
        """Let the strategy submit candidates; if it gives up after some, these are still worth having."""
        try:
            super()._run_strategy(base_model_ir, applied_mutators)
        except SearchError as error:
            if not list_models():
                raise
            self.note = str(error)

    def _wait_completion(self) -> bool:
        """Wait for the trials that were submitted; NNI's own waits for the number that was asked for."""
        while not (self._is_done() or all(api.is_stopped_exec(model) for model in list_models())):
            time.sleep(0.5)
        return True


class _Counter(AbstractGraphListener):
    """Passes on how many trials have ended and how many of them failed."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.ended, self.failed = progress, 0, 0

    def on_metric(self, model: Any, metric: Any) -> None:
        """Nothing: the engine keeps the metrics."""

    on_intermediate_metric = on_metric

    def on_training_end(self, model: Any, success: bool) -> None:
        """Count the trial of ``model``."""
        self.ended += 1
        self.failed += not success
        self.progress(self.ended, self.failed)


def _settled(model: Any) -> bool:
    """Whether nothing more is to come; a final metric may arrive after its trial's end."""
    return bool(model.status == ModelStatus.Failed or model.metric is not None)


def _failure(job: Mapping[str, Any], trials: Path) -> str:
    """Last line of what the trial of ``job`` printed as errors, which is its exception if it raised one."""
    if job["status"] == "SUCCEEDED":
        return "the trial reported no accuracy"
    stderr = trials / job["trialJobId"] / "stderr"
    lines = stderr.read_text(errors="replace").split("\n") if stderr.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), job["status"].lower())
