"""Flags that spread a command's work over processes or machines."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from ..errors import SettingsError
from ..parallel.bulk import BACKENDS, workers
from .arguments import new_file, positive_int


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
                        help="of a cluster of Dask or Ray, with that --backend; without it, one is started "
                        "on this machine")
    if journal:
        spread.add_argument("--journal", type=new_file, metavar="FILE",
                            help="keep what is done in FILE; after a crash, the same command goes on "
                            "from there")


def check_workers(options: argparse.Namespace) -> None:
    """Raise a SettingsError if the flags do not go together; a command may need no workers and not notice."""
    if options.scheduler is not None and options.backend == BACKENDS[0]:
        others = " or ".join(f"backend={name}" for name in BACKENDS[1:])
        raise SettingsError(
            f"scheduler={options.scheduler} is of a cluster, and backend={options.backend} is this machine: "
            f"add {others}"
        )


def using_workers(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Use the workers that the options name.

    Raises as :func:`check_workers` and :func:`nnmeter_nas.parallel.bulk.workers` do.
    """
    check_workers(options)
    return workers(options.jobs, options.backend, options.scheduler)


def spreads(options: argparse.Namespace) -> bool:
    """Whether there are workers besides this process."""
    return options.backend != BACKENDS[0] or options.jobs not in (None, 1)
