"""Spread bulk work that is too much for one process over processes or machines, through joblib.

    with workers(jobs=8):                                        # processes of this machine
        for result in spread(function, chunks): ...
    with workers(backend="dask", scheduler="tcp://10.0.0.1:8786"):
        ...

Any backend that joblib is configured to use works, also one set by ``joblib.parallel_config``. Results come
in the order of the chunks. They do not depend on where a chunk ran: a chunk depends only on itself.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Generic, TypeVar

from ..errors import NnMeterNasError, UnknownDeviceError, WorkerError
from ..extras import load_extra
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor, load_latency_predictor
from ..progress import progress
from .ray_cluster import check_answers, ray_cluster

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

#: Backends for :func:`workers`. The first comes with joblib; each other is an extra of this package.
BACKENDS = ("loky", "dask", "ray")
#: Chunks per worker at a time if a backend returns results of many chunks at once.
_ROUND = 4
_DASK_GIVES_UP = "KilledWorker"
#: Seconds between two looks of a worker at whether its parent lives.
_LOOK = 2.0


@contextmanager
def workers(jobs: int | None = None, backend: str = "loky", scheduler: str | None = None) -> Iterator[None]:
    """Make :func:`spread` use ``jobs`` workers of ``backend`` until the context ends.

    Args:
        jobs: number of workers; None means all of the cluster at ``scheduler``, or one without a cluster.
            With loky, one worker means this process.
        backend: one of :data:`BACKENDS`.
        scheduler: address of a running cluster of Dask or Ray; None starts a cluster of ``jobs`` processes on
            this machine. Only this machine can reach it, and it ends with the context.

    Raises:
        WorkerError: ``backend`` is unknown or takes no scheduler, or no cluster answers at ``scheduler``.
        MissingPackageError: joblib, Dask or Ray is not installed.
    """
    if backend not in BACKENDS:
        raise WorkerError(f"backend={backend!r} is unknown; take one of {', '.join(BACKENDS)}")
    if jobs is not None and jobs < 1:
        raise WorkerError(f"jobs={jobs} must be at least 1")
    if backend == "loky" and scheduler:
        raise WorkerError(f"scheduler={scheduler!r} is for backend 'dask' or 'ray'; loky has none")
    if backend == "loky" and jobs in (None, 1):
        yield
        return
    joblib = _joblib()
    if scheduler:
        check_answers(scheduler)
    with ExitStack() as running:
        if backend == "loky":
            options: dict[str, Any] = {"backend": "loky", "n_jobs": jobs, "inner_max_num_threads": 1}
            running.callback(_end_loky)
        else:
            options = (_dask if backend == "dask" else _ray)(running, jobs, scheduler)
        running.enter_context(joblib.parallel_config(**options))
        yield


def spread(
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    description: str | None = None,
    lost: Callable[[Chunk, WorkerError], Result] | None = None,
) -> Iterator[Result]:
    """Yield the result of ``function`` for each of ``chunks`` in order, each as soon as it is ready.

    Chunks run on the workers set by :func:`workers` or ``joblib.parallel_config``, else in this process. If a
    worker dies, its chunks run again; if that repeats, one of them at a time, until it is known which chunk
    kills its worker.

    Args:
        function: a function from a module that workers can import; it always returns the same result for a
            chunk.
        chunks: small descriptions of the work, sent to the workers.
        description: text of the bar on a terminal; None means no bar.
        lost: called in this process for a chunk whose worker dies even where it runs alone; what it returns
            is the chunk's result. None raises the WorkerError that it would get.

    Raises:
        WorkerError: workers died repeatedly at the same chunk.
        NnMeterNasError: raised by ``function``.

    Warns:
        Warning: raised by ``function``; messages that differ only in figures are shown once. Also if workers
            die.
    """
    warned: set[tuple[type[Warning], str]] = set()
    with progress(len(chunks) if description else 0, description or "", least=1) as advance:
        for done in _results(function, chunks, lost):
            for kind, message in done.warnings:
                topic = kind, re.sub(r"\d[\d.]*", "", message)
                if topic not in warned:
                    warned.add(topic)
                    warnings.warn(message, kind, stacklevel=2)
            if done.error is not None:
                raise done.error
            assert done.result is not None
            yield done.result
            advance(1)


@dataclass(frozen=True)
class TravellingPredictor:
    """A predictor's identity, sent to a worker, which must have the pack."""

    device: str
    version: float
    fingerprint: str

    @classmethod
    def of(cls, predictor: LatencyPredictor) -> TravellingPredictor:
        """Describe ``predictor`` for a worker."""
        return cls(predictor.device, predictor.version, pack_fingerprint(predictor.pack))

    def load(self) -> LatencyPredictor:
        """Load a fresh predictor from the packs of the calling machine.

        Raises:
            WorkerError: its pack is missing there, or has another content.
        """
        there = f"of {self.device} {self.version} on the worker {socket.gethostname()}"
        way_out = (
            "import it there too (nnmeter-nas predictors import), or let NNMETER_NAS_HOME name a folder that "
            "all machines share"
        )
        try:
            predictor = load_latency_predictor(self.device, self.version)
        except UnknownDeviceError as error:
            raise WorkerError(f"there is no predictor pack {there}: {way_out}") from error
        if pack_fingerprint(predictor.pack) != self.fingerprint:
            raise WorkerError(f"the predictor pack {there} has another content: {way_out}")
        return predictor


@dataclass(frozen=True)
class _Done(Generic[Result]):
    """The outcome of a chunk. Our errors are sent as values: some backends do not pass on exceptions."""

    result: Result | None
    error: NnMeterNasError | None
    warnings: list[tuple[type[Warning], str]]


def _run(function: Callable[[Chunk], Result], chunk: Chunk) -> _Done[Result]:
    """Run one chunk, in this process or in a worker."""
    result, failure = None, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(chunk)
        except NnMeterNasError as error:
            failure = error
    return _Done(result, failure, [(w.category, str(w.message)) for w in caught])


def _run_in_worker(command: int, function: Callable[[Chunk], Result], chunk: Chunk) -> _Done[Result]:
    """Run one chunk in a worker of the process ``command``."""
    if os.getppid() == command:
        _end_with(command)
    return _run(function, chunk)


@lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """Make this worker end soon after its parent, even if that is killed; loky's would wait for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _results(
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    lost: Callable[[Chunk, WorkerError], Result] | None,
) -> Iterator[_Done[Result]]:
    """Yield the outcome of each chunk; chunks lost with a worker run again, from the second time on alone."""
    done, lost_at = 0, -1
    while done < len(chunks):
        alone = lost_at == done
        try:
            for result in _once(function, chunks[done : done + 1] if alone else chunks[done:]):
                done += 1
                yield result
        except _deaths() as error:
            # Which of the chunks under way killed the worker is known only of one that ran alone. Dask has
            # tried the chunk that it names on four workers before it raises this, but does not say which.
            if alone:
                where = f"chunk {done + 1} of {len(chunks)}: {chunks[done]}"
                result = _lost(where, chunks[done], error, lost)
                done += 1
                yield result
                continue
            lost_at = done
            warnings.warn(f"a worker died at chunk {done + 1} of {len(chunks)} or next to it; they run again",
                          stacklevel=2)  # fmt: skip


def _lost(
    where: str, chunk: Chunk, error: BaseException, lost: Callable[[Chunk, WorkerError], Result] | None
) -> _Done[Result]:
    """Return the outcome of a chunk that kills its workers; ``where`` names it."""
    told = WorkerError(
        f"workers die again and again at {where}; mostly memory is short: take fewer jobs, or machines with "
        f"more ({type(error).__name__}: {error})"
    )
    if lost is None:
        return _Done(None, told, [])
    return _Done(lost(chunk, told), None, [])


def _once(function: Callable[[Chunk], Result], chunks: Sequence[Chunk]) -> Iterator[_Done[Result]]:
    """Yield the outcome of each chunk until a worker dies."""
    if "joblib" not in sys.modules:  # so it cannot have been configured
        yield from (_run(function, chunk) for chunk in chunks)
        return
    joblib = _joblib()
    backend, _ = joblib.parallel.get_active_backend()
    calls = (joblib.delayed(_run_in_worker)(os.getpid(), function, chunk) for chunk in chunks)
    if backend.supports_return_generator:
        yield from joblib.Parallel(batch_size=1, return_as="generator")(calls)
        return
    with joblib.Parallel(batch_size=1) as parallel:
        while results := parallel(islice(calls, _ROUND * joblib.effective_n_jobs(parallel.n_jobs))):
            yield from results


def _end_loky() -> None:
    """End the workers of loky.

    It would keep them for the next use and replace those that end meanwhile, but does not always notice when
    such a replacement dies: a command would wait for it forever.
    """
    loky = load_extra("joblib.externals.loky", "bulk", "spreading work over processes")
    loky.get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _deaths() -> tuple[type[BaseException], ...]:
    """Return the exceptions that the backends in use raise when a worker dies; loky's is a BrokenExecutor."""
    known = {"distributed.scheduler": _DASK_GIVES_UP, "ray.exceptions": "RayActorError"}
    return (BrokenExecutor, *(getattr(sys.modules[m], name) for m, name in known.items() if m in sys.modules))


def _joblib() -> Any:
    return load_extra("joblib", "bulk", "spreading work over processes")


def _dask(running: ExitStack, jobs: int | None, scheduler: str | None) -> dict[str, Any]:
    """Connect to a Dask cluster or start one, and return the options of its workers."""
    distributed = load_extra("distributed", "dask", "spreading work with Dask")
    if scheduler is None:
        scheduler = running.enter_context(
            distributed.LocalCluster(
                n_workers=jobs or 1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
            )
        )
    try:
        client = running.enter_context(distributed.Client(scheduler))
    except (OSError, ValueError) as error:
        raise WorkerError(f"no scheduler of Dask answers at {scheduler}: {error}") from error
    from .dask_backend import DaskBackend

    return {"backend": DaskBackend(client=client)}


def _ray(running: ExitStack, jobs: int | None, scheduler: str | None) -> dict[str, Any]:
    """Connect to a Ray cluster or start one, and return the options of its workers."""
    running.enter_context(ray_cluster(jobs or 1, scheduler, "spreading work with Ray"))
    load_extra("ray.util.joblib", "ray", "spreading work with Ray").register_ray()
    return {"backend": "ray", "n_jobs": jobs or -1}
