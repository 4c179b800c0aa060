"""A device that exists only on paper: secret fusion rules and costs, known noise, and faults on request.

Builds use it as a user's backend, ``simulated_device:Device``, or ``simulated_device:SilentDevice``, which
does not tell what its kernels took. The environment says what goes wrong:
``SIMULATED_FAULTS="network0003=hang network0004=crash network0005=zero network0006=error"``; also ``nan``,
``jump`` (40 times as long), ``garbage`` (no number) and ``kernels`` (kernels that took no number of ms). A
fault with a number, as in ``zero:2``, happens so often. ``SIMULATED_NOISE`` is the standard deviation of a
run. ``SIMULATED_DRIFT`` names a file that holds how much longer everything takes now.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import networkx as nx
import numpy as np

from nnmeter_nas.backends.base import KernelTime
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.kernels.fusion import Kernel, fuse, parse_rules
from nnmeter_nas.kernels.work import work_of
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.onnx.writer import operator_of, to_onnx

#: What the device fuses; nobody but the tests knows.
RULES = (
    "add->relu", "bn->relu", "conv->add", "conv->bn", "conv->relu", "conv->hswish", "conv->swish",
    "dwconv->bn", "dwconv->relu", "dwconv->hswish", "dwconv->swish", "fc->relu",
)  # fmt: skip
#: Multiply-adds and values a millisecond, by kernel type.
_MACS = {"conv": 8e6, "dwconv": 1.5e6, "fc": 3e6, "matmul": 4e6, "convtranspose": 3e6}
_VALUES, _LAUNCH_MS = 2e6, 0.004


def operators(kernel: Kernel) -> tuple[str, ...]:
    """Return the operators that a kernel runs; a reader may name one after a part of it."""
    return tuple(sorted({operator_of(name) for name in kernel.members}))


def kernel_ms(kernel: Kernel) -> float:
    """Return what a kernel takes: a launch, its multiply-adds and the values that it moves."""
    name = kernel_type(kernel)
    macs, read, written, weights = work_of(kernel)
    moved = (read * max(1, len(kernel.in_shapes)) + written + weights) / _VALUES
    if name not in _MACS:
        return _LAUNCH_MS + moved
    channels = kernel.in_shapes[0][1] if len(kernel.in_shapes[0]) > 1 else 1
    # Few channels leave a part of the vector units idle.
    speed = _MACS[name] * (channels / (math.ceil(channels / 16) * 16)) ** 0.5
    return _LAUNCH_MS + macs / speed + moved


class Device:
    """The simulated device."""

    name = "simulated"
    version = "1.0"
    suffix = ".onnx"

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write an ONNX file."""
        path.write_bytes(to_onnx(graph))

    def load(self, path: Path) -> Simulated:
        """Load an ONNX file."""
        return Simulated(path)


class Simulated:
    """A model on the simulated device."""

    def __init__(self, path: Path) -> None:
        graph = fuse(read_model(path), parse_rules(RULES))
        self._kernels = [kernel for _, kernel in graph.nodes(data="kernel")]
        self._noise = float(os.environ.get("SIMULATED_NOISE", "0.02"))
        self._random = np.random.default_rng()
        self._fault = _fault(path)

    def run(self) -> float:
        """Return the time of one run, or fail as told."""
        if self._fault == "hang":
            time.sleep(3600)
        if self._fault == "crash":
            os._exit(11)
        if self._fault == "error":
            raise RuntimeError("operator not supported")
        if self._fault == "zero":
            return 0.0
        if self._fault == "nan":
            return math.nan
        if self._fault == "garbage":
            return "2.5 ms?"  # type: ignore[return-value]  # as a board may answer
        return sum(map(kernel_ms, self._kernels)) * self._disturbed()

    def kernels(self, runs: int) -> list[KernelTime]:
        """Return the time of each kernel."""
        lost = math.nan if self._fault == "kernels" else 1.0
        return [
            KernelTime(operators(kernel), kernel.type, kernel_ms(kernel) * self._disturbed() * lost)
            for kernel in self._kernels
        ]

    def _disturbed(self) -> float:
        """Something else runs at times, which only makes it slower; so does what the device drifts."""
        slower = 40.0 if self._fault == "jump" else 1.0
        if "SIMULATED_DRIFT" in os.environ:
            slower *= float(Path(os.environ["SIMULATED_DRIFT"]).read_text())
        return slower * (1.0 + abs(self._random.normal(0.0, self._noise)))


class SilentDevice(Device):
    """The same device, but it does not tell what its kernels took."""

    def load(self, path: Path) -> _Silent:
        """Load an ONNX file."""
        return _Silent(Simulated(path))


class PickyDevice(Device):
    """The same device, but its own code for files fails with networks that have a transpose."""

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write an ONNX file."""
        if any(op == "transpose" for _, op in graph.nodes(data="op")):
            raise ValueError("no transpose on this board")
        super().write(graph, path)


class BabblingDevice(Device):
    """The same device, but it has names of its own for operators."""

    def load(self, path: Path) -> _Babbling:
        """Load an ONNX file."""
        return _Babbling(path)


class _Babbling(Simulated):
    def kernels(self, runs: int) -> list[KernelTime]:
        """Return the time of each kernel."""
        return [one._replace(operators=("layer",)) for one in super().kernels(runs)]


class _Silent:
    def __init__(self, model: Simulated) -> None:
        self.run = model.run


def _fault(path: Path) -> str:
    """Return the fault that a network has this time; one with a number is used up."""
    for entry in os.environ.get("SIMULATED_FAULTS", "").split():
        name, _, fault = entry.partition("=")
        kind, _, count = fault.partition(":")
        if path.stem != name:
            continue
        if not count:
            return kind
        used = path.with_suffix(".faults")
        times = len(used.read_bytes()) if used.exists() else 0
        if times < int(count):
            used.write_bytes(b"x" * (times + 1))
            return kind
    return ""
