"""Backends of this package in nn-Meter's form: runtimes on this machine, and TFLite on a phone."""

from __future__ import annotations

import atexit
import logging
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

from ...backends import Attached, Backend, load_backend
from ...builder.attached import patiently
from ...builder.measuring import visit_in_a_row
from ...builder.visits import Undisturbed, Visit, latency_of
from ...builder.worker import Worker
from ...errors import DeviceLostError, MeasurementError, SettingsError
from .interface import BaseBackend
from .models import convert_model
from .results import Latency, ProfiledResults

#: Options of a backend and their values.
_Told = tuple[tuple[str, str], ...]
#: Visits of a model, and seconds after which one counts as hanging.
_VISITS, _LIMIT_S = 3, 60.0
#: Seconds to wait for a phone whose cable came loose.
_PATIENCE_S = 60.0
#: Runtime -> this machine as it was at the first visit; all latencies are of that speed.
_MACHINES: dict[str, Undisturbed] = {}
#: Settings of a phone in nn-Meter's file, and what our backend calls them.
_OF_PHONE = {
    "DEVICE_SERIAL": "serial",
    "BENCHMARK_MODEL_PATH": "benchmark_model",
    "REMOTE_MODEL_DIR": "folder",
}
#: Cores that nn-Meter's profiler runs a phone's models on unless told otherwise.
_CORES = "70"

logger = logging.getLogger("nn-Meter")


class RuntimeBackend(BaseBackend):
    """A backend of this package, in a process of its own that may hang or crash.

    Attributes:
        runtime: name of the backend, or a user's class ``module:Class``.
    """

    runtime = "litert"

    def __init__(self, configs: Any) -> None:
        super().__init__(configs)
        self._backend = _backend_of(self.runtime, self._told)

    def update_configs(self) -> None:
        """Set what the backend is told: its options, by name."""
        super().update_configs()
        self._told: _Told = ()

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

        What nn-Meter's profilers take, such as ``taskset``, has an effect on phones alone.

        Raises:
            MeasurementError: the runtime refused the model, died of it or did not end in time.
            DeviceLostError: the phone does not answer.
            SettingsError: an option has no such value.
        """
        worker = self._worker(**options)

        def visited() -> Visit:
            return worker.sound_visit(Path(converted_model), profiled=False)

        def patient() -> Visit:
            return patiently(visited, self._backend, _say_once, _PATIENCE_S)

        visits = visit_in_a_row(self._backend, _VISITS, patient)
        if visits[0].speed is not None:
            _MACHINES.setdefault(self.runtime, Undisturbed(visits[0].speed))
        machine = _MACHINES.get(self.runtime)
        ms = [latency_of(visit, machine) for visit in visits]
        return ProfiledResults({"latency": Latency(statistics.mean(ms), statistics.stdev(ms))}).get(metrics)

    def _worker(self, **options: Any) -> Worker:
        """What visits models with the options of a profiler."""
        return _worker_of(self.runtime, self._told)

    def test_connection(self) -> None:
        """Start the process, and greet as nn-Meter's backends do."""
        self._worker()
        logger.info("hello backend ! %s %s", self._backend.name, self._backend.version)


class TFLiteBackend(RuntimeBackend):
    """TFLite's ``benchmark_model`` on a phone over adb, by the settings of the workspace.

    Models go into a folder of their own in REMOTE_MODEL_DIR, which is removed when the program ends.

    Attributes:
        delegate: what runs the models, see :class:`nnmeter_nas.backends.adb.tflite.TfliteAdb`.

    Raises:
        DeviceLostError: the phone does not answer.
        MeasurementError: another process measures on it.
    """

    runtime = "tflite-adb"
    delegate = "default"

    def __init__(self, configs: Any) -> None:
        with _by_settings():
            super().__init__(configs)
            self._attached = cast(Attached, self._backend)
            for line in self._attached.look():
                logger.info(line)
        atexit.register(self.close)

    def update_configs(self) -> None:
        """Take over which phone it is, and where its tool and models are."""
        super().update_configs()
        configs = self.configs or {}
        self._phone = tuple((name, str(configs[key])) for key, name in _OF_PHONE.items() if configs.get(key))
        # One for all that measures on this phone, as it keeps others from it.
        self._told = (*self._phone, ("taskset", _CORES))

    def profile(
        self, converted_model: str, metrics: Sequence[str] = ("latency",), **options: Any
    ) -> dict[str, Any]:
        """As on this machine; errors name the settings of the workspace."""
        with _by_settings():
            return super().profile(converted_model, metrics, **options)

    def test_connection(self) -> None:
        """Start the process, and greet as nn-Meter's backends do."""
        with _by_settings():
            super().test_connection()

    def _worker(self, **options: Any) -> Worker:
        """As nn-Meter's profiler: on the cores of the mask ``taskset``, and perhaps without XNNPACK."""
        cores = options.get("taskset", _CORES) or ""
        is_plain = options.get("close_xnnpack") and self.delegate == "default"
        delegate = "none" if is_plain else self.delegate
        return _worker_of(self.runtime, (*self._phone, ("taskset", str(cores)), ("delegate", delegate)))

    def close(self) -> None:
        """End what runs on the phone, and take back what was put there."""
        self._attached.close()


class TFLiteGpuBackend(TFLiteBackend):
    """The same on the phone's GPU."""

    delegate = "gpu"


@contextmanager
def _by_settings() -> Iterator[None]:
    """Let errors about a phone name the settings of the workspace, not the arguments of our backend."""
    try:
        yield
    except (SettingsError, DeviceLostError, MeasurementError) as error:
        message = str(error)
        for setting, name in _OF_PHONE.items():
            message = re.sub(rf"\b{name}=", f"{setting}: ", message)
            message = message.replace(f"argument {name}", f"setting {setting}")
        raise type(error)(message) from error


@cache
def _backend_of(runtime: str, told: _Told) -> Backend:
    """A backend of this package that was told this."""
    return load_backend(runtime, dict(told))


@cache
def _worker_of(runtime: str, told: _Told) -> Worker:
    """The one process of a runtime that was told this."""
    _backend_of(runtime, told)  # wrong options are told here, not by a process that ends
    return Worker(runtime, _LIMIT_S, dict(told))


@cache
def _say_once(text: str) -> None:
    logger.warning(text)
