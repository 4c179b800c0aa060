"""Backends: run model files on a device, and say how long they take."""

from __future__ import annotations

import sys
from importlib import import_module

from ..errors import NnMeterNasError, UnknownBackendError, nearest
from .base import Backend, KernelTime, Session

__all__ = ["BACKENDS", "Backend", "KernelTime", "Session", "load_backend"]

#: Backends that come with the package: name -> ``module:class``.
BACKENDS = {
    "litert": "nnmeter_nas.backends.litert:LiteRt",
    "onnxruntime": "nnmeter_nas.backends.onnx_runtime:OnnxRuntime",
    "openvino": "nnmeter_nas.backends.openvino:OpenVino",
}
#: What every backend has.
_PARTS = ("name", "version", "suffix", "write", "load")


def load_backend(name: str) -> Backend:
    """Return the backend called ``name``, or of the user's class ``module:class``.

    The module may be in the current folder.

    Raises:
        UnknownBackendError: there is no such backend, or it cannot be made.
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
        backend: Backend = getattr(import_module(module), attribute)()
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
    missing = [part for part in _PARTS if not hasattr(backend, part)]
    if missing:
        raise UnknownBackendError(
            f"backend {name!r} has no {missing[0]!r}; a backend has {', '.join(_PARTS)}"
        )
    return backend
