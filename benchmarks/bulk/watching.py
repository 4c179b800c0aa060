"""Run the command in a process of its own, and watch its journal, its memory and its processor time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nnmeter_nas.errors import WorkerError

_COMMAND = "import sys; from nnmeter_nas.cli import main; sys.exit(main())"
#: Parts of a run whose speeds are told apart, so that what else the machine does counts little.
_PARTS = 10
#: Seconds for which processes may outlive a command that was killed.
_PATIENCE_S = 300.0


@dataclass
class Watched:
    """What was seen of a run, at each moment of looking.

    Attributes:
        seconds: since the start.
        files: in the journal.
        command_mib: memory of the command's own process; what it shares counts in proportion (PSS).
        workers_mib: the same of all its workers together.
        cpu_seconds: processor time of all of them.
    """

    seconds: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    command_mib: list[float] = field(default_factory=list)
    workers_mib: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def look(self, started: float, files: int, process: psutil.Process) -> None:
        """Add what is to be seen now."""
        command, *workers = [_usage(one) for one in [process, *process.children(recursive=True)]]
        self.seconds.append(round(time.monotonic() - started, 2))
        self.files.append(files)
        self.command_mib.append(round(command[0], 1))
        self.workers_mib.append(round(sum(mib for mib, _ in workers), 1))
        self.cpu_seconds.append(round(command[1] + sum(cpu for _, cpu in workers), 2))

    def files_per_second(self) -> float:
        """The median speed over parts of the run, without the start."""
        seconds, files = np.array(self.seconds), np.array(self.files)
        working = files > files[0]
        bounds = np.linspace(files[working].min(), files.max(), _PARTS + 1)
        at = np.interp(bounds, files[working], seconds[working])
        return float(np.median(np.diff(bounds) / np.maximum(np.diff(at), 1e-9)))

    def cpu_ms_per_file(self) -> float:
        """Processor time for each file, without the start."""
        files, cpu = np.array(self.files), np.array(self.cpu_seconds)
        first = int(np.argmax(files > files[0]))
        last = int(np.argmax(cpu))  # after it the workers end, and their time is no longer seen
        return float(1e3 * (cpu[last] - cpu[first]) / max(files[last] - files[first], 1))

    def to_json(self) -> dict[str, Any]:
        """Its figures, ready for JSON."""
        return asdict(self)


def watch(
    arguments: Sequence[str], journal: Path, every_s: float, kill_at: int | None = None
) -> tuple[Watched, int]:
    """Run ``nnmeter-nas`` with ``arguments``; return what was seen, and the exit code.

    Args:
        arguments: of a command that writes ``journal``, one line per file after the first.
        journal: the file.
        every_s: seconds between two looks.
        kill_at: number of files in the journal at which the command's process gets SIGKILL.

    Raises:
        WorkerError: workers outlive the killed command.
    """
    seen, counter, started = Watched(), _LineCounter(journal), time.monotonic()
    running = subprocess.Popen([sys.executable, "-c", _COMMAND, *arguments], stderr=subprocess.DEVNULL)
    process = psutil.Process(running.pid)
    while running.poll() is None:
        files = counter.files()
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.look(started, files, process)
        if kill_at is not None and files >= kill_at:
            workers = process.children(recursive=True)
            process.kill()
            running.wait()
            if left := psutil.wait_procs(workers, timeout=_PATIENCE_S)[1]:
                raise WorkerError(f"{len(left)} processes outlive the killed command by {_PATIENCE_S:g} s")
        else:
            time.sleep(every_s)
    return seen, running.returncode


def _usage(process: psutil.Process) -> tuple[float, float]:
    """Memory in MiB and processor time in seconds; zeros if the process has just ended."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            return process.memory_full_info().pss / 2**20, times.user + times.system
    except psutil.Error:
        return 0.0, 0.0


class _LineCounter:
    """Counts the files in a growing journal; it reads each byte once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read, self._lines = 0, 0

    def files(self) -> int:
        """Return how many there are by now; the first line is no file."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            while block := file.read(1 << 20):
                self._read += len(block)
                self._lines += block.count(b"\n")
        return max(self._lines - 1, 0)
