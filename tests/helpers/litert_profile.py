"""The profile that TFLite itself prints of a model on this machine, by LiteRT's C interface.

It is the table that ``benchmark_model`` prints, from the same code, of what XNNPACK really ran.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import pytest

#: Room for a type of a tensor, a structure of the interface; it is not looked into.
_TYPE_BYTES = 1024
_CPU, _RUNS = 1, 3


def litert_profile(path: Path) -> str:
    """Run a TFLite file under the profiler, with XNNPACK; return the summary."""
    runtime = _Runtime()
    environment, model, options = (runtime.handle() for _ in range(3))
    runtime("CreateEnvironment", 0, None, ctypes.byref(environment))
    runtime("CreateModelFromFile", environment, str(path).encode(), ctypes.byref(model))
    runtime("CreateOptions", ctypes.byref(options))
    runtime("SetOptionsHardwareAccelerators", options, _CPU)
    text = ctypes.create_string_buffer(b"enable_profiling = true\n")
    keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda payload: None)
    more, compiled, profiler = (runtime.handle() for _ in range(3))
    runtime("CreateOpaqueOptions", b"runtime_options_string", text, keep, ctypes.byref(more))
    runtime("AddOpaqueOptions", options, more)
    runtime("CreateCompiledModel", environment, model, options, ctypes.byref(compiled))
    runtime("CompiledModelGetProfiler", compiled, ctypes.byref(profiler))
    inputs, outputs = (runtime.buffers(environment, model, compiled, side) for side in ("Input", "Output"))
    runtime("StartProfiler", profiler)
    for _ in range(_RUNS):
        sides = (_size(len(inputs)), inputs, _size(len(outputs)), outputs)
        runtime("RunCompiledModel", compiled, _size(0), *sides)
    runtime("StopProfiler", profiler)
    summary = ctypes.c_char_p()
    runtime("GetProfileSummary", profiler, compiled, ctypes.byref(summary))
    assert summary.value is not None
    return summary.value.decode()


_size = ctypes.c_size_t


class _Runtime:
    """LiteRT's C interface."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("ai_edge_litert")
        if found is None or found.origin is None:
            pytest.skip("the extra 'litert' is not installed")
        library = Path(found.origin).with_name("libLiteRt.so")
        if not library.exists():
            pytest.skip("this LiteRT has no library with a C interface")
        self._library = ctypes.CDLL(str(library))
        if not hasattr(self._library, "LiteRtGetProfileSummary"):
            pytest.skip("this LiteRT has no profiler")

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        assert status == 0, f"LiteRt{name} returned {status}"

    @staticmethod
    def handle() -> Any:
        """Room for a pointer."""
        return ctypes.c_void_p()

    def buffers(self, environment: Any, model: Any, compiled: Any, side: str) -> Any:
        """Buffers for all inputs or outputs of a model."""
        signature, count = self.handle(), ctypes.c_size_t()
        self("GetModelSignature", model, _size(0), ctypes.byref(signature))
        self(f"GetNumSignature{side}s", signature, ctypes.byref(count))
        made = (ctypes.c_void_p * count.value)()
        for i in range(count.value):
            tensor, needs, buffer = (self.handle() for _ in range(3))
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            self(f"GetSignature{side}TensorByIndex", signature, _size(i), ctypes.byref(tensor))
            self("GetRankedTensorType", tensor, kind)
            asked = compiled, _size(0), _size(i)
            self(f"GetCompiledModel{side}BufferRequirements", *asked, ctypes.byref(needs))
            self("CreateManagedTensorBufferFromRequirements", environment, kind, needs, ctypes.byref(buffer))
            made[i] = buffer.value
        return made
