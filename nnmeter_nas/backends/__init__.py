"""Backends: run model files on a device, and say how long they take."""

from __future__ import annotations

from importlib import import_module

from ..errors import UnknownBackendError, nearest
from .base import Backend, KernelTime, Session

__all__ = ["BACKENDS", "Backend", "KernelTime", "Session", "load_backend"]

#: Backends that come with the package: name -> ``module:class``.
BACKENDS = {
    "litert": "nnmeter_nas.backends.litert:LiteRt",
    "onnxruntime": "nnmeter_nas.backends.onnx_runtime:OnnxRuntime",
    "openvino": "nnmeter_nas.backends.openvino:OpenVino",
}


def load_backend(name: str) -> Backend:
    """Return the backend called ``name``, or of the user's class ``module:class``.

    Raises:
        UnknownBackendError: there is no such backend.
        MissingPackageError: its runtime is not installed.
    """
    module, _, attribute = BACKENDS.get(name, name).partition(":")
    if not attribute:
        raise UnknownBackendError(
            f"no backend is called {name!r}, and it is no class such as my_module:MyBackend; "
            f"{nearest(name, BACKENDS)}"
        )
    try:
        made = getattr(import_module(module), attribute)()
    except (ModuleNotFoundError, AttributeError) as error:
        if name in BACKENDS or (isinstance(error, ModuleNotFoundError) and error.name != module):
            raise
        raise UnknownBackendError(f"backend {name!r} cannot be found: {error}") from error
    backend: Backend = made
    return backend
