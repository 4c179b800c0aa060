"""Joblib's Dask backend, patched to run every chunk on a worker, and to tell of one that Dask gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Only nnmeter_nas.parallel.bulk loads this module, and late, because joblib and Dask are optional.
from joblib._dask import DaskDistributedBackend


class DaskBackend(DaskDistributedBackend):
    """Reports failures to joblib too; joblib's own reports only results. It never runs a chunk here."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many chunks run at once, at least 2: with 1, joblib runs them in this process.

        So it is while workers start again, and a chunk that kills its worker would then kill the command.
        """
        return max(2, int(super().effective_n_jobs(n_jobs)))

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Any:
        """Make Dask run ``func``, and call ``callback`` with the result or the failure."""
        future = super().submit(func, callback)
        if callback is not None:
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
        return future
