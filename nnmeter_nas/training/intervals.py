"""Fit the intervals of a pack to the errors on models and families that were held out, and judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import Configurations, FloatArray
from ..packs.doubt import Doubt, Prototypes, doubts_of, mixes_of, points_of
from ..packs.intervals import LEVELS, Intervals, conformal_half_width
from ..packs.network import KernelNetwork
from .table import KernelTable

#: Level on the card's figures.
LEVEL = 0.9
#: Level that the slopes are fitted at: families differ more than their number tells, so it is a high one.
_FITTED_AT = 0.95
#: Held-out models may be inside more often than the level says, by this share of what the level leaves out.
_TOO_MUCH = 0.4
#: What families that the pack never saw count against held-out models, for the width of intervals.
_UNSEEN = 0.5
#: A model wholly extrapolated or estimated has an interval at least so much wider. Few models that were held
#: out have such kernels, so the errors alone would let them count for nothing.
_LEAST_SLOPES = {"extrapolated": 1.0, "estimated": 1.0}
#: Prototypes of a kernel type at most, models of a family at most to fit slopes to.
_PROTOTYPES, _FITTED_TO = 2048, 150


@dataclass(frozen=True)
class Errors:
    """Errors on models that a network was not trained on.

    Attributes:
        absolute: absolute logarithm of predicted over measured, ``[n]``.
        doubts: doubt about each model, in the order of :class:`Doubt`, ``[n, 5]``.
    """

    absolute: FloatArray
    doubts: FloatArray

    def __getitem__(self, index: npt.NDArray[Any]) -> Errors:
        return Errors(self.absolute[index], self.doubts[index])

    def scores(self, slopes: FloatArray) -> FloatArray:
        """Errors over the scale that ``slopes`` give each model, ``[n]``."""
        return self.absolute / (1 + self.doubts @ slopes)


def choose_prototypes(
    network: KernelNetwork,
    table: KernelTable,
    models: npt.NDArray[np.int64],
    alone: npt.NDArray[np.int64] | None = None,
) -> Prototypes:
    """Choose kernels and models that stand for ``models`` (indices) and their kernels.

    Kernels that were measured ``alone`` (indices) stand for kernels too, but for no model.
    """
    every, found = models if alone is None else np.concatenate([models, alone]), {}
    known = _models(table, every).configurations
    for name in network.names.measured:
        points = np.unique(points_of(known[np.flatnonzero(known.is_type(name))]), axis=0)
        found[name] = points[_far_apart(points)]
    chosen = _models(table, models)
    seen = chosen.configurations
    ms = network.known_by_member(seen).mean(axis=0)
    mixes = mixes_of(network, seen, ms, chosen.sums).astype(np.float16)
    return Prototypes(found, mixes[_far_apart(mixes)])


def _far_apart(points: npt.NDArray[Any]) -> list[int]:
    """Choose points, each the farthest from those before (Gonzalez, 1985)."""
    points = points.astype(np.float32)
    chosen = [0]
    distance = np.square(points - points[0]).sum(1)
    while len(chosen) < min(_PROTOTYPES, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(1))
    return chosen


@dataclass(frozen=True)
class _Models:
    """Models of a table: the kernels ``[k]`` that occur in them, and sums over those of each model ``[n]``.

    Attributes:
        table: all models.
        models: indices of these models.
        kernels: indices of the kernels.
    """

    table: KernelTable
    models: npt.NDArray[np.int64]
    kernels: npt.NDArray[np.int32]

    @property
    def configurations(self) -> Configurations:
        """The kernels' configurations."""
        return self.table.configurations[self.kernels]

    def sums(self, of_kernels: FloatArray) -> FloatArray:
        """Sum figures of kernels ``[k]`` over those of each model."""
        every = np.zeros(len(self.table.types))
        every[self.kernels] = of_kernels
        return self.table.sums(every)[self.models]


def _models(table: KernelTable, models: npt.NDArray[np.int64]) -> _Models:
    return _Models(table, models, table.kernels_of(models))


def errors_of(
    network: KernelNetwork,
    prototypes: Prototypes,
    table: KernelTable,
    models: npt.NDArray[np.int64],
    measured: FloatArray,
) -> Errors:
    """Errors of ``network`` on ``models`` (indices), which took ``measured`` ms, ``[all models]``."""
    chosen = _models(table, models)
    found = chosen.configurations
    ms, bases = network.known_by_member(found).mean(axis=0), np.array(network.bases(found))
    doubts = doubts_of(network, prototypes, found, ms, bases, chosen.sums)
    return Errors(np.abs(np.log(chosen.sums(ms) / measured[models])), doubts)


def fit_intervals(held_out: Errors, families: Sequence[Errors]) -> Intervals:
    """Fit slopes and half-widths to errors on held-out models and on families, each by packs without it.

    Families left out are to be covered too, as far as held-out models are not covered by too much.
    """
    parts = [held_out, *families]
    slopes = _slopes(parts)
    known, every = held_out.scores(slopes), np.concatenate([part.scores(slopes) for part in parts])
    halves = {}
    for level in LEVELS:
        least, most = (conformal_half_width(known, one) for one in (level, level + _TOO_MUCH * (1 - level)))
        halves[level] = min(max(conformal_half_width(every, level, _weights(parts)), least), most)
    return Intervals(halves, dict(zip(Doubt._fields, slopes.tolist(), strict=True)))


def _weights(parts: Sequence[Errors]) -> FloatArray:
    """How much each model counts: held-out models, the first part, against families, which count the same."""
    sizes = [len(part.absolute) for part in parts]
    of_family = _UNSEEN / max(len(parts) - 1, 1)
    shares = [1 - _UNSEEN, *[of_family] * (len(parts) - 1)]
    return np.repeat([share / size for share, size in zip(shares, sizes, strict=True)], sizes)


def coverage(held_out: Errors, families: Mapping[str, Errors]) -> dict[str, dict[str, float]]:
    """Coverage (%) and median half-width (%) at 90 %, of held-out models and of each family.

    Each part is judged by intervals that were fitted without it: of held-out models, one half at a time.
    """
    found = {}
    parts = [np.arange(len(held_out.absolute)) % 2 == half for half in (0, 1)]
    halves = [
        _judged(fit_intervals(held_out[~part], list(families.values())), held_out[part]) for part in parts
    ]
    found["held_out_ids"] = {key: float(np.mean([half[key] for half in halves])) for key in halves[0]}
    for name, errors in families.items():
        others = [other for family, other in families.items() if family != name]
        found[name] = _judged(fit_intervals(held_out, others), errors)
    return found


def _judged(intervals: Intervals, errors: Errors) -> dict[str, float]:
    scales = 1 + errors.doubts @ np.array([intervals.slopes[name] for name in Doubt._fields])
    half = intervals.half_widths[LEVEL]
    widths = np.sinh(half * scales)  # (high - low) / 2, as a share of the latency
    return {
        "coverage": 100 * float(np.mean(errors.absolute / scales <= half)),
        "half_width": 100 * float(np.median(widths)),
    }


def _slopes(parts: Sequence[Errors]) -> FloatArray:
    """Slopes of a quantile regression, none below :data:`_LEAST_SLOPES` or zero.

    It is a linear program: minimise the pinball loss of ``error - (base + doubts . weights)``. The base is at
    least the median error on held-out models, so that no interval shrinks to nothing.
    """
    from scipy import sparse  # late: what only reads errors does not need it
    from scipy.optimize import linprog

    few = [_thinned(part) for part in parts]
    errors = np.concatenate([part.absolute for part in few])
    doubts = np.concatenate([part.doubts for part in few])
    n, terms, weights = len(errors), np.hstack([np.ones((len(errors), 1)), doubts]), _weights(few)
    least = float(np.median(parts[0].absolute))
    variables = doubts.shape[1] + 1 + 2 * n
    narrow = np.zeros((len(_LEAST_SLOPES), variables))  # narrow . variables <= 0: least * base <= weight
    for row, (name, slope) in zip(narrow, _LEAST_SLOPES.items(), strict=True):
        row[0], row[1 + Doubt._fields.index(name)] = slope, -1.0
    # error = terms . variables + above - below
    found = linprog(
        np.concatenate([np.zeros(terms.shape[1]), _FITTED_AT * weights, (1 - _FITTED_AT) * weights]),
        A_eq=sparse.hstack([sparse.csr_matrix(terms), sparse.eye(n), -sparse.eye(n)]),
        b_eq=errors,
        A_ub=narrow,
        b_ub=np.zeros(len(narrow)),
        bounds=[(least, None), *[(0, None)] * (doubts.shape[1] + 2 * n)],
        method="highs",
    )
    base, *of_doubts = found.x[: terms.shape[1]]
    return np.array(of_doubts) / base


def _thinned(errors: Errors) -> Errors:
    """At most some models, evenly spread."""
    n = len(errors.absolute)
    return errors[np.unique(np.linspace(0, n - 1, min(n, _FITTED_TO)).astype(int))]
