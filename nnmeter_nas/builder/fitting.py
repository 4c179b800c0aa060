"""Fit kernel predictors to what was observed, at the speed of the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import BoolArray, FloatArray
from ..packs.doubt import Doubt
from ..packs.network import KernelNetwork
from ..training.intervals import Errors, choose_prototypes, errors_of
from ..training.settings import Settings
from ..training.table import KernelTable

#: Less than for the bundled packs: runtimes on CPUs do run a few channels more, which fill whole vectors,
#: several times as fast.
_MONOTONY_PENALTY = 1.0
#: Less than for the bundled packs, whose measurements are noisier. Chosen by fits that lack some networks.
_LOSS_SCALE = 0.05
#: Latencies are scaled so that a kernel takes so much in the median: the fit starts from costs of this size.
_KERNEL_MS = 0.3
#: Steps of the fit of a pack, and of fits that only judge; members of the latter.
_STEPS, _QUICK_STEPS, _QUICK_MEMBERS = 3000, 1000, 2
#: Parts of the networks, each of which is judged by a fit without it.
_FOLDS = 4


def full_fit(table: KernelTable, members: int, seed: int) -> KernelNetwork:
    """Fit an ensemble to all networks and kernels of ``table``, with all care."""
    return _fit(table, np.arange(len(table.ids)), members, _STEPS, seed)


def quick_fit(
    table: KernelTable, models: npt.NDArray[np.int64], seed: int, members: int = _QUICK_MEMBERS
) -> KernelNetwork:
    """Fit a small ensemble to the ``models`` (indices) of ``table``, to judge others by it."""
    return _fit(table, models, members, _QUICK_STEPS, seed)


def _fit(
    table: KernelTable, models: npt.NDArray[np.int64], members: int, steps: int, seed: int
) -> KernelNetwork:
    import torch  # late: nothing else in a build needs it

    from ..training.fit import fit_member, rescaled

    torch.set_num_threads(1)  # quicker for such small networks, and always the same result
    [device] = table.devices
    measured = table.measured(str(device))
    per_kernel = measured / np.diff(table.start)
    scale = _KERNEL_MS / float(np.median(per_kernel[models]))
    scaled = replace(table, latency_ms=table.latency_ms * scale)
    settings = Settings(monotony_penalty=_MONOTONY_PENALTY, loss_scale=_LOSS_SCALE)
    weighted = _weighted(table, models)
    settings = replace(settings, epochs=max(1, round(steps * settings.batch / len(weighted))))
    fitted = [fit_member(scaled, str(device), weighted, settings, seed + i) for i in range(members)]
    joined = replace(fitted[0], members=[one.members[0] for one in fitted])
    return rescaled(joined, 1 / scale)


def _weighted(table: KernelTable, models: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``models``, with each network so often that pieces do not outnumber networks.

    A kernel takes another time alone than in a network, so what networks tell counts as much.
    """
    families = table.families[models]
    networks, pieces = models[families == "network"], int((families == "piece").sum())
    return np.concatenate([models, *[networks] * (round(pieces / max(1, len(networks))) - 1)])


class CrossFitted(NamedTuple):
    """What fits say of the networks and kernels that they were not trained on, in the order of the table.

    Attributes:
        ms: predicted latency, ``[models]``.
        errors: errors and doubts of the networks.
    """

    ms: FloatArray
    errors: Errors


def cross_fitted(table: KernelTable, source: npt.NDArray[np.int64], seed: int) -> CrossFitted:
    """Judge each network by a quick fit without it: one fit for each part of the networks.

    Args:
        table: networks and their kernels.
        source: the network that each of them belongs to.
        seed: decides the parts and the fits.
    """
    [device] = table.devices
    measured = table.measured(str(device))
    networks, kernels = np.flatnonzero(is_network(table)), np.flatnonzero(~is_network(table))
    fold = np.random.default_rng(seed).permutation(int(source.max()) + 1) % _FOLDS
    ms = np.zeros(len(table.ids))
    errors = Errors(np.zeros(len(networks)), np.zeros((len(networks), len(Doubt._fields))))
    for number in range(_FOLDS):
        out = fold[source] == number
        network = quick_fit(table, np.flatnonzero(~out), seed + 100 * (number + 1))
        prototypes = choose_prototypes(network, table, networks[~out[networks]], kernels[~out[kernels]])
        judged = out[networks]
        ms[out] = predicted(network, table).mean(axis=0)[out]
        found = errors_of(network, prototypes, table, networks[judged], measured)
        errors.absolute[judged], errors.doubts[judged] = found.absolute, found.doubts
    return CrossFitted(ms, errors)


def is_network(table: KernelTable) -> BoolArray:
    """Which models of a table are networks; the others are kernels."""
    return np.asarray(table.families == "network")


def predicted(network: KernelNetwork, table: KernelTable) -> FloatArray:
    """Latency in ms of each model by each member, ``[members, models]``."""
    by_member = network.known_by_member(table.configurations)
    return np.stack([table.sums(of_kernels) for of_kernels in by_member])


def shares_within(ratios: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Share of ratios within ±5 % and ±10 % of 1, in %.

    >>> shares_within([1.02, 0.93, 1.2])
    (33.3, 66.7)
    """
    off = np.abs(np.asarray(ratios) - 1)
    within = [round(100 * float(np.mean(off <= limit + 1e-12)), 1) for limit in (0.05, 0.10)]
    return within[0], within[1]
