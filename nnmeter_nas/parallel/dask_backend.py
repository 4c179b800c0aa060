"""Joblib's Dask backend, patched to stop waiting for a chunk that Dask gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Only nnmeter_nas.parallel.bulk loads this module, and late, because joblib and Dask are optional.
from joblib._dask import DaskDistributedBackend


class DaskBackend(DaskDistributedBackend):
    """Reports failures to joblib too; joblib's own backend reports only results."""

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Make Dask run ``func``, and call ``callback`` with the result or the failure."""
        future = super().submit(func, callback)
        if callback is not None:
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future
