"""Run model files in a process of their own: one that crashes or hangs a runtime costs nothing else."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..backends import load_backend
from ..backends.base import Backend, KernelTime, is_on_host
from ..backends.host import Speed, SpeedWatch, one_thread
from ..errors import DeviceLostError, MeasurementError, ToolError
from ..files import is_disk_full
from .visits import Burst, Visit

#: A burst is so many ms of runs, one after another; runs of a burst at most.
_BURST_MS, _MOST_RUNS = 4.0, 20
#: Bursts of a visit of a model that does not run on this machine: at least, at most, and the ms of all
#: together after which there are enough of them.
_LEAST, _MOST, _ENOUGH_MS = 3, 12, 60.0
#: Runs under a runtime's profiler.
_PROFILED = 5
#: Seconds that a process may take to start and load its runtime; a busy machine needs many.
_START_LIMIT_S = 300.0
#: The share of a worker's limit within which a backend that measures by itself has to give up.
_OWN_LIMIT = 0.8
#: Models of this machine stay loaded between visits as long as their files are no larger than this together.
_HELD_BYTES = 1 << 30
#: A new process after so many models that were given up, as runtimes do not give all memory back.
_MODELS_OF_A_PROCESS = 40


class Worker:
    """A process that measures models on a backend, replaced when it dies or hangs."""

    def __init__(self, backend: str, limit_s: float, options: Mapping[str, str] | None = None) -> None:
        """Note what to run; the process starts with the first visit.

        Args:
            backend, options: as :func:`nnmeter_nas.backends.load_backend` takes them.
            limit_s: seconds after which a visit counts as hanging.
        """
        self._backend, self._options, self._limit_s = backend, dict(options or {}), limit_s
        self._process: Any = None
        self._pipe: Connection | None = None

    def visit(self, path: Path, profiled: bool = True) -> Visit:
        """Measure a model file, and its kernels if it shall be ``profiled`` and the runtime can.

        Raises:
            MeasurementError: the runtime refused the model, died of it or did not end in time.
            ToolError: it would refuse any.
            DeviceLostError: the device does not answer.
            OSError: a disk, or the device, is full.
        """
        found: Visit = self._ask(str(path), profiled)
        return found

    def sound_visit(self, path: Path, profiled: bool = True) -> Visit:
        """As :meth:`visit`, where a latency that is no number above 0 is an error too."""
        found = self.visit(path, profiled)
        if not math.isfinite(found.ms) or found.ms <= 0:
            raise MeasurementError(f"it measured {found.ms} ms")
        return found

    def _ask(self, *question: Any) -> Any:
        try:
            if self._process is None:
                self._start()
            assert self._pipe is not None
            self._pipe.send(question)
            kind, answer = self._received(self._limit_s)
        except (EOFError, OSError):
            self._process.join(1)
            code = self._process.exitcode
            self.close()
            raise MeasurementError(f"the runtime's process ended with exit code {code}") from None
        except MeasurementError:
            self.close()
            raise
        if kind == "error":
            raise MeasurementError(answer)
        if kind == "tool":
            raise ToolError(answer)
        if kind == "lost":
            raise DeviceLostError(answer)
        if kind == "full":  # that is no fault of the model
            raise OSError(*answer)
        if kind == "last visit":
            self.close()
        return answer

    def _received(self, limit_s: float) -> tuple[str, Any]:
        assert self._pipe is not None
        if not self._pipe.poll(limit_s):
            raise MeasurementError(f"it did not end within {limit_s:g} s")
        kind, answer = self._pipe.recv()
        return kind, answer

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        asked = theirs, self._backend, self._options, _OWN_LIMIT * self._limit_s
        self._process = context.Process(target=_serve, args=asked, daemon=True)
        with one_thread(), _without_script():
            self._process.start()
        theirs.close()
        self._received(_START_LIMIT_S)  # that it is ready

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


@contextlib.contextmanager
def worker(backend: str, limit_s: float, options: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """Yield a worker, and end its process afterwards."""
    made = Worker(backend, limit_s, options)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Let processes that start now not run the script of this one, which may not keep its calls to itself."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(pipe: Connection, name: str, options: Mapping[str, str], limit_s: float) -> None:
    """Measure each file whose path comes through ``pipe``, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    backend = load_backend(name, options)
    watch = SpeedWatch() if is_on_host(backend) else None
    loaded = _Loaded(backend, _HELD_BYTES if watch else 0)
    with contextlib.suppress(EOFError, ConnectionError):  # who asks has ended, perhaps by a signal
        pipe.send(("ready", None))
        while True:
            path, profiled = pipe.recv()
            pipe.send(_answer(loaded, watch, Path(path), profiled, limit_s))


def _answer(
    loaded: _Loaded, watch: SpeedWatch | None, path: Path, profiled: bool, limit_s: float
) -> tuple[str, Any]:
    """Measure a file; return what kind of answer it is, and the visit or the error."""
    try:
        end = time.monotonic() + limit_s
        session = loaded.session(path)
        if hasattr(session, "visit"):
            found = _own_visit(session, profiled, end - time.monotonic())
        else:
            found = visit(session, watch, profiled)
    except DeviceLostError as error:
        return "lost", str(error)
    except ToolError as error:
        return "tool", str(error)
    except MeasurementError as error:
        return "error", str(error)
    except Exception as error:
        if is_disk_full(error):
            return "full", (error.errno, error.strerror)
        return "error", " ".join(traceback.format_exception_only(error)[-1].split())
    return "last visit" if loaded.given_up >= _MODELS_OF_A_PROCESS else "visit", found


class _Loaded:
    """The models that a process keeps loaded: those asked for last, up to so many bytes of files.

    Attributes:
        given_up: how many it no longer keeps.
    """

    def __init__(self, backend: Backend, most_bytes: int) -> None:
        self._backend, self._most_bytes = backend, most_bytes
        self._sessions: dict[_File, Any] = {}
        self.given_up = 0

    def session(self, path: Path) -> Any:
        """The loaded model of a file, as the file is now."""
        found = path.stat()
        file = _File(path, found.st_mtime_ns, found.st_size)
        session = self._sessions.pop(file, None)
        if session is None:
            self._make_room(file.size)
            session = self._backend.load(path)
        self._sessions[file] = session
        return session

    def _make_room(self, size: int) -> None:
        while self._sessions and size + sum(file.size for file in self._sessions) > self._most_bytes:
            del self._sessions[next(iter(self._sessions))]
            self.given_up += 1


class _File(NamedTuple):
    """A file at a time, and its size in bytes."""

    path: Path
    changed_ns: int
    size: int


def _own_visit(session: Any, profiled: bool, limit_s: float) -> Visit:
    """Let a loaded model measure itself, as it runs many times at once."""
    ms, kernels = session.visit(profiled, limit_s)
    return Visit(float(ms), None if kernels is None else tuple(map(_checked, kernels)))


def visit(session: Any, watch: SpeedWatch | None = None, profiled: bool = True) -> Visit:
    """Measure a loaded model: warm up, then run in a burst, or in several.

    Runs of a burst follow each other, as what finds the speed of the machine drives a small network out of
    the cache.

    Args:
        session: the model.
        watch: watches this machine, if the model runs on it: there is one burst then, kept with the speed
            around it, and many visits. Else the least run of several bursts counts.
        profiled: whether to ask for its kernels.
    """
    session.run()
    runs = _runs_of_burst(float(session.run()))
    bursts = () if watch is None else (_burst(session, runs, watch),)
    ms = bursts[0].ms if bursts else _least_ms(session, runs)
    profile = getattr(session, "kernels", None) if profiled else None
    kernels = None if profile is None else tuple(map(_checked, profile(_PROFILED)))
    return Visit(ms, kernels, bursts)


def _burst(session: Any, runs: int, watch: SpeedWatch) -> Burst:
    before = watch.now()
    ms = min(float(session.run()) for _ in range(runs))
    after = watch.now()
    return Burst(ms, Speed(*map(statistics.mean, zip(before, after, strict=True))))


def _least_ms(session: Any, runs: int) -> float:
    """The least latency of a run in ms, of bursts that follow each other."""
    taken: list[float] = []
    bursts = 0
    while bursts < _LEAST or (bursts < _MOST and sum(taken) < _ENOUGH_MS):
        taken += [float(session.run()) for _ in range(runs)]
        bursts += 1
    return min(taken)


def _runs_of_burst(ms: float) -> int:
    """How often a model of this latency runs in a burst; a latency may be no number."""
    return max(1, math.ceil(_BURST_MS / ms)) if ms > _BURST_MS / _MOST_RUNS else _MOST_RUNS


def _checked(kernel: KernelTime) -> KernelTime:
    """Return a kernel of a backend in the types that are declared.

    Raises:
        MeasurementError: it is no kernel, or took no number of ms.
    """
    try:
        operators, kind, ms = kernel
    except (TypeError, ValueError) as error:
        raise MeasurementError(f"{kernel!r} is no KernelTime(operators, kind, ms)") from error
    if not 0 <= float(ms) < math.inf:
        raise MeasurementError(f"kernel {kind} took {ms} ms")
    return KernelTime(tuple(map(str, operators)), str(kind), float(ms))
