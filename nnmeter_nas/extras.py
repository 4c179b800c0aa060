"""Import optional packages where they are needed; if one is missing, tell the user how to install it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import MissingPackageError


def load_extra(module: str, extra: str, purpose: str) -> Any:
    """Import and return the optional ``module``, which the given ``extra`` of this package installs.

    Args:
        module: dotted name to import.
        extra: name of the extra in ``pip install 'nnmeter_nas[extra]'``.
        purpose: what needs the module. It starts the error message, for example ``"reading ONNX files"``.

    Raises:
        MissingPackageError: the module, or a package that it imports, is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise _missing(str(error.name).split(".")[0], extra, purpose) from error


def need_extra(package: str, extra: str, purpose: str) -> None:
    """Raise as :func:`load_extra` does if ``package`` is not installed, without importing it."""
    if find_spec(package) is None:
        raise _missing(package, extra, purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingPackageError:
    return MissingPackageError(
        f"{purpose} needs the package {package!r}: pip install 'nnmeter_nas[{extra}]'"
    )
