"""Real experiments of NNI in processes of their own, for tests to start, interrupt and look at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from layout import HELPERS

#: Environment variable that tells the processes of one test from all others.
_MARK = "NNMETER_NAS_TEST"
#: Seconds that an experiment may take on a busy machine.
LIMIT_S = 500


def _heed_ctrl_c() -> None:
    """Undo that a shell lets what it runs in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """An experiment that runs; it ends with the context, and so does all that it started.

    Args:
        module: of this folder, with a ``main`` that takes one JSON argument.
        folder: of the experiment; what it prints goes to files there.
        task: what ``main`` is to do.
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
                cwd=folder, env=environment, stdout=out, stderr=errors, preexec_fn=_heed_ctrl_c,
            )  # fmt: skip

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def errors(self) -> str:
        """What it printed as errors so far."""
        return self._errors.read_text(errors="replace")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON objects that it printed so far."""
        lines = self._out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened while it runs."""
        deadline = time.monotonic() + LIMIT_S
        while not happened():
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.1)

    def finished(self) -> dict[str, Any]:
        """What it printed last, once it has come to a good end."""
        assert self.process.wait(LIMIT_S) == 0, self.errors
        return self.records[-1]

    def left(self) -> list[str]:
        """Names of the processes that it started and that still run."""
        return [process.name() for process in self._started() if process.is_running()]

    def kill(self) -> None:
        """Kill it and all that it started, as a power cut would."""
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
    """How many trials of a strategy have ended."""
    return sum(record.get("event") == "ended" for record in run.records)
