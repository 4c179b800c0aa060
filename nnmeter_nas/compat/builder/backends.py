"""Backends by their names: nn-Meter's, those of this package, and those that users register."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...backends import BACKENDS
from ...errors import UnknownBackendError, nearest
from .interface import BaseBackend, BaseParser, BaseProfiler
from .registry import listed, load_class, registered
from .results import Latency, ProfiledResults
from .runtimes import RuntimeBackend, TFLiteBackend, TFLiteGpuBackend
from .settings import check_tflite
from .workspace import builder_config

__all__ = [
    "BaseBackend",
    "BaseParser",
    "BaseProfiler",
    "DebugBackend",
    "TFLiteBackend",
    "TFLiteCPUBackend",
    "TFLiteGPUBackend",
    "connect_backend",
    "list_backends",
]

#: Devices of nn-Meter's that are none here.
_NOT_HERE = {
    "openvino_vpu": "OpenVINO no longer runs on the Neural Compute Stick; its CPU is the backend 'openvino'",
}

#: nn-Meter's names of a phone's two backends.
TFLiteCPUBackend, TFLiteGPUBackend = TFLiteBackend, TFLiteGpuBackend

logger = logging.getLogger("nn-Meter")


class DebugBackend(BaseBackend):
    """Returns random latencies, to try a script without a device."""

    def profile(
        self, converted_model: str, metrics: Sequence[str] = ("latency",), **options: Any
    ) -> dict[str, Any]:
        """Return a random latency below 100 ms."""
        latency = Latency(random.randrange(1, 10000) / 100, random.randrange(0, 1000) / 1000)
        return ProfiledResults({"latency": latency}).get(metrics)

    def test_connection(self) -> None:
        """Greet."""
        logger.info("hello backend !")


def connect_backend(backend_name: str) -> Any:
    """Return the backend of a name, with the settings of the workspace in use.

    Args:
        backend_name: a registered backend, "tflite_cpu", "tflite_gpu", "debug_backend", a backend of this
            package, or a user's class ``module:Class`` for ``nnmeter-nas build``.

    Raises:
        UnknownBackendError: there is no such backend here.
        DeviceLostError: the settings name a phone that does not answer.
        MeasurementError: another process measures on the phone.
        SettingsError: a registered class cannot be imported.
        WorkspaceError: no workspace is in use, or a setting of a phone is misspelt.
        MissingPackageError: its runtime is not installed.
    """
    own = registered("backends")
    made: Callable[[Any], Any]
    if backend_name in own:
        made = load_class(own[backend_name])
    elif backend_name in _BUILT_IN:
        made = _BUILT_IN[backend_name]
        if backend_name in _WITH_PHONE:
            check_tflite(builder_config.file("backend"), builder_config.get_module("backend") or {})
    elif ":" in backend_name:
        made = _local(backend_name)
    else:
        reason = _NOT_HERE.get(backend_name, "register it first: nn-meter register --backend META.yaml")
        raise UnknownBackendError(
            f"no backend {backend_name!r}: {reason}; {nearest(backend_name, [*_BUILT_IN, *own])}"
        )
    return made(builder_config.get_module("backend"))


def list_backends() -> list[str]:
    """Return the names of all backends; those of registered ones start with a star."""
    return [*_BUILT_IN, *listed("backends")]


def _tflite_cpu(configs: Any) -> RuntimeBackend:
    """TFLite on the CPU of the phone that the settings name, or else of this machine."""
    if (configs or {}).get("DEVICE_SERIAL"):
        return TFLiteBackend(configs)
    logger.info("tflite_cpu is the CPU of this machine, by LiteRT: DEVICE_SERIAL names no phone")
    return RuntimeBackend(configs)


def _local(runtime: str) -> Callable[[Any], RuntimeBackend]:
    return type("LocalBackend", (RuntimeBackend,), {"runtime": runtime})


_BUILT_IN: dict[str, Callable[[Any], Any]] = {
    "tflite_cpu": _tflite_cpu,
    "tflite_gpu": TFLiteGpuBackend,
    "debug_backend": DebugBackend,
    **{name: _local(name) for name in BACKENDS if name != TFLiteBackend.runtime},
    TFLiteBackend.runtime: TFLiteBackend,
}
#: Those that may run on a phone, by nn-Meter's settings of it.
_WITH_PHONE = frozenset({"tflite_cpu", "tflite_gpu", TFLiteBackend.runtime})
