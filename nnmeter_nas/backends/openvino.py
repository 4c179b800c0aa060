"""OpenVINO on this machine's CPU, one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx

from ..extras import load_extra
from ..files import write_bytes
from ..readers.onnx.writer import operator_of, to_onnx
from .base import KernelTime, Session
from .host import cpu_ms, random_input


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
        """Run ``runs`` times under the profiler; return each executed kernel with its least time."""
        compiled = self._compiled(profiled=True)
        request = compiled.create_infer_request()
        ms: dict[str, list[float]] = {}
        for _ in range(runs + 1):
            request.infer(self._values)
            for found in request.get_profiling_info():
                if found.status == found.Status.EXECUTED:
                    ms.setdefault(found.node_name, []).append(found.real_time.total_seconds() * 1e3)
        nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ordered_ops()}
        kernels = []
        for name, times in ms.items():
            info = nodes[name].get_rt_info() if name in nodes else {}
            originals = str(info["originalLayersNames"].astype(str)) if "originalLayersNames" in info else ""
            operators = {operator_of(one) for one in originals.split(",") if one}
            kernels.append(KernelTime(tuple(sorted(operators)), name, min(times[1:])))
        return kernels


def _values(declared: Any) -> Any:
    shape = [size.get_length() if size.is_static else 1 for size in declared.get_partial_shape()]
    return random_input(shape)
