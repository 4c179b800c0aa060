"""Start NNI's manager for our searches: patiently, quietly, and with its records in one folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from nni.experiment import RunMode, launcher, rest
from nni.runtime.log import silence_stdout

logger = logging.getLogger(__name__)

#: Seconds that the manager may take to answer. NNI allows 3; the first start from a cold disk takes longer.
PATIENCE_S = 30


@contextlib.contextmanager
def launcher_of_search(work: Path) -> Iterator[None]:
    """While entered, set options that NNI's launcher has no arguments for.

    The manager gets :data:`PATIENCE_S` to answer. Its output goes to its logs, as for a detached manager. The
    list of experiments is kept in ``work``. When the manager dies, NNI's threads end without a traceback,
    because the search reports more about it. NNI's own logs no longer go to standard output.
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
    """Ask NNI's manager at ``port`` for the newest trial whose parameters match the pattern ``mark``."""
    jobs: list[dict[str, Any]] = rest.get(port, "/trial-jobs")
    found = [job for job in jobs if re.search(mark, "".join(job["hyperParameters"]))]
    return max(found, key=lambda job: job.get("sequenceId", -1), default=None)


def trial_errors(port: int, job: str) -> str:
    """Ask NNI's manager for what a trial wrote on its standard error; empty if it cannot be had."""
    place = f"http://127.0.0.1:{port}/api/v1/nni/trial-file/{job}/stderr"
    try:
        with urlopen(place, timeout=PATIENCE_S) as answer:
            return bytes(answer.read()).decode(errors="replace")
    except OSError:
        return ""
