"""Run the command ``nnmeter-nas`` in its own process, for tests that stop it in different ways."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from layout import HELPERS

_COMMAND = "import sys; from nnmeter_nas.cli import main; sys.exit(main())"


def heed_ctrl_c() -> None:
    """Enable Ctrl-C again; shells disable it for background processes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """A running ``nnmeter-nas`` with its own home, which identifies its processes."""

    def __init__(self, folder: Path, *arguments: str, cwd: Path | None = None) -> None:
        """Start it in ``cwd``, by default in ``folder``, which holds its home and temporary files."""
        self.mark = uuid.uuid4().hex
        home = folder / "home"
        home.mkdir(exist_ok=True)
        environment = {
            **os.environ, "HOME": str(home), "TMPDIR": str(folder), "NNMETER_NAS_TEST": self.mark,
            "COLUMNS": "200", "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(HELPERS)]),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *arguments], cwd=cwd or folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c,
        )

    def running(self) -> list[psutil.Process]:
        """All running processes that the command started, directly or indirectly."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (process.environ().get("NNMETER_NAS_TEST") == self.mark
                        and process.status() != psutil.STATUS_ZOMBIE):
                    found.append(process)
        return found

    def processes(self, part: str) -> list[psutil.Process]:
        """The running processes whose command line contains ``part``."""
        found = []
        for process in self.running():
            with contextlib.suppress(psutil.Error):
                if part in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def trials(self) -> list[psutil.Process]:
        """The Python processes of trials."""
        lines = ("nni.retiarii.trial_entry", "nni.nas.execution.training_service")
        found = [process for line in lines for process in self.processes(f"-m {line}")]
        return [process for process in found if "python" in process.name()]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition`` holds; fail if the command ends first."""
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"the command ended too early: {self.process.communicate()}")
            time.sleep(0.2)

    def end(self) -> tuple[int, str, str]:
        """Wait until it ends; return its exit code, standard output and standard error.

        If the time limit of the test ends first, print what the command has written and where it stands.
        """
        try:
            printed, errors = self.process.communicate()
        except BaseException:
            self.process.send_signal(signal.SIGABRT)  # its fault handler writes where all threads are
            print(*self.process.communicate(), sep="\n")
            raise
        return self.process.returncode, printed, errors

    def left(self, timeout_s: float = 30) -> list[psutil.Process]:
        """Its processes that still run after they had time to end."""
        psutil.wait_procs(self.running(), timeout=timeout_s)
        return self.running()
