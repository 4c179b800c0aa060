"""LiteRT, which was TensorFlow Lite, on this machine's CPU, one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx

from ..extras import load_extra
from ..files import write_bytes
from ..readers.tflite.writer import to_tflite
from .base import Session
from .host import cpu_ms, random_input
from .quiet import no_messages


class LiteRt:
    """Runs TFLite files with LiteRT's interpreter, as it does by default: with XNNPACK, in floats of 32 bits.

    It does not tell what its kernels took.
    """

    name = "litert"
    suffix = ".tflite"
    on_host = True

    def __init__(self) -> None:
        self._version = load_extra("ai_edge_litert", "litert", "measuring with LiteRT").__version__
        self._runtime = load_extra("ai_edge_litert.interpreter", "litert", "measuring with LiteRT")

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return str(self._version)

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as a TFLite file."""
        write_bytes(path, to_tflite(graph))

    def load(self, path: Path) -> Session:
        """Load a TFLite file."""
        return _Loaded(self._runtime, path)


class _Loaded:
    """One loaded model. With one thread, XNNPACK computes in the thread that calls it."""

    def __init__(self, runtime: Any, path: Path) -> None:
        with no_messages():  # that it uses XNNPACK
            self._interpreter = runtime.Interpreter(str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        for declared in self._interpreter.get_input_details():
            values = random_input(declared["shape"], declared["dtype"])
            self._interpreter.set_tensor(declared["index"], values)

    def run(self) -> float:
        """Run once; return the CPU time of this thread in ms."""
        return cpu_ms(self._interpreter.invoke)
