"""NNI's training service on machines of a file, for the command and for experiments of one's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SearchError, SettingsError
from ..nni import NAS, nni_line
from .evaluators import experiments
from .machines import Machine, fit_machines, read_machines
from .tunnels import tunnels

logger = logging.getLogger(__name__)


def check_line() -> None:
    """Raise a SettingsError if the installed NNI cannot run trials on other machines as it must.

    NNI 2.10.1 does not notice that a machine is gone: its trials wait for ever, and new ones go there too.
    """
    if nni_line() != NAS:
        raise SettingsError(
            "training_service=remote needs NNI 3.0: this NNI waits for ever for the trials of a machine that "
            "died; install nni 3.0, or take training_service=ray"
        )


def remote_service(machines: Sequence[Machine]) -> Any:
    """Make NNI's configuration of its training service on ``machines``."""
    return experiments().remote_service([
        {
            "host": one.host,
            "port": one.port,
            "user": one.user,
            "ssh_key_file": one.key,
            "python_path": one.python_folder or None,
            "gpu_indices": None if one.gpus is None else list(one.gpus),
            "max_trial_number_per_gpu": one.trials_per_gpu,
        }
        for one in machines
    ])  # fmt: skip


def place_on(machines: Sequence[Machine], config: Any) -> None:
    """Let an experiment of NNI with this configuration run its trials on ``machines``, which have tunnels."""
    config.training_service = remote_service(machines)
    config.nni_manager_ip = "127.0.0.1"  # where the tunnels lead to
    config._trial_command_params = {"python": "python3", "envs": ""}  # not this machine's path of it


@contextmanager
def remote_machines(
    file: str | Path, config: Any, port: int = 8080, told: Callable[[str], None] = logger.warning
) -> Iterator[None]:
    """Let an experiment of one's own run its trials on the machines of ``file``.

        config = NasExperimentConfig("ts", "simplified", "remote")
        with remote_machines("machines.yaml", config):
            NasExperiment(space, evaluator, strategy, config).run()

    Each machine is checked first; those that cannot run trials are left out. The manager of the experiment
    listens on this machine only, and tunnels lead to it from the others.

    Args:
        file: as :func:`.machines.read_machines` reads it.
        config: NNI's configuration of the experiment; that of the training service, the manager's address
            and the trials' interpreter are set in it.
        port: that the experiment will run at; by default NNI's own default.
        told: called with what the user should know of the machines.

    Raises:
        SettingsError: the file is wrong, or NNI is not 3.0.
        SearchError: no machine can run a trial.
    """
    from ..nni.manager_scripts import REACH_MACHINES, environment_with, node_options

    check_line()
    machines = fit_machines(read_machines(file), told, config.trial_gpu_number or 0)
    with tunnels(machines, port, told) as reached:
        if not reached:
            raise SearchError("no machine could open a tunnel to this one")
        place_on(reached, config)
        with environment_with({"NODE_OPTIONS": node_options(REACH_MACHINES)}):
            yield
