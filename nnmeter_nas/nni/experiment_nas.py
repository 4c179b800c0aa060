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
    """NNI's configuration for an engine.

    Args:
        engine: "py" for the simplified model format, "graph" for the graph of the space.
        input_shape: NCHW, which the graph is traced with.
        work: folder of the experiment.
        folder: where trials run; must be the current folder.
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
    """Run an experiment until its strategy returns; ``started`` is told the port once NNI's manager answers.

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
    """Leave NNI as if no experiment had run; 3.0 keeps nothing that would have to be reset."""
    yield


class _Experiment(NasExperiment):
    """NNI's experiment; it tells when its manager runs, and ends even if that is gone."""

    started: Callable[[int], None]
    _proc: Any

    def end(self) -> None:
        """Stop NNI's manager if it still runs; NNI would ask a dead one to stop, and complain."""
        if self._proc is not None and self._proc.poll() is not None:
            self._proc = None
        self.stop()

    def _start_engine_and_strategy(self) -> None:
        self.started(self.port)
        super()._start_engine_and_strategy()

    def _wait_completion(self) -> bool:
        """Nothing: the strategy returns when all its trials have ended."""
        return True
