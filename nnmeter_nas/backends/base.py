"""What a backend is: it runs model files on a device, and says how long they take."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import networkx as nx


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
    """A loaded model."""

    def run(self) -> float:
        """Run once; return the latency in ms."""
        ...


class Backend(Protocol):
    """A way to run model files on a device.

    Attributes:
        name: what users call it.
        suffix: of the files that it reads.
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
