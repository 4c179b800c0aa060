"""Joblib's Dask backend, kept from waiting for ever for a chunk that Dask gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Loaded by nnmeter_nas.parallel.bulk alone, and late: joblib and Dask are optional.
from joblib._dask import DaskDistributedBackend


class DaskBackend(DaskDistributedBackend):
    """Tells joblib of failures too; the backend that it has tells of results alone."""

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Have Dask run ``func``, and call ``callback`` with what comes of it."""
        future = super().submit(func, callback)
        if callback is not None:
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future
