"""How a search of ours starts NNI's manager: with patience, quietly, and with its records in one folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nni.experiment import RunMode, launcher, rest
from nni.runtime.log import silence_stdout

logger = logging.getLogger(__name__)

#: Seconds that the manager may take to answer. NNI gives it 3; the first start from a cold disk takes more.
PATIENCE_S = 30


@contextlib.contextmanager
def launcher_of_search(work: Path) -> Iterator[None]:
    """Set what NNI's launcher has no arguments for, while this is entered.

    The manager gets :data:`PATIENCE_S` to answer. What it prints goes to its logs, as for a detached one. The
    list of experiments is kept in ``work``. NNI's threads end when the manager dies, without a traceback: the
    search says more of it than they do. NNI's own logs no longer go to standard output.
    """
    before = launcher._check_rest_server, launcher._start_rest_server, launcher.Experiments
    check, start, known = before
    hook = threading.excepthook
    silence_stdout()
    threading.excepthook = lambda failed: logger.debug("a thread of NNI failed", exc_info=failed.exc_value)
    launcher._check_rest_server = functools.partial(check, retry=PATIENCE_S)
    launcher._start_rest_server = lambda arguments, mode: start(arguments, RunMode.Detach)
    launcher.Experiments = functools.partial(known, home_dir=str(work / "nni-experiments"))
    try:
        yield
    finally:
        launcher._check_rest_server, launcher._start_rest_server, launcher.Experiments = before
        threading.excepthook = hook


def trial_job(port: int, mark: str) -> dict[str, Any] | None:
    """What NNI's manager at ``port`` knows of the trial whose parameters name ``mark``, if it has one."""
    jobs: list[dict[str, Any]] = rest.get(port, "/trial-jobs")
    return next((job for job in jobs if mark in str(job["hyperParameters"])), None)
