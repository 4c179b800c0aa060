"""OpenVINO on this machine's CPU, one thread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx

from ..extras import load_extra
from ..files import write_bytes
from ..readers.onnx.writer import PART, operator_of, to_onnx
from .base import KernelTime, Session
from .host import cpu_ms, random_input

#: Runs under the profiler are looked at in so many blocks.
_BLOCKS = 3


class OpenVino:
    """Runs ONNX files with OpenVINO's CPU plugin, in floats of 32 bits."""

    name = "openvino"
    suffix = ".onnx"
    on_host = True

    def __init__(self) -> None:
        self._openvino = load_extra("openvino", "openvino", "measuring with OpenVINO")

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return str(self._openvino.__version__).partition("-")[0]

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as an ONNX file."""
        write_bytes(path, to_onnx(graph))

    def load(self, path: Path) -> Session:
        """Load an ONNX file."""
        return _Loaded(self._openvino, path)


class _Loaded:
    """One loaded model."""

    def __init__(self, openvino: Any, path: Path) -> None:
        core = openvino.Core()
        self._core, self._model = core, core.read_model(str(path))
        _name_parts(self._model)
        self._request = self._compiled(profiled=False).create_infer_request()
        self._values = [_values(one) for one in self._model.inputs]

    def _compiled(self, profiled: bool) -> Any:
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERF_COUNT": profiled,
        }
        return self._core.compile_model(self._model, "CPU", settings)

    def run(self) -> float:
        """Run once; return the CPU time of this thread in ms."""
        return cpu_ms(lambda: self._request.infer(self._values))

    def kernels(self, runs: int) -> list[KernelTime]:
        """Run at least ``runs`` times under the profiler; return each executed kernel and its median time."""
        compiled = self._compiled(profiled=True)
        request = compiled.create_infer_request()
        request.infer(self._values)
        readings = [_mean_ms(request)]
        size = -(-runs // _BLOCKS)
        for _ in range(_BLOCKS):
            for _ in range(size):
                request.infer(self._values)
            readings.append(_mean_ms(request))
        nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
        kernels = []
        # The last reading lacks what only the first run computes, such as a product of constants.
        for name in readings[-1]:
            info = nodes[name].get_rt_info() if name in nodes else {}
            originals = str(info["originalLayersNames"].astype(str)) if "originalLayersNames" in info else ""
            operators = {operator_of(one) for one in originals.split(",") if one}
            ms = _median_ms([reading[name] for reading in readings], size)
            kind = str(info["layerType"].astype(str)) if "layerType" in info else name
            kernels.append(KernelTime(tuple(sorted(operators)), kind, ms))
        return kernels


def _name_parts(model: Any) -> None:
    """Name nodes that OpenVINO's reader made of a part of an ONNX node after that node: the next one named.

    Of an LSTM, for example, only a transpose at its end keeps the name.
    """
    for node in reversed(model.get_ordered_ops()):
        name = node.get_friendly_name()
        readers = [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]
        if readers and re.fullmatch(rf"{node.get_type_name()}_\d+", name):
            node.set_friendly_name(f"{operator_of(readers[0].get_friendly_name())}{PART}{name}")


def _mean_ms(request: Any) -> dict[str, float]:
    """What the profiler gives for each executed kernel: its mean time in ms over all runs so far."""
    found = request.get_profiling_info()
    return {
        one.node_name: one.real_time.total_seconds() * 1e3
        for one in found
        if one.status == one.Status.EXECUTED
    }


def _median_ms(means: Sequence[float], size: int) -> float:
    """Median time of a run over blocks of ``size`` runs, from the mean over all runs before and after each.

    The first run, which alone is in the first mean, prepares weights and counts for nothing.

    >>> _median_ms([7.0, 4.0, 3.0], 1)
    1.0
    """
    totals = [mean * (1 + i * size) for i, mean in enumerate(means)]
    blocks = [(after - before) / size for before, after in pairwise(totals)]
    return max(0.0, statistics.median(blocks))


def _values(declared: Any) -> Any:
    shape = [size.get_length() if size.is_static else 1 for size in declared.get_partial_shape()]
    return random_input(shape, declared.get_element_type().to_dtype())
