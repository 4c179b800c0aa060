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
from ..backends.base import KernelTime
from ..backends.host import one_thread, work_ms
from ..errors import DeviceLostError, MeasurementError
from ..files import is_disk_full

#: A burst is so many ms of runs, one after another; runs of a burst at most.
_BURST_MS, _MOST_RUNS = 8.0, 20
#: Bursts of a visit: at least, at most, and the ms of all together after which it has enough.
_LEAST, _MOST, _ENOUGH_MS = 3, 12, 60.0
#: Runs under a runtime's profiler.
_PROFILED = 5
#: Seconds that a process may take to start and load its runtime; a busy machine needs many.
_START_LIMIT_S = 300.0
#: The share of a worker's limit within which a backend that measures by itself has to give up.
_OWN_LIMIT = 0.8
#: A new process after so many models, as runtimes do not give all memory back.
_MODELS_OF_A_PROCESS = 40


class Visit(NamedTuple):
    """One measurement of one model.

    Attributes:
        ms: latency in ms, at the speed that the machine had.
        kernels: the executed kernels, if the runtime tells them.
        speed_ms: what a fixed piece of work took meanwhile, in ms; None if it ran on another machine.
    """

    ms: float
    kernels: tuple[KernelTime, ...] | None
    speed_ms: float | None = None

    def at(self, speed_ms: float | None) -> Visit:
        """The visit on a machine that does the piece of work in ``speed_ms``, if both speeds are known."""
        if speed_ms is None or self.speed_ms is None:
            return self
        return self._replace(ms=self.ms * speed_ms / self.speed_ms, speed_ms=speed_ms)


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
        self._visits = 0

    def visit(self, path: Path, profiled: bool = True) -> Visit:
        """Measure a model file, and its kernels if it shall be ``profiled`` and the runtime can.

        Raises:
            MeasurementError: the runtime refused the model, died of it or did not end in time.
            DeviceLostError: the device does not answer.
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
        if self._visits >= _MODELS_OF_A_PROCESS:
            self.close()
        try:
            if self._process is None:
                self._start()
            assert self._pipe is not None
            self._visits += 1
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
        if kind == "lost":
            raise DeviceLostError(answer)
        if kind == "full":  # that is no fault of the model
            raise OSError(*answer)
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
        self._visits = 0
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
    on_host = getattr(backend, "on_host", False)
    pipe.send(("ready", None))
    while True:
        try:
            path, profiled = pipe.recv()
        except EOFError:
            return
        try:
            end = time.monotonic() + limit_s
            session = backend.load(Path(path))
            if hasattr(session, "visit"):
                found = _own_visit(session, profiled, end - time.monotonic())
            else:
                found = visit(session, on_host, profiled)
            answer: tuple[str, Any] = "visit", found
        except DeviceLostError as error:
            answer = "lost", str(error)
        except MeasurementError as error:
            answer = "error", str(error)
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                answer = "full", (error.errno, error.strerror)
            else:
                answer = "error", traceback.format_exception_only(error)[-1].strip()
        pipe.send(answer)


def _own_visit(session: Any, profiled: bool, limit_s: float) -> Visit:
    """Let a loaded model measure itself, as it runs many times at once."""
    ms, kernels = session.visit(profiled, limit_s)
    return Visit(float(ms), None if kernels is None else tuple(map(_checked, kernels)))


def visit(session: Any, on_host: bool = False, profiled: bool = True) -> Visit:
    """Measure a loaded model: warm up, then run in bursts until it has enough.

    Runs of a burst follow each other, as what finds the speed of the machine drives a small network out of
    the cache.

    Args:
        session: the model.
        on_host: whether it runs on this machine. Each burst is then divided by the speed that the machine
            has before and after it, and their median counts; else the least.
        profiled: whether to ask for its kernels.
    """
    session.run()
    runs = _runs_of_burst(float(session.run()))
    bursts: list[float] = []
    speeds: list[float] = []
    spent = 0.0
    before = work_ms() if on_host else 0.0
    while len(bursts) < _LEAST or (len(bursts) < _MOST and spent < _ENOUGH_MS):
        taken = [float(session.run()) for _ in range(runs)]
        spent += sum(taken)
        bursts.append(statistics.median(taken) if on_host else min(taken))
        if on_host:
            after = work_ms()
            speeds.append((before + after) / 2)
            before = after
    profile = getattr(session, "kernels", None) if profiled else None
    kernels = None if profile is None else tuple(map(_checked, profile(_PROFILED)))
    if not on_host:
        return Visit(min(bursts), kernels)
    speed_ms = statistics.median(speeds)
    ms = speed_ms * statistics.median(burst / speed for burst, speed in zip(bursts, speeds, strict=True))
    return Visit(ms, kernels, speed_ms)


def _runs_of_burst(ms: float) -> int:
    """How often a model of this latency runs in a burst; a latency may be no number."""
    return max(1, math.ceil(_BURST_MS / ms)) if ms > _BURST_MS / _MOST_RUNS else _MOST_RUNS


def _checked(kernel: KernelTime) -> KernelTime:
    """Return a kernel of a backend in the types that are declared.

    Raises:
        MeasurementError: it took no number of ms.
    """
    operators, kind, ms = kernel
    if not 0 <= float(ms) < math.inf:
        raise MeasurementError(f"kernel {kind} took {ms} ms")
    return KernelTime(tuple(map(str, operators)), str(kind), float(ms))
