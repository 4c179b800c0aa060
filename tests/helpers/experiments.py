"""Run real NNI experiments in their own processes, so that tests can start, interrupt and inspect them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from commands import heed_ctrl_c
from layout import HELPERS

#: Environment variable that marks the processes of one test.
_MARK = "NNMETER_NAS_TEST"
#: Timeout of an experiment in seconds, generous for busy machines.
LIMIT_S = 500


class Run:
    """A running experiment. Leaving the context ends it and all processes that it started.

    Args:
        module: module of this folder with a ``main`` that takes one JSON argument.
        folder: folder of the experiment; its output goes to files there.
        task: the argument of ``main``.
    """

    def __init__(self, module: str, folder: Path, **task: Any) -> None:
        self.folder = folder
        self._out, self._errors = folder / f"{time.time_ns()}.out", folder / f"{time.time_ns()}.err"
        folders = str(HELPERS), os.environ.get("PYTHONPATH")
        environment = {
            **os.environ,
            _MARK: str(folder),
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        command = [sys.executable, "-c", f"import {module}; {module}.main()"]
        with self._out.open("w") as out, self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, json.dumps({"folder": str(folder), **task})],
                cwd=folder, env=environment, stdout=out, stderr=errors, preexec_fn=heed_ctrl_c,
            )  # fmt: skip

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def errors(self) -> str:
        """Its standard error so far."""
        return self._errors.read_text(errors="replace")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON objects it has printed so far."""
        lines = self._out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until ``happened`` returns True; fail if the experiment ends first."""
        deadline = time.monotonic() + LIMIT_S
        while not happened():
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.1)

    def finished(self) -> dict[str, Any]:
        """Wait until it succeeds, and return the last record it printed."""
        assert self.process.wait(LIMIT_S) == 0, self.errors
        return self.records[-1]

    def left(self) -> list[str]:
        """Names of processes it started that still run."""
        return [process.name() for process in self._started() if process.is_running()]

    def listening(self) -> set[str]:
        """The addresses that its processes listen on now."""
        found = set()
        for process in self._started():
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections("tcp")
                found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
        return found

    def kill(self) -> None:
        """Kill it and all its processes at once, like a power failure."""
        while started := self._started():
            for process in started:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(started, 10)
        self.process.wait()

    def _started(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(_MARK) == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def ended(run: Run) -> int:
    """Number of a strategy's trials that have ended."""
    return sum(record.get("event") == "ended" for record in run.records)
