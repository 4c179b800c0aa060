"""What a build has found so far, as plain data for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..kernels.configuration import BoolArray, FloatArray
from ..packs.warmth import COLD, Warmth
from ..training.table import KernelTable
from .fitting import is_network, shares_within
from .observations import Observation, unusable
from .rules import Found
from .workspace import Round, Workspace


class NetworkFound(NamedTuple):
    """A network that was measured, in ms.

    Attributes:
        name: its id.
        judges: whether it judges between rounds.
        unseen: whether the fit that predicted it was not trained on it.
        measured, predicted: its latency on the device, and as predicted.
        halves: latency of every other visit, and of the rest.
    """

    name: str
    judges: bool
    unseen: bool
    measured: float
    predicted: float
    halves: tuple[float, float]

    @property
    def repeats(self) -> float:
        """Ratio of the greater to the smaller half."""
        return max(self.halves) / min(self.halves)


class KindFound(NamedTuple):
    """How well kernels of a type are predicted inside networks. Shares and errors are in %.

    Attributes:
        name: the kernel type.
        seen, unseen: kernels by whether the fit that predicted them was trained on them.
        share: its share of the time that all kernels took.
        bias: predicted over measured time of all unseen kernels, minus 1; None without such kernels.
        error: mean absolute error of those kernels, each weighted by its time.
        within_10: share of them predicted within ±10 %.
    """

    name: str
    seen: int
    unseen: int
    share: float
    bias: float | None
    error: float | None
    within_10: float | None


class LeftOut(NamedTuple):
    """A network that was left out, and why."""

    name: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Findings:
    """What a build has found.

    Attributes:
        device: content of ``device.yaml``.
        rounds: figures after each round.
        networks: the networks measured.
        kinds: kernel types, those of the largest share of the latency first.
        rules, votes: fusion rules, and how often operators were fused.
        left_out: networks that could not be measured.
        finished: whether the pack is made.
        warmth: what the pack takes small networks to gain.
    """

    device: Mapping[str, Any]
    rounds: Sequence[Round]
    networks: Sequence[NetworkFound]
    kinds: Sequence[KindFound]
    rules: Sequence[str]
    votes: Sequence[Found]
    left_out: Sequence[LeftOut]
    finished: bool
    warmth: Warmth = COLD


def findings(
    workspace: Workspace,
    observations: Sequence[Observation],
    table: KernelTable,
    ms: FloatArray,
    unseen: BoolArray | None,
    rules: Sequence[str],
    votes: Sequence[Found],
    warmth: Warmth,
) -> Findings:
    """Compare what was measured with what is predicted.

    Args:
        workspace: the networks, the rounds and the device.
        observations: the networks measured.
        table: these networks and their kernels.
        ms: predicted latency of each of them.
        unseen: which of them the fit that predicted them had not seen; None if that is so for all, at the end
            of a build.
        rules, votes: the fusion rules found.
        warmth: what the pack takes small networks to gain.
    """
    every = np.ones(len(table.ids), bool) if unseen is None else unseen
    measured, whole = table.latency_ms[:, 0], is_network(table)
    by_name = {seen.name: seen for seen in observations}
    networks = []
    for name, new, found in zip(table.ids[whole], every[whole], ms[whole], strict=True):
        seen, judges = by_name[name], workspace.networks[name].held_out
        networks.append(NetworkFound(str(name), judges, bool(new), seen.ms, float(found), seen.halves))
    types = table.types[table.index[table.start[:-1]]]
    single = ~whole & (np.diff(table.start) == 1)
    total = float(measured[single].sum())
    kinds = []
    for name in sorted(set(types[single].tolist())):
        mine = single & (types == name)
        kinds.append(_kind(name, ms[mine], measured[mine], every[mine], total))
    kinds.sort(key=lambda kind: -kind.share)
    left_out = [
        LeftOut(name, one.seed, unusable(one.visits, one.faults))
        for name, one in workspace.networks.items()
        if name not in by_name and (one.visits or one.faults)
    ]
    device, rounds, finished = dict(workspace.device), list(workspace.rounds), unseen is None
    return Findings(device, rounds, networks, kinds, rules, votes, left_out, finished, warmth)


def _kind(name: str, ms: FloatArray, measured: FloatArray, unseen: BoolArray, total: float) -> KindFound:
    share = 100 * float(measured.sum()) / total
    counts = int((~unseen).sum()), int(unseen.sum())
    if not unseen.any():
        return KindFound(name, *counts, share, None, None, None)
    ms, measured = ms[unseen], measured[unseen]
    return KindFound(
        name,
        *counts,
        share,
        100 * float(ms.sum() / measured.sum() - 1),
        100 * float(np.abs(ms - measured).sum() / measured.sum()),
        shares_within(ms / measured)[1],
    )
