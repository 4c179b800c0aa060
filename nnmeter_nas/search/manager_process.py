"""Keep NNI's manager and its trials contained: local port, own folder, no process left afterwards.

NNI starts a Node.js manager that listens on every interface, starts each trial in its own process, and stays
when the Python process is killed. This module works on NNI only through the environment variables that NNI's
processes inherit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import site
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import psutil

from ..errors import SearchError
from ..nni.manager_scripts import (
    ADDRESS,
    END_WITH_PARENT,
    LISTEN,
    REACH_MACHINES,
    environment_with,
    node_options,
)

#: Environment variable that marks the processes of one search with the folder of its logs.
_MARK = "NNMETER_NAS_SEARCH"

#: Prefix of the names of working folders.
_PREFIX = "nnmeter-nas-"

#: File in the folder of logs that names the current working folder.
_WORK_NOTE = "working-folder"

#: Seconds after which a signal that was lost in a finalizer is given again.
_AGAIN_S = 0.1

#: Seconds that the manager has to cancel its trials before it is killed.
GRACE_S = 15.0


@contextlib.contextmanager
def contained(logs: Path, variables: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Give NNI a working folder. At the end, move it into ``logs`` and end all processes started meanwhile.

    The moved folder has no link that leads out of it.

    The working folder is a temporary one, because NNI's shell scripts break on a space in its path, and NNI's
    database breaks on some network drives. Signals that ask the process to end leave the context cleanly, as
    ``SystemExit``. If an earlier process with the same ``logs`` was killed, the processes that it left are
    ended and its folder is moved first.

    Args:
        logs: folder that the working folder is moved into at the end; created if it does not exist.
        variables: more environment variables for the started processes.

    Yields:
        The working folder, which is also the home of NNI's processes.

    Raises:
        SearchError: the path of the folder for temporary files has a space.
    """
    logs = logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    mark, note = str(logs), logs / _WORK_NOTE
    _clean_up(mark, note)
    if re.search(r"\s", tempfile.gettempdir()):
        raise SearchError(
            f"NNI's scripts break on a space in a path, and temporary files go to {tempfile.gettempdir()!r}; "
            f"name another folder for them in the environment variable TMPDIR"
        )
    work = Path(tempfile.mkdtemp(prefix=_PREFIX))
    note.write_text(str(work))
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    variables_of_nni = {
        # NNI keeps a list of experiments in the home folder, which may be read-only or missing.
        "HOME": str(work),
        "PYTHONUSERBASE": site.getuserbase(),
        "NODE_OPTIONS": node_options(LISTEN, END_WITH_PARENT, REACH_MACHINES),
        "no_proxy": ",".join(filter(None, [direct, "localhost", "127.0.0.1"])),
        ADDRESS: "127.0.0.1",
        _MARK: mark,
        **(variables or {}),
    }
    with orderly_signals() as ignore_signals:
        try:
            with environment_with(variables_of_nni):
                yield work
        finally:
            ignore_signals()  # nothing may interrupt the clean-up
            _clean_up(mark, note)


def end_leftovers(logs: Path) -> None:
    """End what an earlier process with the same ``logs`` left running, if it was killed."""
    logs = logs.resolve()
    _clean_up(str(logs), logs / _WORK_NOTE)


def _clean_up(mark: str, note: Path) -> None:
    """End the processes of a context, and move the working folder that ``note`` names next to ``note``."""
    # Repeat, because a manager that is ending may still start a waiting trial.
    while started := _marked(mark):
        _end_processes(started)
    if note.exists():
        work = Path(note.read_text())
        if work.name.startswith(_PREFIX) and work.is_dir():
            _remove_outward_links(work)
            shutil.move(work, note.parent)
        note.unlink()


def _remove_outward_links(work: Path) -> None:
    """Remove links in ``work`` that are broken, or that moving ``work`` would break.

    One of them leads to the user's folder; trials ran through it.
    """
    inside = work.resolve()
    for folder, folders, files in os.walk(work):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and (
                path.readlink().is_absolute() or not path.resolve().is_relative_to(inside)
            ):
                path.unlink()


@contextlib.contextmanager
def orderly_signals() -> Iterator[Callable[[], None]]:
    """Turn the signals that end a process into ``SystemExit(128 + number)``, the shell's exit codes.

    NNI swallows ``KeyboardInterrupt`` and returns as if the search had finished. A signal that comes while
    Python runs a finalizer, where exceptions are lost, is given again.

    Yields:
        A function that makes the process ignore further such signals until the context ends.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python delivers signals only to the main thread
        return

    def ignore() -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)

    def leave(number: int, frame: FrameType | None) -> None:
        ignore()
        raise SystemExit(128 + number)

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        code = getattr(unraisable.exc_value, "code", None)
        if not isinstance(unraisable.exc_value, SystemExit) or code not in [128 + n for n in signals]:
            return hook_before(unraisable)
        for number in signals:
            signal.signal(number, leave)
        again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), code - 128))
        again.daemon = True
        again.start()

    hook_before = sys.unraisablehook
    before = {number: signal.signal(number, leave) for number in signals}
    sys.unraisablehook = lost
    try:
        yield ignore
    finally:
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            signal.signal(number, handler)


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes started in the context marked ``mark``, including those whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.pid != os.getpid():
                found.append(process)
    return found


def _end_processes(processes: list[psutil.Process]) -> None:
    """Ask ``processes`` to end, wait up to :data:`GRACE_S` seconds, and kill the rest."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    while (alive := _alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the running processes.

    Zombies do not count: in a container without an init process, ended orphans stay zombies forever.
    """
    alive = []
    for process in psutil.wait_procs(processes, timeout=0)[1]:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def free_port(wanted: int | None = None) -> int:
    """Return ``wanted`` if nothing listens there, else a port that the system picks."""
    for port in (wanted, None):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As for servers, a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port or 0))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
