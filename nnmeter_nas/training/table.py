"""Measured models as a table of distinct kernel configurations, and the kernels that each model runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files import write_npz
from ..kernels.configuration import Configurations


@dataclass(frozen=True)
class KernelTable:
    """The models of a dataset, fused under one rule set.

    Attributes:
        ids, families: id and family of each model, ``[models]``.
        types, sizes, declared: distinct kernels, as in :class:`Configurations`, ``[kernels, ...]``.
        index: configuration of every kernel of every model, model after model.
        start: where each model's kernels start in ``index``, ``[models + 1]``.
        devices: device names.
        latency_ms: measured latency, ``[models, devices]``; NaN if there is no figure.
    """

    ids: npt.NDArray[np.str_]
    families: npt.NDArray[np.str_]
    types: npt.NDArray[np.str_]
    sizes: npt.NDArray[np.float64]
    declared: npt.NDArray[np.float64]
    index: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    devices: npt.NDArray[np.str_]
    latency_ms: npt.NDArray[np.float64]

    @cached_property
    def configurations(self) -> Configurations:
        """Return the distinct kernels."""
        return Configurations(self.types, self.sizes, self.declared)

    def kernels_of(self, models: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Return the index of each distinct kernel that any of ``models`` runs."""
        parts = [self.index[self.start[m] : self.start[m + 1]] for m in models]
        return np.unique(np.concatenate(parts))

    def measured(self, device: str) -> npt.NDArray[np.float64]:
        """Return the measured latency of each model on ``device``, ``[models]``."""
        return np.asarray(self.latency_ms[:, list(self.devices).index(device)])

    def sums(self, kernel_latency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum the latencies of each model's kernels, given one per configuration, ``[models]``."""
        owner = np.repeat(np.arange(len(self.ids)), np.diff(self.start))
        weights = kernel_latency[self.index]
        return np.bincount(owner, weights=weights, minlength=len(self.ids)).astype(np.float64)


def save_table(path: Path, table: KernelTable) -> None:
    """Save ``table`` atomically."""
    write_npz(path, {name: getattr(table, name) for name in KernelTable.__dataclass_fields__})


def load_table(path: Path) -> KernelTable:
    """Load a table that :func:`save_table` saved."""
    with np.load(path, allow_pickle=False) as arrays:
        return KernelTable(**{name: arrays[name] for name in KernelTable.__dataclass_fields__})
