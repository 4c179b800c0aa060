"""What a backend is: it runs model files on a device, and says how long they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import networkx as nx

from ..errors import MeasurementError, NnMeterNasError
from ..files import is_disk_full


class KernelTime(NamedTuple):
    """One executed kernel.

    Attributes:
        operators: names of the operators of the model graph that it runs.
        kind: what the runtime calls it.
        ms: its latency in ms.
    """

    operators: tuple[str, ...]
    kind: str
    ms: float


class Session(Protocol):
    """A loaded model.

    Two methods may be there as well. ``kernels(runs)`` runs it so often and returns a :class:`KernelTime` of
    each executed kernel. ``visit(profiled, limit_s)`` is there where to start a run costs more than to run:
    it runs it often and returns the latency in ms and the kernels, or None in their place, within ``limit_s``
    seconds.
    """

    def run(self) -> float:
        """Run once; return the latency in ms."""
        ...


class Backend(Protocol):
    """A way to run model files on a device.

    What it can be told are named arguments of its class, a text each. :class:`Attached` says what the backend
    of a device that is attached to this machine has beside. Where to write a file takes minutes, there may be
    a method ``write_slowly(graph, path, tell)``, which is called in place of ``write`` then; ``tell`` takes
    what goes on, in a few words.

    Attributes:
        name: what users call it.
        suffix: of the files that it reads.
        patience: how many times the usual limit a visit may last before it counts as hanging; may be missing.
        on_host: whether it gives CPU times of this machine, whose speed is then watched; may be missing.
        version: version of the runtime.
    """

    name: str
    suffix: str

    @property
    def version(self) -> str: ...

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a finished model graph as a file that :meth:`load` reads."""
        ...

    def load(self, path: Path) -> Session:
        """Load a model file."""
        ...


class Attached(Protocol):
    """What the backend of an attached device has beside; it reaches for the device when it is first needed.

    It and its sessions raise :class:`nnmeter_nas.errors.DeviceLostError` while the device does not answer.

    Attributes:
        machine: the device's hardware, in words.
        category: of the pack: ``cpu``, ``gpu`` or ``npu``.
        options: named arguments that make the same backend of the same device, in another process too.
        settings: what else latencies depend on; a build goes on only with the same.
    """

    @property
    def machine(self) -> str: ...

    @property
    def category(self) -> str: ...

    @property
    def options(self) -> Mapping[str, str]: ...

    @property
    def settings(self) -> Mapping[str, str]: ...

    def look(self) -> list[str]:
        """Say what there is to know of the device before it is measured; called again, what has changed."""
        ...

    def is_there(self) -> bool:
        """Whether the device answers."""
        ...

    def close(self) -> None:
        """End what runs on the device, and take back what was put there."""
        ...


def as_attached(backend: Backend) -> Attached | None:
    """The backend, if its device is attached to this machine; asking does not reach for the device."""
    return cast(Attached, backend) if hasattr(type(backend), "look") else None


def write(backend: Backend, graph: nx.DiGraph, path: Path, tell: Callable[[str], None]) -> None:
    """Write a finished model graph in the format of a backend; ``tell`` hears what goes on if it is slow.

    Raises:
        MeasurementError: the backend cannot write it.
        OSError: a disk is full.
        NnMeterNasError: what the backend raises of this package's errors.
    """
    slowly = getattr(backend, "write_slowly", None)
    try:
        if slowly is None:
            backend.write(graph, path)
        else:
            slowly(graph, path, tell)
    except NnMeterNasError:
        raise
    except Exception as error:  # a backend of the user's may raise anything
        if is_disk_full(error):
            raise
        raise MeasurementError(f"the backend cannot write it: {type(error).__name__}: {error}") from error


def is_on_host(backend: Backend) -> bool:
    """Whether the backend gives CPU times of this machine."""
    return bool(getattr(backend, "on_host", False))
