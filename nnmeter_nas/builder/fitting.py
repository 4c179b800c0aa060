"""Fit kernel predictors to what was observed, at the speed of the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import FloatArray
from ..packs.network import KernelNetwork
from ..training.settings import Settings
from ..training.table import KernelTable

#: How much a network counts against one of its kernels.
_IMPORTANCE_OF_NETWORKS = 10.0
#: Latencies are scaled so that a kernel takes so much in the median: the fit starts from costs of this size.
_KERNEL_MS = 0.3


def fit(
    table: KernelTable, models: npt.NDArray[np.int64], members: int, steps: int, seed: int
) -> KernelNetwork:
    """Fit an ensemble to the ``models`` (indices) of ``table``: networks, and their kernels."""
    import torch  # late: nothing else in a build needs it

    from ..training.fit import fit_member, rescaled

    torch.set_num_threads(1)  # quicker for such small networks, and always the same result
    [device] = table.devices
    measured = table.measured(str(device))
    per_kernel = measured / np.diff(table.start)
    scale = _KERNEL_MS / float(np.median(per_kernel[models]))
    scaled = replace(table, latency_ms=table.latency_ms * scale)
    importance = np.where(table.families == "network", _IMPORTANCE_OF_NETWORKS, 1.0)
    settings = Settings()
    settings = replace(settings, epochs=max(1, round(steps * settings.batch / len(models))))
    fitted = [
        fit_member(scaled, str(device), models, settings, seed + i, importance / importance[models].mean())
        for i in range(members)
    ]
    joined = replace(fitted[0], members=[one.members[0] for one in fitted])
    return rescaled(joined, 1 / scale)


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
