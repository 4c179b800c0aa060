"""Import TVM, and what it stands on, where it is first needed."""

from __future__ import annotations

from typing import Any

from ...extras import load_extra


def load_tvm(module: str = "tvm") -> Any:
    """Import and return TVM, or another ``module`` that the extra ``tvm`` installs.

    Raises:
        MissingPackageError: it is not installed.
    """
    return load_extra(module, "tvm", "compiling and tuning with TVM")
