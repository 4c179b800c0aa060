"""Run a search as an experiment of NNI 2.10.1 that always ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni.nas.execution import api
from nni.nas.execution.common import integration_api
from nni.nas.experiment.config.engine_config import BaseEngineConfig, PyEngineConfig
from nni.nas.experiment.pytorch import RetiariiExeConfig, RetiariiExperiment
from nni.retiarii.evaluator import FunctionalEvaluator

from .ending import EndingExperiment

__all__ = ["FunctionalEvaluator", "fresh_nni", "make_config", "run"]


def make_config(engine: str, input_shape: Sequence[int], work: Path, folder: Path) -> Any:
    """Make NNI's configuration for an engine.

    Args:
        engine: "py", or "graph", which makes each trial write code into its current folder.
        input_shape: NCHW; the graph engine uses it to trace the space.
        work: folder of the experiment.
        folder: folder in which trials run, except with the graph engine.
    """
    config = RetiariiExeConfig("local")
    code = work / "code"
    if engine == "graph":
        config.execution_engine = BaseEngineConfig(dummy_input=list(input_shape))
        code.mkdir()
    else:
        config.execution_engine = PyEngineConfig()
        code.symlink_to(folder)  # NNI's scripts break on a space in a path
    config.trial_code_directory = str(code)
    return config


def run(
    module: Any, evaluator: Any, strategy: Any, config: Any, port: int, started: Callable[[int], None]
) -> None:
    """Run an experiment until its strategy returns; see :meth:`EndingExperiment.run_to_end`."""
    _Experiment(module, evaluator, [], strategy).run_to_end(started, config, port)


@contextmanager
def fresh_nni() -> Iterator[None]:
    """Leave NNI as if no experiment had run."""
    try:
        yield
    finally:
        api._execution_engine = api._default_listener = integration_api._advisor = None


class _Experiment(EndingExperiment, RetiariiExperiment):
    def _create_execution_engine(self, config: Any) -> None:
        super()._create_execution_engine(config)
        self.started(self.port)

    def _save_experiment_checkpoint(self, *_: Any) -> None:
        """Do nothing: a search resumes from its own folder, and NNI's checkpoint has no room for a space."""
