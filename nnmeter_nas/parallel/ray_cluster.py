"""Connect to a cluster of Ray, or start one on this machine that no other can reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ..errors import WorkerError
from ..extras import load_extra

#: Bytes of shared memory for the results of a local Ray; Ray's minimum is 75 MB.
_STORE = 100_000_000
#: Seconds to wait for a scheduler to answer.
_PATIENCE = 10


@contextmanager
def ray_cluster(cpus: int, address: str | None, purpose: str, **options: Any) -> Iterator[Any]:
    """Connect to the cluster at ``address``, and disconnect at the end; yields the module ``ray``.

    Args:
        cpus: processors of a cluster that is started here.
        address: of a running cluster, such as 10.0.0.1:6379 or auto; None starts a cluster on this machine.
            Only this machine can reach it, and it ends with the context.
        purpose: what needs Ray, for the error if it is not installed.
        options: more arguments of ``ray.init``.

    Raises:
        WorkerError: no cluster answers at ``address``, or none can be started.
        MissingPackageError: Ray is not installed.
    """
    if address is None:
        # Ray reads this when it is loaded. Without it, a local cluster is reachable from other machines.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE, **options}
    else:
        check_answers(address)
    ray = load_extra("ray", "ray", purpose)
    try:
        try:
            ray.init(address=address or "local", logging_level="error", log_to_driver=False, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerError(f"no cluster of Ray answers at {address or 'this machine'}: {error}") from error
        yield ray
    finally:
        ray.shutdown()


def check_answers(scheduler: str) -> None:
    """Raise a WorkerError if nothing listens at ``scheduler``; Ray would retry for many minutes."""
    address = urlsplit(scheduler if "//" in scheduler else f"//{scheduler}")
    try:
        if address.hostname and address.port:  # else it is a keyword of the backend, such as auto
            socket.create_connection((address.hostname, address.port), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise WorkerError(f"no scheduler answers at {scheduler}: {error}") from error
