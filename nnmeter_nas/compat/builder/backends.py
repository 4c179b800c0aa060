"""Backends in nn-Meter's form: those of this package, and what users derive theirs from."""

from __future__ import annotations

import logging
import random
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...backends import BACKENDS, load_backend
from ...builder.visits import Undisturbed
from ...builder.worker import Worker
from ...errors import UnknownBackendError, nearest
from .models import convert_model
from .registry import listed, load_class, registered
from .results import Latency, ProfiledResults
from .workspace import builder_config

__all__ = [
    "BaseBackend",
    "BaseParser",
    "BaseProfiler",
    "DebugBackend",
    "LocalBackend",
    "TFLiteBackend",
    "connect_backend",
    "list_backends",
]

#: Visits of a model, and seconds after which one counts as hanging.
_VISITS, _LIMIT_S = 3, 60.0
#: Runtime -> this machine as it was at the first visit; all latencies are of that speed.
_MACHINES: dict[str, Undisturbed] = {}
#: Devices of nn-Meter's that are none here.
_NOT_HERE = {
    "tflite_gpu": "the GPU of a phone is no backend of the drop-in",
    "openvino_vpu": "OpenVINO no longer runs on the Neural Compute Stick; its CPU is the backend 'openvino'",
}

logger = logging.getLogger("nn-Meter")


class BaseProfiler:
    """Runs a model on a device."""

    def profile(self, *arguments: Any, **options: Any) -> Any:
        """Run a model file, and return what the device says."""
        raise NotImplementedError(f"{type(self).__name__} has no profile")


class BaseParser:
    """Reads metrics from what a device says."""

    def parse(self, content: Any) -> BaseParser:
        """Read ``content``, and return this parser."""
        return self

    @property
    def results(self) -> Any:
        """What was read, as :class:`nnmeter_nas.compat.builder.results.ProfiledResults`."""
        raise NotImplementedError(f"{type(self).__name__} has no results")


class BaseBackend:
    """A device, which a profiler runs models on and a parser reads the answer of.

    Args:
        configs: ``backend_config.yaml`` of the workspace; None if there is none.
    """

    profiler_class: Any = None
    parser_class: Any = None

    def __init__(self, configs: Any) -> None:
        self.configs = configs
        self.update_configs()
        if self.parser_class:
            self.parser = self.parser_class(**self.parser_kwargs)
        if self.profiler_class:
            self.profiler = self.profiler_class(**self.profiler_kwargs)

    def update_configs(self) -> None:
        """Set the arguments of the parser and the profiler."""
        self.parser_kwargs: dict[str, Any] = {}
        self.profiler_kwargs: dict[str, Any] = {}

    def convert_model(self, model_path: str, save_path: str, input_shape: Any = None) -> str:
        """Return the path of the model in the device's format; the file itself unless overridden."""
        return model_path

    def profile(
        self, converted_model: str, metrics: Sequence[str] = ("latency",), **options: Any
    ) -> dict[str, Any]:
        """Run a converted model; return its metrics."""
        said = self.profiler.profile(converted_model, **options)
        found: dict[str, Any] = self.parser.parse(said).results.get(list(metrics))
        return found

    def profile_model_file(
        self,
        model_path: str,
        save_path: str,
        input_shape: Any = None,
        metrics: Sequence[str] = ("latency",),
        **options: Any,
    ) -> dict[str, Any]:
        """Convert a model and run it; return its metrics."""
        converted = self.convert_model(model_path, save_path, input_shape)
        return self.profile(converted, metrics, input_shape=input_shape, **options)

    def test_connection(self) -> None:
        """Find out whether the device answers."""


class LocalBackend(BaseBackend):
    """A backend of this package, on this machine, in a process of its own that may hang or crash.

    Attributes:
        runtime: name of the backend, or a user's class ``module:Class``.
    """

    runtime = "litert"

    def __init__(self, configs: Any) -> None:
        super().__init__(configs)
        self._backend = load_backend(self.runtime)

    def convert_model(self, model_path: str, save_path: str, input_shape: Any = None) -> str:
        """Return the path of the model in the runtime's format.

        Raises:
            SettingsError: the workspace writes models in a format that cannot become that one.
        """
        return convert_model(model_path, save_path, self._backend.suffix)

    def profile(
        self, converted_model: str, metrics: Sequence[str] = ("latency",), **options: Any
    ) -> dict[str, Any]:
        """Visit a model file a few times; return the mean and the standard deviation of its latency.

        What nn-Meter's profilers take, such as ``taskset``, has no effect.

        Raises:
            MeasurementError: the runtime refused the model, died of it or did not end in time.
        """
        worker = _worker(self.runtime)
        visits = [worker.sound_visit(Path(converted_model), profiled=False) for _ in range(_VISITS)]
        if visits[0].speed is not None:
            _MACHINES.setdefault(self.runtime, Undisturbed(visits[0].speed))
        machine = _MACHINES.get(self.runtime)
        ms = [visit.ms if machine is None else machine.latency([visit]) for visit in visits]
        return ProfiledResults({"latency": Latency(statistics.mean(ms), statistics.stdev(ms))}).get(metrics)

    def test_connection(self) -> None:
        """Start the process, and greet as nn-Meter's backends do."""
        _worker(self.runtime)
        logger.info("hello backend ! %s %s", self._backend.name, self._backend.version)


class TFLiteBackend(LocalBackend):
    """TFLite on this machine's CPU, by LiteRT."""

    def update_configs(self) -> None:
        """Refuse settings of a phone.

        Raises:
            UnknownBackendError: the settings name a phone.
        """
        super().update_configs()
        if serial := (self.configs or {}).get("DEVICE_SERIAL"):
            raise UnknownBackendError(
                f"DEVICE_SERIAL: {serial} names a phone, and tflite_cpu runs on this machine; leave it empty"
            )
        logger.info("tflite_cpu is the CPU of this machine, by LiteRT: DEVICE_SERIAL names no phone")


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
        backend_name: a registered backend, "tflite_cpu", "debug_backend", a backend of this package, or a
            user's class ``module:Class`` for ``nnmeter-nas build``.

    Raises:
        UnknownBackendError: there is no such backend here, or its settings are of a phone.
        SettingsError: a registered class cannot be imported.
        WorkspaceError: no workspace is in use.
        MissingPackageError: its runtime is not installed.
    """
    own = registered("backends")
    made: Callable[[Any], Any]
    if backend_name in own:
        made = load_class(own[backend_name])
    elif backend_name in _BUILT_IN:
        made = _BUILT_IN[backend_name]
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


@cache
def _worker(runtime: str) -> Worker:
    """The one process of a runtime."""
    return Worker(runtime, _LIMIT_S)


def _local(runtime: str) -> Callable[[Any], LocalBackend]:
    return type("LocalBackend", (LocalBackend,), {"runtime": runtime})


_BUILT_IN: dict[str, Callable[[Any], Any]] = {
    "tflite_cpu": TFLiteBackend,
    "debug_backend": DebugBackend,
    **{name: _local(name) for name in BACKENDS},
}
