"""Flags that spread a command's work over processes or machines."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

from ..parallel.bulk import BACKENDS, workers
from .arguments import positive_int


def add_worker_arguments(parser: argparse.ArgumentParser, journal: bool = False) -> None:
    """Add the flags for spreading work; :func:`using_workers` obeys them.

    ``journal`` adds the flag for the file from which an interrupted command goes on.
    """
    spread = parser.add_argument_group("workers", "see docs/bulk.md")
    spread.add_argument("--jobs", type=positive_int, metavar="N",
                        help="work in N processes (default: all of the cluster at --scheduler, or else "
                        "this one)")
    spread.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0],
                        help="what runs the processes (default: %(default)s, on this machine)")
    spread.add_argument("--scheduler", metavar="ADDRESS",
                        help="of a cluster of Dask or Ray; without it, one is started on this machine")
    if journal:
        spread.add_argument("--journal", type=Path, metavar="FILE",
                            help="keep what is done in FILE; after a crash, the same command goes on "
                            "from there")


def using_workers(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Use the workers that the options name; raises as :func:`nnmeter_nas.parallel.bulk.workers` does."""
    return workers(options.jobs, options.backend, options.scheduler)


def spreads(options: argparse.Namespace) -> bool:
    """Whether there are workers besides this process."""
    return options.backend != BACKENDS[0] or options.jobs not in (None, 1)
