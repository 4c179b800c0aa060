"""nn-Meter's way to build predictors of kernels: measure, fit, and measure more where the fit is bad."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import SettingsError, WorkspaceError
from .backends import connect_backend
from .forests import build_predictor_by_data, collect_kernel_data, load_forests
from .kernels import check_kernel_type, generate_config_sample
from .profiling import profile_models
from .results import Models, merge_info
from .settings import check_predbuild
from .workspace import builder_config

__all__ = [
    "build_adaptive_predictor_by_data",
    "build_initial_predictor_by_data",
    "build_latency_predictor",
    "build_predictor_for_kernel",
    "sample_and_profile_kernel_data",
]

logger = logging.getLogger("nn-Meter")


def sample_and_profile_kernel_data(
    kernel_type: str,
    sample_num: int,
    backend: str,
    sampling_mode: str = "prior",
    configs: Sequence[Mapping[str, Any]] | None = None,
    mark: str = "",
    detail: bool = True,
    metrics: Sequence[str] = ("latency",),
    **options: Any,
) -> Models:
    """Draw kernels and measure them; return them with their sizes and metrics.

    Args:
        kernel_type, sample_num, sampling_mode, configs, mark: as
            :func:`nnmeter_nas.compat.builder.kernels.generate_config_sample` takes them.
        backend: as :func:`nnmeter_nas.compat.builder.backends.connect_backend` takes it.
        detail: has no effect, as in nn-Meter: the setting DETAIL decides.
        metrics, options: as :func:`nnmeter_nas.compat.builder.profiling.profile_models` takes them.

    Raises:
        WorkspaceError, SettingsError, UnknownBackendError, MissingPackageError: as those.
    """
    device = connect_backend(backend)  # before thousands of models are written for it
    models = generate_config_sample(kernel_type, sample_num, mark, sampling_mode, configs)
    return profile_models(
        device,
        models,
        mode="predbuild",
        metrics=metrics,
        save_name=f"profiled_{kernel_type}.json",
        **options,
    )


def build_predictor_for_kernel(
    kernel_type: str,
    backend: str,
    init_sample_num: int = 1000,
    finegrained_sample_num: int = 10,
    iteration: int = 5,
    error_threshold: float = 0.1,
    predict_label: str = "latency",
    mark: str = "",
) -> tuple[Any, Models]:
    """Build the predictor of a kernel type; return the forest, and all kernels with their sizes and metrics.

    Args:
        kernel_type: as :func:`nnmeter_nas.compat.builder.kernels.list_kernels` names it.
        backend: as :func:`nnmeter_nas.compat.builder.backends.connect_backend` takes it.
        init_sample_num: kernels to draw at first.
        finegrained_sample_num: kernels to draw around each one that is predicted badly.
        iteration: how often to fit; each time but the first, kernels are drawn around those that were missed.
        error_threshold: relative error above which a kernel is predicted badly.
        predict_label: the metric.
        mark: part of the names of the files.

    Raises:
        MeasurementError: too few kernels were measured.
        WorkspaceError, SettingsError, UnknownBackendError, MissingPackageError: as
            :func:`sample_and_profile_kernel_data`.
    """
    load_forests()
    suffix = f"_{mark}" if mark else ""
    kernels = sample_and_profile_kernel_data(kernel_type, init_sample_num, backend, mark=f"prior{suffix}")
    found = _fit(kernel_type, kernels, error_threshold, f"prior{suffix}", predict_label, "Iteration 0")
    for i in range(1, iteration):
        name = f"finegrained{i}{suffix}"
        kernels = _with_more(kernel_type, kernels, found[2], finegrained_sample_num, backend, name)
        found = _fit(kernel_type, kernels, error_threshold, name, predict_label, f"Iteration {i}")
    return found[0], kernels


def build_initial_predictor_by_data(
    kernel_type: str,
    backend: str,
    init_sample_num: int = 20,
    error_threshold: float = 0.1,
    mark: str = "",
    predict_label: str = "latency",
) -> tuple[Any, Models]:
    """Build the predictor of a kernel type in one iteration, see :func:`build_predictor_for_kernel`."""
    return build_predictor_for_kernel(
        kernel_type,
        backend,
        init_sample_num,
        iteration=1,
        error_threshold=error_threshold,
        predict_label=predict_label,
        mark=mark,
    )


def build_adaptive_predictor_by_data(
    kernel_type: str,
    kernel_data: Any,
    backend: str,
    finegrained_sample_num: int = 20,
    error_threshold: float = 0.1,
    mark: str = "",
    predict_label: str = "latency",
) -> tuple[Any, Models]:
    """Do one more iteration from kernels that were measured; return as :func:`build_predictor_for_kernel`.

    Args:
        kernel_data: as :func:`nnmeter_nas.compat.builder.forests.collect_kernel_data` takes it.
        kernel_type, backend, finegrained_sample_num, error_threshold, mark, predict_label: as
            :func:`build_predictor_for_kernel` takes them.

    Raises:
        MeasurementError, WorkspaceError, SettingsError, UnknownBackendError, MissingPackageError: as
            :func:`build_predictor_for_kernel`.
    """
    name = f"finegrained_{mark}" if mark else "finegrained"
    kernels = collect_kernel_data(kernel_data, predict_label)
    _, _, missed = build_predictor_by_data(
        kernel_type, kernels, error_threshold=error_threshold, predict_label=predict_label
    )
    kernels = _with_more(kernel_type, kernels, missed, finegrained_sample_num, backend, name)
    return _fit(kernel_type, kernels, error_threshold, name, predict_label, name)[0], kernels


def build_latency_predictor(backend: str) -> None:
    """Build the predictors of all kernel types that the settings name, as many kernels of each as they say.

    The forests are in ``predictor_build/results/predictors/`` of the workspace. All settings are checked
    before the first kernel is measured.

    Raises:
        MeasurementError, SettingsError, UnknownBackendError, MissingPackageError: as
            :func:`build_predictor_for_kernel`.
        WorkspaceError: no workspace is in use, or its settings name no kernel types or are wrong.
    """
    for kernel_type, settings in _checked_kernels().items():
        build_predictor_for_kernel(
            kernel_type,
            backend,
            init_sample_num=settings["INIT_SAMPLE_NUM"],
            finegrained_sample_num=settings["FINEGRAINED_SAMPLE_NUM"],
            iteration=settings["ITERATION"],
            error_threshold=float(settings["ERROR_THRESHOLD"]),
        )


def _checked_kernels() -> Mapping[str, Mapping[str, Any]]:
    """The kernel types of the settings, and how many kernels of each are measured."""
    settings, file = builder_config.get_module("predbuild"), builder_config.file("predbuild")
    check_predbuild(file, settings)
    kernels: Mapping[str, Mapping[str, Any]] = settings.get("KERNELS") or {}
    if not kernels:
        raise WorkspaceError(f"{file}: KERNELS names no kernel types to build predictors of")
    for kernel_type in kernels:
        try:
            check_kernel_type(kernel_type)
        except SettingsError as error:
            raise WorkspaceError(f"{file}: KERNELS: {error}") from error
    return kernels


def _with_more(
    kernel_type: str, kernels: Models, missed: Any, count: int, backend: str, mark: str
) -> Models:
    """Measure ``count`` kernels around each of those that were ``missed``, if any; return all kernels."""
    if not missed:
        return kernels
    drawn = sample_and_profile_kernel_data(kernel_type, count, backend, "finegrained", missed, mark)
    return merge_info(drawn, prev_info=kernels)


def _fit(
    kernel_type: str, kernels: Models, threshold: float, mark: str, label: str, said: str
) -> tuple[Any, float | None, Any]:
    """Fit and write the predictor of an iteration, and say how good the one called ``said`` is."""
    folder = os.path.join(builder_config.get("WORKSPACE", "predbuild"), "results")
    found = build_predictor_by_data(
        kernel_type, kernels, error_threshold=threshold, mark=mark, save_path=folder, predict_label=label
    )
    logger.info("%s: acc10 %s, error_configs number: %s", said, found[1], len(found[2] or ()))
    return found
