"""Doubt about a model's latency: how far the model is from what was measured on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import PackError
from ..kernels.configuration import Configurations, FloatArray, configuration, kernel_type
from ..kernels.fusion import Kernel
from .latency import KernelLatency
from .network import KernelNetwork

#: Sizes of a kernel that count for its distance to another.
_SIZES = ("cin", "cout", "hout", "kh", "sh", "operands")
#: What the names of these arrays begin with in a pack's weights.
_PREFIX = "prototypes."
_MIXES = "model_mixes"


class Doubt(NamedTuple):
    """How far a model is from what was measured.

    Attributes:
        extrapolated: share of the latency from kernels outside the range measured.
        estimated: share of the latency from kernels of types that were never measured.
        distance: mean distance of kernels to the nearest prototype, by latency; in octaves.
        unlikeness: share of the latency by which its mix of kernels differs from that of the nearest model
            measured.
        disagreement: standard deviation of the logarithm of the latency over the members of the pack.
    """

    extrapolated: float
    estimated: float
    distance: float
    unlikeness: float
    disagreement: float


@dataclass(frozen=True)
class Prototypes:
    """Kernels and models that stand for all that were measured.

    Attributes:
        points: logarithms to base 2 of the sizes of kernels, ``[prototypes, sizes]``, by kernel type.
        mixes: share of each kind of kernel in the latency of models, ``[models, kinds]``.
    """

    points: Mapping[str, npt.NDArray[np.float16]]
    mixes: npt.NDArray[np.float16]

    def distances(self, found: Configurations) -> FloatArray:
        """Distance of each kernel to the nearest prototype of its type, in octaves, ``[n]``.

        0 for types without prototypes, as they are estimated.
        """
        distances, points = np.zeros(len(found)), points_of(found)
        for name, prototypes in self.points.items():
            mine = found.is_type(name)
            if mine.any():
                distances[mine] = _to_nearest(points[mine], prototypes)
        return distances

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The prototypes as arrays of a pack's weights."""
        points = {f"{_PREFIX}{name}": of_type for name, of_type in self.points.items()}
        return {_MIXES: self.mixes, **points}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Prototypes | None:
        """Inverse of :meth:`to_arrays`; None if ``arrays`` hold no prototypes.

        Raises:
            PackError: an array has another shape, or holds no numbers.
        """
        found = {n.removeprefix(_PREFIX): a for n, a in arrays.items() if n.startswith(_PREFIX)}
        for name, points in found.items():
            fits = points.dtype.kind == "f" and points.ndim == 2 and points.shape[1:] == (len(_SIZES),)
            if not fits or not len(points):
                raise PackError(f"the pack's weights hold prototypes of {name} that are of no use")
        mixes = arrays.get(_MIXES)
        if found and (mixes is None or mixes.dtype.kind != "f" or mixes.ndim != 2 or not len(mixes)):
            raise PackError(f"the pack's weights hold prototypes without {_MIXES}")
        return cls(found, mixes) if found and mixes is not None else None

    def unlikeness(self, mixes: FloatArray) -> FloatArray:
        """Share of the latency by which each of ``mixes [n, kinds]`` differs from the nearest, ``[n]``."""
        known = np.asarray(self.mixes, dtype=np.float64)
        rest = 1 - known.sum(1)
        return np.array([
            0.5 * float((np.abs(known - mix).sum(1) + np.abs(rest - (1 - mix.sum()))).min()) for mix in mixes
        ])  # fmt: skip


def _to_nearest(points: npt.NDArray[np.float16], others: npt.NDArray[np.float16]) -> FloatArray:
    """Distance of each point to the nearest of ``others``, ``[n]``."""
    here, there = points.astype(np.float64), others.astype(np.float64)
    squares = np.square(here).sum(1)[:, None] - 2 * here @ there.T + np.square(there).sum(1)
    return np.asarray(np.sqrt(np.maximum(squares.min(1), 0.0)))


def points_of(found: Configurations) -> npt.NDArray[np.float16]:
    """Kernels as points, ``[n, sizes]``: an octave apart where one size doubles."""
    sizes = np.stack([found.size(name) for name in _SIZES], axis=1)
    return np.log2(np.maximum(sizes, 1)).astype(np.float16)


def doubt_of(
    kernels: Sequence[Kernel],
    latencies: Sequence[KernelLatency],
    network: KernelNetwork,
    prototypes: Prototypes,
) -> Doubt:
    """Doubt about a model of these ``kernels``, each of batch 1, with their latencies."""
    total = math.fsum(ms for ms, _ in latencies if ms is not None)
    if not total:
        return Doubt(0.0, 0.0, 0.0, 0.0, 0.0)
    known = [i for i, kernel in enumerate(kernels) if kernel_type(kernel) in network.names.types]
    distance = disagreement = 0.0
    mix = np.zeros(len(network.names.kinds))
    if known:
        found = Configurations.of([configuration(kernels[i]) for i in known])
        shares = np.array([latencies[i].ms or 0.0 for i in known]) / total
        np.add.at(mix, network.names.kinds_of(found), shares)
        distance = float(shares @ prototypes.distances(found))
        disagreement = float(np.log(network.by_member(found).sum(1)).std())

    def share(basis: str) -> float:
        return math.fsum(ms for ms, its in latencies if its == basis and ms is not None) / total

    unlikeness = float(prototypes.unlikeness(mix[None])[0])
    return Doubt(share("extrapolated"), share("estimated"), distance, unlikeness, disagreement)
