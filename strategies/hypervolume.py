"""By how much architectures are expected to improve the hypervolume of what was tried.

The hypervolume is the share of the box between a reference point and an ideal point that the architectures
tried dominate (Zitzler and Thiele, "Multiobjective Evolutionary Algorithms", IEEE TEC 3(4), 1999). It is the
mean, over directions from the reference point, of how far the front reaches (Zhang and Golovin, "Random
Hypervolume Scalarizations for Provable Multi-Objective Black Box Optimization", ICML 2020, lemma 5). So an
improvement costs one maximum for each direction, for any number of objectives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnmeter_nas.kernels.configuration import FloatArray


@dataclass(frozen=True)
class Front:
    """How far the points of a front reach in each of some directions.

    Attributes:
        directions: unit vectors of positive numbers, ``[directions, objectives]``.
        reach: for each of them ``max over points of min over objectives (gain / direction)``, to the power of
            the number of objectives, ``[directions]``; 0 without points.
    """

    directions: FloatArray
    reach: FloatArray

    @classmethod
    def of(cls, gains: npt.ArrayLike, directions: FloatArray) -> Front:
        """The front of points that are ``gains`` better than the reference point, ``[N, objectives]``."""
        reached = _reach(np.asarray(gains, dtype=float).reshape(-1, directions.shape[1]), directions)
        return cls(directions, reached.max(axis=0, initial=0.0))

    @property
    def hypervolume(self) -> float:
        """Volume that the front dominates, from the reference point.

        >>> directions = even_directions(2, 4000)
        >>> round(Front.of([[1.0, 0.5], [0.5, 1.0]], directions).hypervolume, 3)
        0.75
        """
        return _constant(self.directions.shape[1]) * float(self.reach.mean())

    def improvements(self, gains: FloatArray) -> FloatArray:
        """By how much each of some points alone would improve the hypervolume, ``[N, objectives] -> [N]``."""
        more = np.maximum(_reach(gains, self.directions) - self.reach, 0.0)
        return _constant(self.directions.shape[1]) * more.mean(axis=1)


def even_directions(objectives: int, count: int) -> FloatArray:
    """Unit vectors of positive numbers, spread evenly, ``[count, objectives]``."""
    if objectives == 2:
        angles = (np.arange(count) + 0.5) / count * math.pi / 2
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = np.abs(np.random.default_rng(0).standard_normal((count, objectives)))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def _reach(gains: FloatArray, directions: FloatArray) -> FloatArray:
    """``[N, objectives]`` and ``[directions, objectives]`` -> ``[N, directions]``."""
    reached = np.full((len(gains), len(directions)), np.inf)
    for gain, along in zip(np.maximum(gains, 0.0).T, directions.T, strict=True):
        np.minimum(reached, gain[:, None] / along, out=reached)
    return reached ** directions.shape[1]


def _constant(objectives: int) -> float:
    """Volume of the part of the unit ball with positive numbers only."""
    return math.pi ** (objectives / 2) / (2**objectives * math.gamma(objectives / 2 + 1))
