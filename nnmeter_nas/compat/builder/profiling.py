"""Convert and measure the models of a fusion test or of kernels, and keep what was measured."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import MeasurementError
from ...progress import progress
from .faults import recorded
from .results import Models, read_json, read_profiled_results, save_profiled_results, write_json
from .workspace import builder_config

__all__ = ["convert_models", "profile_models"]

logger = logging.getLogger("nn-Meter")


def convert_models(
    backend: Any,
    models: str | Models,
    mode: str = "predbuild",
    broken_point_mode: bool = False,
    model_save_path: str | None = None,
) -> Models:
    """Turn models into the format of a backend; return them with the paths as ``converted_model``.

    Args:
        backend: as :func:`nnmeter_nas.compat.builder.backends.connect_backend` returns it.
        models: the models, or the path of the file that lists them, which is written anew.
        mode: section of the settings, "ruletest" or "predbuild".
        broken_point_mode: leave out what was converted already.
        model_save_path: folder of the files; by default that of the models.

    Raises:
        WorkspaceError: no workspace is in use, or the file cannot be read.
        SettingsError: the backend cannot have models of this format.
        OSError: a disk is full.
    """
    name = os.path.basename(models) if isinstance(models, str) else "converted_results.json"
    found: Models = read_json(models) if isinstance(models, str) else models
    path, faults, count = _results(mode, name), _results(mode, "convert_error.log"), 0
    for key, model in _each(found):
        if broken_point_mode and "converted_model" in model:
            continue
        with recorded(faults, key):
            folder = model_save_path or os.path.dirname(model["model"])
            model["converted_model"] = backend.convert_model(
                model["model"], folder, input_shape=model["shapes"]
            )
            count += 1
    write_json(path, found)
    logger.info(
        "Complete converting all %s models. Save the results to %s "
        "Failed information are saved in %s (if any)",
        count, path, faults,
    )  # fmt: skip
    return found


def profile_models(
    backend: Any,
    models: str | Models,
    mode: str = "ruletest",
    metrics: Sequence[str] = ("latency",),
    save_name: str | None = "profiled_results.json",
    have_converted: bool = False,
    log_frequency: int = 50,
    broken_point_mode: bool = False,
    time_threshold: int = 300,
    model_save_path: str | None = None,
    **options: Any,
) -> Models:
    """Measure models; return them with their metrics.

    A model that cannot be measured is named in ``profile_error.log``, and the others go on.

    Args:
        backend: as :func:`nnmeter_nas.compat.builder.backends.connect_backend` returns it.
        models: the models, or the path of the file that lists them.
        mode: section of the settings, "ruletest" or "predbuild".
        metrics: what to measure.
        save_name: file of the results, to which they are added.
        have_converted: whether :func:`convert_models` was called.
        log_frequency: how many models to measure before the results are written.
        broken_point_mode: leave out what the file of results has already.
        time_threshold: seconds after which a model is given up.
        model_save_path: folder of converted models; by default that of the models.
        options: for the profiler.

    Raises:
        WorkspaceError: no workspace is in use, or a file cannot be read.
        DeviceLostError: the phone is lost; what was measured is kept, and ``broken_point_mode`` goes on.
        OSError: the phone or a disk is full; likewise.
        ToolError: the tool of the phone is missing, or cannot do what it was told.
        SettingsError, MissingPackageError: no model can be measured with these settings, or for want of a
            package.
    """
    found: Models = read_json(models) if isinstance(models, str) else models
    path = _results(mode, save_name or "profiled_results.json")
    if broken_point_mode and Path(path).is_file():
        _take_over(found, read_profiled_results(read_json(path)))
    detail, count = bool(builder_config.get("DETAIL", mode)), 0
    logger.info("Profiling ...")
    models_by_key = dict(_each(found))
    try:
        with progress(len(models_by_key)) as advance:
            for key, model in models_by_key.items():
                if not (broken_point_mode and "latency" in model and model["latency"].avg):
                    with recorded(_results(mode, "profile_error.log"), key), _limited(time_threshold):
                        model |= _profiled(backend, model, metrics, have_converted, model_save_path, options)
                        count += 1
                        if count % log_frequency == 0:
                            save_profiled_results(found, path, detail, metrics)
                            logger.info(
                                "%s models complete. Still profiling... "
                                "Save the intermediate results to %s ", count, path,
                            )  # fmt: skip
                advance(1)
    finally:
        save_profiled_results(found, path, detail, metrics)
    logger.info(
        "All %s models profiling complete. Save all success profiled results to %s "
        "Failed information are saved in %s (if any)",
        count, path, _results(mode, "profile_error.log"),
    )  # fmt: skip
    return found


def _profiled(
    backend: Any,
    model: Mapping[str, Any],
    metrics: Sequence[str],
    have_converted: bool,
    folder: str | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The metrics of one model."""
    shapes = model["shapes"]
    if have_converted:
        measured = backend.profile(model["converted_model"], metrics, input_shape=shapes, **options)
    else:
        path = model["model"]
        measured = backend.profile_model_file(
            path, folder or os.path.dirname(path), input_shape=shapes, metrics=metrics, **options
        )
    return {metric: measured[metric] for metric in metrics}


def _each(models: Models) -> Iterator[tuple[str, dict[str, Any]]]:
    for module, found in models.items():
        for name, model in found.items():
            yield f"{module}.{name}", model


def _take_over(models: Models, measured: Models) -> None:
    for module, found in models.items():
        for name, model in found.items():
            model.update(measured.get(module, {}).get(name, {}))


def _results(mode: str, name: str) -> str:
    folder = os.path.join(builder_config.get("WORKSPACE", mode), "results")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, name)


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Give up after so many seconds, where the system and the thread have alarms."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: Any) -> None:
        raise MeasurementError(f"it did not end within {seconds} s (time_threshold)")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
