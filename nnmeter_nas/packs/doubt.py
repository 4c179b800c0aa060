"""Doubt about a model's latency: how far the model is from what was measured on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import PackError
from ..kernels.configuration import Configurations, FloatArray, configuration
from ..kernels.fusion import Kernel
from .latency import KernelLatency
from .network import KernelNetwork

#: Sizes of a kernel that count for its distance to another.
_SIZES = ("cin", "cout", "hout", "kh", "sh", "operands")
#: What the names of these arrays begin with in a pack's weights.
_PREFIX = "prototypes."
_MIXES = "model_mixes"

#: Sums figures of kernels ``[k]`` over those of each model, ``[n]``.
Sums = Callable[[FloatArray], FloatArray]


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
    priced = [(kernel, ms, basis) for kernel, (ms, basis) in zip(kernels, latencies, strict=True) if ms]
    if not priced:
        return Doubt(0.0, 0.0, 0.0, 0.0, 0.0)
    found = Configurations.of([configuration(kernel) for kernel, _, _ in priced])
    ms, bases = np.array([ms for _, ms, _ in priced]), np.array([basis for _, _, basis in priced])
    [doubt] = doubts_of(network, prototypes, found, ms, bases, lambda values: values.sum(keepdims=True))
    return Doubt(*doubt.tolist())


def doubts_of(
    network: KernelNetwork,
    prototypes: Prototypes,
    found: Configurations,
    ms: FloatArray,
    bases: npt.NDArray[np.str_],
    sums: Sums,
) -> FloatArray:
    """Doubt about ``n`` models, in the order of :class:`Doubt`, ``[n, 5]``.

    Args:
        network: the pack's kernel predictors.
        prototypes: what stands for all that was measured.
        found: the kernels of all models.
        ms: latency of each kernel, ``[k]``.
        bases: what the latency of each kernel rests on, ``[k]``.
        sums: sums figures of kernels over those of each model.
    """
    total = sums(ms)
    weights = (bases == "extrapolated", bases == "estimated", prototypes.distances(found))
    shares = [sums(ms * weight) / total for weight in weights]
    unlikeness = prototypes.unlikeness(mixes_of(network, found, ms, sums))
    by_member = np.stack([sums(of_member) for of_member in network.known_by_member(found)])
    # No member says anything of a model without kernels that the pack has weights for, so all agree.
    disagreement = np.log(np.where(by_member > 0, by_member, 1.0)).std(axis=0)
    return np.stack([*shares, unlikeness, disagreement], axis=1)


def mixes_of(network: KernelNetwork, found: Configurations, ms: FloatArray, sums: Sums) -> FloatArray:
    """Share of each kind of kernel in the latency, ``[n, kinds]``; arguments as :func:`doubts_of`."""
    kinds = network.names.kinds_of(found)
    of_kinds = [sums(ms * (kinds == kind)) for kind in range(len(network.names.kinds))]
    return np.stack(of_kinds, axis=1) / sums(ms)[:, None]
