"""Run a search as an experiment of NNI 3.0 that always ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni.experiment.config import RemoteConfig, RemoteMachineConfig
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import (
    GraphModelFormatConfig,
    NasExperimentConfig,
    SimplifiedModelFormatConfig,
    TrainingServiceEngineConfig,
)

from .ending import EndingExperiment

__all__ = ["FunctionalEvaluator", "fresh_nni", "make_config", "remote_service", "run"]


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


def remote_service(machines: Sequence[Mapping[str, Any]]) -> Any:
    """Make NNI's configuration of its training service on other machines.

    The manager then is where a tunnel of each machine leads to: at its own 127.0.0.1.

    Args:
        machines: ``host``, ``port``, ``user``, ``ssh_key_file``, ``python_path``, ``gpu_indices`` and
            ``max_trial_number_per_gpu`` of each.
    """
    made = [RemoteMachineConfig(**machine) for machine in machines]
    return RemoteConfig(machine_list=made, nni_manager_ip="127.0.0.1")


def run(
    module: Any, evaluator: Any, strategy: Any, config: Any, port: int, started: Callable[[int], None]
) -> None:
    """Run an experiment until its strategy returns; see :meth:`EndingExperiment.run_to_end`."""
    _Experiment(module, evaluator, strategy, config).run_to_end(started, port)


@contextmanager
def fresh_nni() -> Iterator[None]:
    """Leave NNI as if no experiment had run; 3.0 keeps no state to reset."""
    yield


class _Experiment(EndingExperiment, NasExperiment):
    def _start_engine_and_strategy(self) -> None:
        self.started(self.port)
        super()._start_engine_and_strategy()
