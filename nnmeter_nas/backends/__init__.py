"""Backends: run model files on a device, and say how long they take."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import NnMeterNasError, SettingsError, UnknownBackendError, nearest
from .base import Attached, Backend, KernelTime, Session, as_attached

__all__ = ["BACKENDS", "Attached", "Backend", "KernelTime", "Session", "as_attached", "load_backend"]

#: Backends that come with the package: name -> ``module:class``, or a function that makes one.
BACKENDS = {
    "litert": "nnmeter_nas.backends.litert:LiteRt",
    "onnxruntime": "nnmeter_nas.backends.onnx_runtime:OnnxRuntime",
    "openvino": "nnmeter_nas.backends.openvino:OpenVino",
    "tflite-adb": "nnmeter_nas.backends.adb.tflite:TfliteAdb",
    "tvm": "nnmeter_nas.backends.tvm.backend:tvm_backend",
}
#: What every backend has.
_PARTS = ("name", "version", "suffix", "write", "load")


def load_backend(name: str, options: Mapping[str, str] | None = None) -> Backend:
    """Return the backend called ``name``, or of the user's class ``module:class``.

    The module may be in the current folder.

    Args:
        name: of the backend.
        options: named arguments of its class.

    Raises:
        UnknownBackendError: there is no such backend, or it cannot be made.
        SettingsError: it has no such option, or not with this value.
        MissingPackageError: its runtime is not installed.
    """
    module, _, attribute = BACKENDS.get(name, name).partition(":")
    if not attribute:
        raise UnknownBackendError(
            f"no backend is called {name!r}, and it is no class such as my_module:MyBackend; "
            f"{nearest(name, BACKENDS)}"
        )
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        made_by = getattr(import_module(module), attribute)
        _check_options(name, made_by, options or {})
        backend: Backend = made_by(**options or {})
    except NnMeterNasError:
        raise
    except Exception as error:
        if name in BACKENDS:
            raise
        where = ""
        if isinstance(error, ModuleNotFoundError):
            where = "; a module must be installed, in the current folder, or in one that PYTHONPATH names"
        raise UnknownBackendError(
            f"backend {name!r} cannot be made: {type(error).__name__}: {error}{where}"
        ) from error
    finally:
        sys.path.remove("")
    # The class first: a property may reach for a device.
    missing = [part for part in _PARTS if not (hasattr(type(backend), part) or hasattr(backend, part))]
    if missing:
        raise UnknownBackendError(
            f"backend {name!r} has no {missing[0]!r}; a backend has {', '.join(_PARTS)}"
        )
    if not str(backend.suffix).startswith("."):
        raise UnknownBackendError(f"backend {name!r} has the suffix {backend.suffix!r}; one is like '.onnx'")
    return backend


def _check_options(name: str, made_by: Any, options: Mapping[str, str]) -> None:
    """Refuse options that the class of a backend does not take.

    Raises:
        SettingsError: it has no such option.
    """
    if not options:
        return
    known = list(inspect.signature(made_by).parameters)
    for option in options:
        if option not in known:
            raise SettingsError(
                f"backend {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}"
            )
