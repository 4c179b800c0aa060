"""Optional packages: imported where they are needed, with the way to install them if they are not there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingPackageError


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """The optional ``module`` that ``extra`` of this package installs.

    Args:
        module: dotted name to import.
        extra: name of the extra in ``pip install 'nnmeter_nas[extra]'``.
        purpose: what needs it, as the start of a sentence: ``"reading ONNX files"``.

    Raises:
        MissingPackageError: the module, or a package that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingPackageError(
            f"{purpose} needs the package {package!r}: pip install 'nnmeter_nas[{extra}]'"
        ) from error
