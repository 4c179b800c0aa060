"""What the visits of a network tell: its latency, and what each of its kernels took of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..backends.base import KernelTime
from ..graph.traversal import topological_order
from ..kernels.configuration import Configuration, Configurations, configuration
from ..kernels.fusion import FusionRules, fuse
from ..ops import VIEW_OPS
from ..training.table import KernelTable
from .visits import Undisturbed, Visit

#: Visits of another machine are summed up by this quantile: what disturbs them mostly makes them slower.
_QUANTILE = 0.25
#: A visit so many times slower or quicker than the middle one says nothing.
_JUMP = 10.0
#: A network is left out after so many faults.
MOST_FAULTS = 3


@dataclass(frozen=True)
class Observation:
    """A network that was measured.

    Attributes:
        name: its id.
        graph: its finished model graph.
        ms: its latency, of all visits.
        halves: the same of every other visit, and of the rest.
        kernels: the executed kernels, which add up to ``ms``; empty if the runtime does not tell them.
        is_piece: whether it is some operators of a network, measured alone.
    """

    name: str
    graph: nx.DiGraph
    ms: float
    halves: tuple[float, float]
    kernels: tuple[KernelTime, ...]
    is_piece: bool = False

    @property
    def disagreement(self) -> float:
        """How far its halves are apart, as a share."""
        return max(self.halves) / min(self.halves) - 1


def observe(
    name: str, graph: nx.DiGraph, visits: Sequence[Visit], undisturbed: Undisturbed | None = None
) -> Observation | None:
    """Sum up the visits of a network; None if no two of them can be used.

    Latencies are of the machine when it is ``undisturbed``, if they are of this one.
    """
    taken = [visit for visit in visits if math.isfinite(visit.ms) and visit.ms > 0]
    middle = statistics.median_low([visit.ms for visit in taken] or [0.0])
    taken = [visit for visit in taken if middle / _JUMP <= visit.ms <= _JUMP * middle]
    if len(taken) < 2:
        return None
    halves = _summed_up(taken[::2], undisturbed), _summed_up(taken[1::2], undisturbed)
    ms = _summed_up(taken, undisturbed)
    return Observation(name, graph, ms, halves, _completed(graph, _kernels(graph, taken, ms)))


def unusable(visits: Sequence[Visit], faults: Sequence[str]) -> str:
    """Why nothing is known of a network with these visits and faults."""
    if len(faults) >= MOST_FAULTS:
        return faults[-1]
    times = ", ".join(f"{visit.ms:.4g}" for visit in visits)
    if len(visits) > 1:
        return f"no two of its visits agree: {times} ms"
    return "; ".join([f"it was measured but once: {times} ms"] * len(visits) + list(faults[-1:]))


def _summed_up(visits: Sequence[Visit], undisturbed: Undisturbed | None) -> float:
    if undisturbed is not None:
        return undisturbed.latency(visits)
    return float(np.quantile([visit.ms for visit in visits], _QUANTILE))


def _kernels(graph: nx.DiGraph, visits: Sequence[Visit], ms: float) -> list[KernelTime]:
    """The median of each kernel's share of a visit, of the ``ms`` of all."""
    shares: dict[tuple[tuple[str, ...], str], list[float]] = {}
    for visit in visits:
        taken: dict[tuple[tuple[str, ...], str], float] = {}
        for kernel in visit.kernels or ():
            # A runtime makes up names of its own, which may differ each time that it loads the network.
            operators = tuple(name for name in kernel.operators if name in graph)
            key = operators, "" if operators else kernel.kind
            taken[key] = taken.get(key, 0.0) + kernel.ms
        total = sum(taken.values())
        for key, kernel_ms in taken.items():
            shares.setdefault(key, []).append(kernel_ms / total if total else 0.0)
    medians = {key: float(np.median(of_kernel)) for key, of_kernel in shares.items()}
    total = sum(medians.values())
    return [KernelTime(ops, kind, ms * share / total) for (ops, kind), share in medians.items() if total]


def _completed(graph: nx.DiGraph, kernels: Sequence[KernelTime]) -> tuple[KernelTime, ...]:
    """Give operators that the runtime does not name to the kernel of their only reader.

    A convolution whose weights took in a batch norm may lose its name.
    """
    owner = {name: i for i, kernel in enumerate(kernels) for name in kernel.operators}
    more: dict[int, list[str]] = {}
    for name in reversed(topological_order(graph)):
        if name not in owner and graph.nodes[name]["op"] not in ("input", *VIEW_OPS):
            readers = list(graph.successors(name))
            if len(readers) == 1 and readers[0] in owner:
                owner[name] = owner[readers[0]]
                more.setdefault(owner[name], []).append(name)
    return tuple(
        kernel._replace(operators=(*kernel.operators, *more.get(i, ()))) for i, kernel in enumerate(kernels)
    )


def kernel_table(
    observations: Iterable[Observation], rules: FusionRules, device: str
) -> tuple[KernelTable, npt.NDArray[np.int64]]:
    """Make a table of networks and, as networks of one kernel, of the kernels whose time is known.

    Returns:
        The table. Its families are ``network``, ``piece`` for what was measured alone, and ``kernel`` for
        those whose time within one of them is known.
        The position of each of its models in ``observations``.
    """
    number: dict[Configuration, int] = {}
    index: list[int] = []
    start, ids, families, latency, source = [0], [], [], [], []

    def add(name: str, family: str, rows: Sequence[Configuration], ms: float, position: int) -> None:
        index.extend(number.setdefault(row, len(number)) for row in rows)
        start.append(len(index))
        ids.append(name)
        families.append(family)
        latency.append(ms)
        source.append(position)

    for position, seen in enumerate(observations):
        kernels = [kernel for _, kernel in fuse(seen.graph, rules).nodes(data="kernel")]
        rows = [configuration(kernel) for kernel in kernels]
        add(seen.name, "piece" if seen.is_piece else "network", rows, seen.ms, position)
        times = kernel_times(seen, [kernel.members for kernel in kernels])
        for i, ms in times.items():
            add(f"{seen.name}.{i}", "kernel", [rows[i]], ms, position)
    found = Configurations.of(number)
    table = KernelTable(
        ids=np.array(ids),
        families=np.array(families),
        types=found.types,
        sizes=found.sizes,
        declared=found.declared,
        index=np.array(index, np.int32),
        start=np.array(start, np.int64),
        devices=np.array([device]),
        latency_ms=np.array(latency)[:, None],
    )
    return table, np.array(source)


def kernel_times(seen: Observation, members: Sequence[Sequence[str]]) -> dict[int, float]:
    """Time of each of our kernels, by number; not of one that the runtime ran together with another."""
    owner = {name: i for i, names in enumerate(members) for name in names}
    times: dict[int, float] = {}
    mixed: set[int] = set()
    for kernel in seen.kernels:
        owners = {owner[name] for name in kernel.operators if name in owner}
        if len(owners) == 1:
            [only] = owners
            times[only] = times.get(only, 0.0) + kernel.ms
        else:
            mixed |= owners
    return {i: ms for i, ms in times.items() if i not in mixed and ms > 0}
