"""TVM on this machine's CPU, one thread, by its kernels as they are or tuned."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from ...errors import MeasurementError, SettingsError
from ...files import user_folder, write_bytes
from ...readers.onnx.writer import operator_of, to_onnx
from ..base import KernelTime, Session
from ..host import cpu_ms, one_thread, random_input
from .compiling import fuse, this_machine
from .imports import load_tvm
from .interrupts import end_if_asked, interrupts_held
from .records import open_records, read_records, records_of, trials_of
from .stored import Program, program
from .tuning import kernels_to_tune, tune

#: What watching adds to the time of each kernel, in microseconds. Measured on chains of 10 to 80 poolings:
#: how much more the kernels of 300 watched runs take than 300 other runs, by medians and by the quickest,
#: for each kernel. It was between 1.8 and 3.2.
_WATCHING_US = 2.5
#: Trials of each kernel that a build tunes.
_TRIALS = 16
#: What the virtual machine calls its own functions.
_OWN = "vm."


def tvm_backend(tuned: str = "no") -> Tvm:
    """Make the backend that runs kernels as they come, or, if ``tuned`` is "yes", tunes them first.

    Raises:
        SettingsError: it is neither "yes" nor "no".
    """
    if tuned not in ("yes", "no"):
        raise SettingsError(f"tuned={tuned!r} must be 'yes' or 'no'")
    return TunedTvm() if tuned == "yes" else Tvm()


class Tvm:
    """Runs ONNX files as TVM compiles them by default: operators fused, kernels not tuned."""

    name = "tvm"
    suffix = ".onnx"
    on_host = True
    patience = 5.0  # a visit may have to compile the network

    def __init__(self) -> None:
        self._tvm = load_tvm()

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return str(self._tvm.__version__)

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as an ONNX file."""
        write_bytes(path, to_onnx(graph))

    def load(self, path: Path) -> Session:
        """Compile an ONNX file, and load it."""
        return session(program(path.read_bytes()), operator_of)


class TunedTvm(Tvm):
    """Runs ONNX files with tuned kernels.

    Writing a file tunes its kernels, a few trials each. Those of other files that were tuned on this machine
    are not tuned again: the records are kept in the user's folder. A kernel whose tuning was interrupted gets
    the trials that it lacks.
    """

    name = "tuned tvm"
    suffix = ".tuned"  # a file of anybody else's was not tuned, and is written anew

    def __init__(self) -> None:
        super().__init__()
        self._done: set[str] = set()

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as an ONNX file, and tune those of its kernels that are new."""
        self.write_slowly(graph, path, lambda _: None)

    def write_slowly(self, graph: nx.DiGraph, path: Path, tell: Callable[[str], None]) -> None:
        """Do as :meth:`write` does; ``tell`` hears which kernel is tuned."""
        content, target = to_onnx(graph), this_machine()
        with one_thread():
            with interrupts_held():
                tell("looking for kernels to tune")
                new = self._new_kernels(content, target)
            if new:
                with _locked(self._folder, tell), interrupts_held():
                    records = open_records(self._folder)
                    for number, (kernel, task) in enumerate(new.items(), 1):
                        end_if_asked()
                        tell(f"tuning kernel {number} of {len(new)}")
                        self._tune(task, target, records)
                        self._done.add(kernel)
        write_bytes(path, content)

    def _new_kernels(self, content: bytes, target: Any) -> dict[str, Any]:
        """The kernels of a model whose tuning did not come to an end here yet, as tasks by their digests."""
        try:
            tasks = kernels_to_tune(fuse(content, target), target)
        except Exception:  # of whatever kind: it is raised again where the file is loaded
            return {}
        digest = load_tvm("tvm.s_tir.meta_schedule").utils.shash2hex
        found = {digest(task.dispatched[0]): task for task in tasks}
        return {kernel: task for kernel, task in found.items() if kernel not in self._done}

    def _tune(self, task: Any, target: Any, records: Any) -> None:
        """Make the trials that a kernel lacks; one that has too few schedules is asked only once for more."""
        lacking = _TRIALS - len(trials_of(records_of(records, task.dispatched[0])))
        tune([task], target, records, lacking, lambda _: None)

    def load(self, path: Path) -> Session:
        """Compile an ONNX file by the records, and load it."""
        found = program(path.read_bytes(), read_records(self._folder), str(self._folder))
        return session(found, operator_of)

    @property
    def _folder(self) -> Path:
        return user_folder() / "tvm-records"


@contextlib.contextmanager
def _locked(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Let no other process add to the records in ``folder`` meanwhile; wait for one that does.

    TVM counts the lines of its files itself, so records that another process adds would be taken for others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell("waiting: another build tunes kernels")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def session(found: Program, operator: Callable[[str], str] = str) -> Session:
    """Load a compiled model; the session tells of its kernels if TVM does.

    Args:
        found: the model.
        operator: returns the operator that a node belongs to, by their names; by default it is the node.
    """
    if found.kernels is None:
        return _Loaded(found)
    kernels = [(name, tuple(dict.fromkeys(map(operator, nodes)))) for name, nodes in found.kernels]
    return _Watched(found, kernels)


class _Loaded:
    """One loaded model. With one thread, TVM computes in the thread that calls it.

    Attributes:
        inputs: what it runs on.
    """

    def __init__(self, found: Program) -> None:
        tvm = load_tvm()
        relax = load_tvm("tvm.relax")
        self._machine = relax.VirtualMachine(found.library, tvm.cpu())
        self.inputs = [random_input(shape) for shape in found.shapes]
        self._values = [tvm.runtime.tensor(one) for one in self.inputs]
        self._main = self._machine["main"]

    def run(self) -> float:
        """Run once; return the CPU time of this thread in ms."""
        return cpu_ms(lambda: self._main(*self._values))

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Run once; return the results."""
        found = self._main(*self._values)
        return [one.numpy() for one in ([found] if hasattr(found, "numpy") else found)]


class _Watched(_Loaded):
    """One loaded model whose ``kernels`` are known: the name of each, and its operators."""

    def __init__(self, found: Program, kernels: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        super().__init__(found)
        self._kernels = kernels

    def kernels(self, runs: int) -> list[KernelTime]:
        """Run ``runs`` times and watch; return each executed kernel with its time in ms.

        Raises:
            MeasurementError: the program runs other kernels than were compiled.
        """
        taken = [self._watched() for _ in range(runs)]
        names = [name for name, _ in taken[0]]
        if names != [name for name, _ in self._kernels]:
            raise MeasurementError(f"TVM ran {len(names)} kernels, and compiled {len(self._kernels)} others")
        times = np.median([[us for _, us in run] for run in taken], axis=0)
        spent: dict[tuple[tuple[str, ...], str], float] = {}
        for (name, operators), us in zip(self._kernels, times.tolist(), strict=True):
            key = operators, name
            spent[key] = spent.get(key, 0.0) + max(0.0, us - _WATCHING_US) / 1e3
        return [KernelTime(operators, name, ms) for (operators, name), ms in spent.items()]

    def _watched(self) -> Sequence[tuple[str, float]]:
        """Run once; return the name of each executed kernel, and its CPU time in microseconds."""
        found: list[tuple[str, float]] = []
        start = 0

        def watch(_: Any, name: str, before: bool, *__: Any) -> int:
            nonlocal start
            if before:
                start = time.thread_time_ns()
            elif not name.startswith(_OWN):
                found.append((name, (time.thread_time_ns() - start) / 1e3))
            return 0  # go on as usual

        self._machine.set_instrument(watch)
        try:
            self._main(*self._values)
        finally:
            self._machine.set_instrument(None)
        return found
