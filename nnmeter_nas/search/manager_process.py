"""Keep NNI's manager and its trials contained: local port, own folder, no process left afterwards.

NNI starts a Node.js manager that listens on every interface, starts each trial in a process of its
own, and stays when the Python process is killed. What this module does about that needs nothing of NNI but
the environment variables that its processes inherit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import site
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import psutil

from ..errors import SearchError

#: Loaded by the manager before its own code. Its REST interface runs pickled code from whoever reaches it, so
#: it must listen on this machine only. When its parent is gone it must end, and in order (SIGTERM): a manager
#: that crashes leaves its trials running.
_GUARD = """
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
    return typeof port === 'number'
        ? listen.call(this, port, '127.0.0.1', ...rest)
        : listen.call(this, port, ...rest);
};
const end = () => process.kill(process.pid, 'SIGTERM');
const parent = process.ppid;
setInterval(() => { if (process.ppid !== parent) { end(); } }, 1000).unref();
process.on('uncaughtException', (error) => { console.error(error); end(); });
"""

#: Environment variable that tells the processes of one search, by the folder of its logs, from all others.
_MARK = "NNMETER_NAS_SEARCH"

#: How names of working folders begin.
_PREFIX = "nnmeter-nas-"

#: File in the folder of logs that names the working folder while there is one.
_WORK_NOTE = "working-folder"

#: Seconds that the manager gets to cancel its trials before it is killed.
GRACE_S = 15.0


@contextlib.contextmanager
def contained(logs: Path, variables: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A working folder for NNI that ends up in ``logs``, and no process left that was started meanwhile.

    What ends up there holds no link that leads out of it.

    The folder is a temporary one: NNI's shell scripts break on a space in its path, and its database on some
    network drives. Signals that ask the process to end leave the context in order, as ``SystemExit``. What a
    context with the same ``logs`` left behind because its process was killed is ended and moved first.

    Args:
        logs: folder that the working folder is moved into at the end; made if need be.
        variables: more of the environment of what is started.

    Yields:
        The working folder, which is also the home of NNI's processes.

    Raises:
        SearchError: the folder of temporary files has a space in its path.
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
    guard = work / "guard.js"
    guard.write_text(_GUARD)
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    environment = {
        # NNI keeps a list of experiments in the home folder, which may be read-only or absent.
        "HOME": str(work),
        "PYTHONUSERBASE": site.getuserbase(),
        "NODE_OPTIONS": f"{os.environ.get('NODE_OPTIONS', '')} --require {guard}".strip(),
        "no_proxy": ",".join(filter(None, [direct, "localhost", "127.0.0.1"])),
        _MARK: mark,
        **(variables or {}),
    }
    with _orderly_signals() as ignore_signals:
        try:
            with _environment(environment):
                yield work
        finally:
            ignore_signals()  # the cleaning up shall not be cut short
            _clean_up(mark, note)


def _clean_up(mark: str, note: Path) -> None:
    """End the processes of a context, and move the working folder that ``note`` names beside that."""
    # Rounds, since a manager that is still ending may start a trial that was waiting.
    while started := _marked(mark):
        end_processes(started)
    if note.exists():
        work = Path(note.read_text())
        if work.name.startswith(_PREFIX) and work.is_dir():
            _remove_outward_links(work)
            shutil.move(work, note.parent)
        note.unlink()


def _remove_outward_links(work: Path) -> None:
    """Remove the links that would not lead to the same file if ``work`` were moved, or that lead nowhere.

    One of them is the link to the user's folder, which trials ran through.
    """
    inside = work.resolve()
    for folder, folders, files in os.walk(work):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and (
                path.readlink().is_absolute() or not path.resolve().is_relative_to(inside)
            ):
                path.unlink()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _orderly_signals() -> Iterator[Callable[[], None]]:
    """Turn the signals that end a process into ``SystemExit(128 + number)``, the shell's exit codes.

    NNI swallows ``KeyboardInterrupt`` and returns as if the search had finished.

    Yields:
        What makes further such signals go unheard until the context ends.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python delivers signals to the main thread alone
        return

    def ignore() -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)

    def leave(number: int, frame: FrameType | None) -> None:
        ignore()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in signals}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes that were started in the context marked ``mark``, also those whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark and process.pid != os.getpid():
                found.append(process)
    return found


def end_processes(processes: list[psutil.Process], grace_s: float = GRACE_S) -> None:
    """Ask ``processes`` to end, wait up to ``grace_s`` seconds, kill those that remain."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while (alive := _alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run; in a container without an init process, ended orphans stay as zombies for ever."""
    alive = []
    for process in psutil.wait_procs(processes, timeout=0)[1]:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


def free_port(wanted: int | None = None) -> int:
    """``wanted`` if nobody listens there, else a port that the system picks."""
    for port in (wanted, None):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port or 0))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
