"""Run a search as an experiment of NNI 3.0 that always ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import (
    GraphModelFormatConfig,
    NasExperimentConfig,
    SimplifiedModelFormatConfig,
    TrainingServiceEngineConfig,
)

__all__ = ["FunctionalEvaluator", "fresh_nni", "make_config", "run"]


def make_config(engine: str, input_shape: Sequence[int], work: Path, folder: Path) -> Any:
    """Make NNI's configuration for an engine.

    Args:
        engine: "py" for the simplified model format, "graph" for the graph of the space.
        input_shape: NCHW; used to trace the graph.
        work: folder of the experiment.
        folder: folder in which trials run; must be the current folder.
    """
    code = work / "code"
    code.symlink_to(folder)  # NNI's scripts break on a space in a path
    graph = GraphModelFormatConfig(dummy_input=list(input_shape))
    config = NasExperimentConfig(
        TrainingServiceEngineConfig(), graph if engine == "graph" else SimplifiedModelFormatConfig(), "local"
    )
    config.trial_code_directory = str(code)
    return config


def run(
    module: Any, evaluator: Any, strategy: Any, config: Any, port: int, started: Callable[[int], None]
) -> None:
    """Run an experiment until its strategy returns; call ``started`` with the port once the manager answers.

    Raises:
        OSError, RuntimeError: the manager did not start, or broke down after ``started`` was called.
    """
    experiment = _Experiment(module, evaluator, strategy, config)
    experiment.started = started
    try:
        experiment.run(port)
    finally:
        experiment.end()


@contextmanager
def fresh_nni() -> Iterator[None]:
    """Leave NNI as if no experiment had run; 3.0 keeps no state to reset."""
    yield


class _Experiment(NasExperiment):
    """NNI's experiment, which also tells when its manager runs and ends even if the manager is gone."""

    started: Callable[[int], None]
    _proc: Any

    def end(self) -> None:
        """Stop NNI's manager if it still runs; NNI asks even a dead manager to stop, and complains."""
        if self._proc is not None and self._proc.poll() is not None:
            self._proc = None
        self.stop()

    def _start_engine_and_strategy(self) -> None:
        self.started(self.port)
        super()._start_engine_and_strategy()

    def _wait_completion(self) -> bool:
        """Do nothing: the strategy returns only when all its trials have ended."""
        return True
