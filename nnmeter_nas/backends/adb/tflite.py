"""TFLite on an Android phone, by its tool ``benchmark_model``."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import networkx as nx
from filelock import FileLock, Timeout

from ...errors import DeviceLostError, MeasurementError, SettingsError, ToolError
from ...files import sha256, user_cache_folder, write_bytes
from ...readers.tflite.file import read_operators
from ...readers.tflite.writer import to_tflite
from ..base import KernelTime
from .benchmark import latency_ms, rows, unknown_flags
from .connection import Adb, last_line
from .kernels import kernels_of
from .phone import SCRIPT, Phone, described, moved, read_phone

#: Flags of ``benchmark_model`` and category of the pack, by delegate; "default" is what a build does unasked.
_DELEGATES = {
    "none": ("--use_xnnpack=false", "cpu"),
    "xnnpack": ("--use_xnnpack=true", "cpu"),
    "gpu": ("--use_gpu=true", "gpu"),
    "nnapi": ("--use_nnapi=true", "npu"),
    "default": ("", "cpu"),
}
#: All that is put on the phone is in a folder of this name, in a file of it the number of a running process.
_OWN = "nnmeter-nas"
#: Where that folder is.
_FOLDER = "/data/local/tmp"
#: Where the tool is by TFLite's own guide.
_TOOL = "/data/local/tmp/benchmark_model"
#: Runs that count and runs under the profiler: at least so many, for so many seconds.
_RUNS = "--num_runs=20 --min_secs=0.3 --max_secs=20 --warmup_runs=1 --warmup_min_secs=0.2"
_PROFILED = (
    "--num_runs=5 --min_secs=0.1 --max_secs=10 --warmup_runs=1 --warmup_min_secs=0.1 "
    "--enable_op_profiling=true"
)
#: Seconds of a run that nobody limits.
_LIMIT_S = 60.0
#: What the tool says if a model does not run where it was told to.
_ELSEWHERE = re.compile(r"[^\n]*(?:Failed to apply \w+ delegate|unsupported on this platform)[^\n]*")
_NOTHING_THERE = re.compile(r"[^\n]*the model graph will not be executed by the delegate[^\n]*")


class TfliteAdb:
    """Runs TFLite files on a phone that adb reaches."""

    name = "tflite-adb"
    suffix = ".tflite"

    def __init__(
        self,
        serial: str = "",
        benchmark_model: str = _TOOL,
        delegate: str = "xnnpack",
        threads: str = "1",
        taskset: str = "",
        folder: str = _FOLDER,
    ) -> None:
        """Note what to do; the phone is reached when it is first needed.

        Args:
            serial: what adb calls the phone; may be left out if only one is attached.
            benchmark_model: TFLite's tool, a file here or an absolute path on the phone.
            delegate: ``none``, ``xnnpack``, ``gpu`` or ``nnapi``; or ``default``, what the tool does unasked.
            threads: threads of a run.
            taskset: cores that it may use, a mask in hex such as ``f0``; all by default.
            folder: where on the phone a folder is made for models and the tool, and removed at the end.

        Raises:
            SettingsError: an option has no such value.
        """
        if delegate not in _DELEGATES:
            raise SettingsError(f"delegate={delegate!r} must be one of {', '.join(_DELEGATES)}")
        if not threads.isdigit() or int(threads) < 1:
            raise SettingsError(f"threads={threads!r} must be a whole number of at least 1")
        if taskset and not re.fullmatch(r"(0x)?0*[1-9a-fA-F][0-9a-fA-F]*", taskset):
            raise SettingsError(f"taskset={taskset!r} must be a mask of cores in hex, as f0 for cores 4 to 7")
        if not Path(benchmark_model).is_file() and not benchmark_model.startswith("/"):
            raise SettingsError(
                f"benchmark_model={benchmark_model!r} is no file here, and no absolute path on the phone"
            )
        if not folder.startswith("/"):
            raise SettingsError(f"folder={folder!r} is no absolute path on the phone")
        self._serial, self._threads = serial, int(threads)
        self._at = folder
        self._taskset = taskset.lower().removeprefix("0x")
        self._delegate, self._tool_given = delegate, benchmark_model
        self._seen: Phone | None = None
        self._lock: FileLock | None = None

    @cached_property
    def adb(self) -> Adb:
        """The phone."""
        return Adb.to(self._serial)

    @cached_property
    def _phone(self) -> Phone:
        return read_phone(self.adb.shell(SCRIPT)[1])

    @cached_property
    def _tool_hash(self) -> str:
        """What the tool is, in twelve hex digits."""
        if Path(self._tool_given).is_file():
            return sha256(self._tool_given)[:12]
        code, said = self.adb.shell(f"sha256sum {shlex.quote(self._tool_given)}")
        if code != 0 or not re.match(r"[0-9a-f]{64}\b", said):
            raise ToolError(
                f"phone {self.adb.serial} has no TFLite tool at {self._tool_given} ({last_line(said)}); "
                "build TFLite's for it, and name the file in the argument benchmark_model"
            )
        return said[:12]

    @property
    def version(self) -> str:
        """The delegate, the threads, and which tool it is."""
        threads = f"{self._threads} thread{'s'[: self._threads > 1]}"
        return f"{self._delegate}, {threads}, tool {self._tool_hash}"

    @property
    def machine(self) -> str:
        """Maker, model and system on a chip."""
        return f"{self._phone.name}, {self._phone.soc}"

    @property
    def category(self) -> str:
        """Category of the pack."""
        return _DELEGATES[self._delegate][1]

    @property
    def options(self) -> Mapping[str, str]:
        """Named arguments that make this backend, with the serial number of the phone."""
        return {
            "serial": self.adb.serial,
            "benchmark_model": self._tool_given,
            "delegate": self._delegate,
            "threads": str(self._threads),
            "taskset": self._taskset,
            "folder": self._at,
        }

    @property
    def settings(self) -> Mapping[str, str]:
        """The phone itself, and the cores that are used."""
        return {"phone": self._phone.serial or self.adb.serial, "taskset": self._taskset or "all cores"}

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as a TFLite file."""
        write_bytes(path, to_tflite(graph))

    def load(self, path: Path) -> OnPhone:
        """Note a TFLite file, which goes to the phone for each visit and is removed after it."""
        return OnPhone(self, path)

    def look(self) -> list[str]:
        """Say what the phone is and how it may move; called again, what has moved.

        Raises:
            DeviceLostError: it does not answer.
            MeasurementError: another process measures on it.
        """
        now = read_phone(self.adb.shell(SCRIPT)[1])
        if self._seen is not None:
            before, self._seen = self._seen, now
            return moved(before, now, self._taskset)
        self._take()
        self._seen = now
        return described(now, self._taskset)

    def _take(self) -> None:
        """Keep other processes of this machine from measuring on the phone."""
        locks = user_cache_folder()
        locks.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^A-Za-z0-9]", "_", self.settings["phone"])
        lock = FileLock(locks / f"phone-{name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise MeasurementError(
                f"another process measures on phone {self.adb.serial}; both would be wrong, so wait for it"
            ) from None
        self._lock = lock

    def is_there(self) -> bool:
        """Whether the phone answers."""
        return self.adb.is_there()

    def close(self) -> None:
        """End what runs on the phone, and remove what was put there, if it answers."""
        if self._lock is not None:
            with contextlib.suppress(DeviceLostError, TimeoutError):
                self.adb.shell(f"{self._kill}; rm -rf {self._own}")
            self._lock.release()
        self._lock = self._seen = None

    def prepared(self, limit_s: float) -> str:
        """End what an earlier visit left, and return the path of the tool, which is put there if need be."""
        is_here = Path(self._tool_given).is_file()
        name = f"benchmark_model-{self._tool_hash}"
        tool = f"{self._own}/{name}" if is_here else shlex.quote(self._tool_given)
        code, said = self.adb.shell(
            f"{self._kill}; mkdir -p {self._own} && rm -f {self._own}/*.tflite; test -x {tool}"
        )
        if code != 0 and is_here:
            self.adb.push(Path(self._tool_given), f"{self.remote(name)}.part", limit_s)
            code, said = self.adb.shell(f"chmod 755 {tool}.part && mv {tool}.part {tool}")
        if code != 0:
            raise ToolError(f"phone {self.adb.serial} cannot run {tool}: {last_line(said)}")
        return tool

    def remote(self, name: str) -> str:
        """Path on the phone of a file that is put there."""
        return f"{self._at.rstrip('/')}/{_OWN}/{name}"

    @property
    def _own(self) -> str:
        """The folder of such files, as the shell takes it."""
        return shlex.quote(self.remote("").rstrip("/"))

    @property
    def _kill(self) -> str:
        """What ends a run in the shell of the phone."""
        pid = f"{self._own}/pid"
        return f"test -f {pid} && kill -9 $(cat {pid}) 2>/dev/null; rm -f {pid}"

    def run(self, tool: str, model: str, runs: str, limit_s: float) -> str:
        """Run the tool with a model on the phone; return what it says.

        Raises:
            MeasurementError: it fails or does not end, or the model does not run on the delegate.
            ToolError: it does not know the delegate.
            DeviceLostError: the phone does not answer.
        """
        flag, _ = _DELEGATES[self._delegate]
        pinned = f"taskset {self._taskset} " if self._taskset else ""
        command = f"{pinned}{tool} --graph={model} --num_threads={self._threads} {flag} {runs}"
        pid = f"{self._own}/pid"
        script = f"{command} & echo $! > {pid}; wait $!; code=$?; rm -f {pid}; (exit $code)"
        try:
            code, output = self.adb.shell(script, limit_s)
        except TimeoutError:
            self.adb.shell(self._kill)
            raise MeasurementError(f"it did not end within {limit_s:.0f} s") from None
        if code > 128:
            raise MeasurementError(f"TFLite's tool was killed by signal {code - 128}: {last_line(output)}")
        if code != 0:
            raise MeasurementError(f"TFLite's tool ended with exit code {code}: {last_line(output)}")
        elsewhere = _ELSEWHERE.search(output)
        if elsewhere is None and self.category != "cpu":
            elsewhere = _NOTHING_THERE.search(output)
        if elsewhere is not None:
            raise MeasurementError(f"it does not run with {self._delegate}: {elsewhere[0].strip()}")
        # A build that knows the delegate names it, and one that does not says so, if it is not too old.
        is_silent = "Loaded model" in output and self._delegate not in output.replace(model, "").lower()
        is_asked = self._delegate not in ("default", "none")
        if is_asked and (is_silent or flag in unknown_flags(output)):
            raise ToolError(f"this tool does not know {flag}; take a newer build, or another delegate")
        return output


class OnPhone:
    """A model that is measured on a phone."""

    def __init__(self, backend: TfliteAdb, path: Path) -> None:
        self._backend, self._path = backend, path

    def run(self) -> float:
        """Measure it; return the latency in ms."""
        return self.visit(False, _LIMIT_S)[0]

    def visit(self, profiled: bool, limit_s: float) -> tuple[float, list[KernelTime] | None]:
        """Measure it; return the latency in ms and, if it shall be ``profiled``, the kernels that are told.

        The latency comes from a run of the tool without its profiler.

        Raises:
            MeasurementError: the phone cannot run it, or not within ``limit_s`` seconds.
            ToolError: the phone cannot run any.
            DeviceLostError: the phone does not answer.
            OSError: the storage of the phone is full.
        """
        end = time.monotonic() + limit_s
        backend, there = self._backend, self._backend.remote(self._path.name)
        model = shlex.quote(there)
        tool = backend.prepared(limit_s)
        try:
            backend.adb.push(self._path, there, _left(end))
            ms = latency_ms(backend.run(tool, model, _RUNS, _left(end)))
            kernels = None
            if profiled:
                table = rows(backend.run(tool, model, _PROFILED, _left(end)))
                kernels = kernels_of(table, lambda: read_operators(self._path))
        finally:
            with contextlib.suppress(DeviceLostError, TimeoutError):
                backend.adb.shell(f"rm -f {model}")
        return ms, kernels


def _left(end: float) -> float:
    return max(1.0, end - time.monotonic())
