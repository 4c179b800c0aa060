"""LatencyTable: block latencies of a search space on a device, and the latencies that they sum up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError, nearest
from ..graph.shapes import Shape
from ..kernels.configuration import FloatArray
from ..supernet.choices import Candidates, plain_architecture
from ..supernet.space import STATIONARY
from .storage import read_document, write_document
from .terms import Positions, Terms

#: Two labels whose choices change each other's latency.
Pair = tuple[str, str]
#: How far probabilities may be from summing to one, as a softmax in low precision may.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Latency of every block of a search space on a device, in ms, batch 1.

    The latency of an architecture is ``stationary_ms``, plus that of its blocks, plus what the pairs in
    ``pair_ms`` add or save. Positions and candidates count from 0, in the order of ``candidates``.

    Attributes:
        space, space_fingerprint: name of the space, and hash of what it consists of.
        device: applied hardware.
        pack_version, pack_fingerprint: version of the predictor pack, and hash of its content.
        input_shape: shape of the input, NCHW.
        candidates: by label, in the order in which data passes the choices.
        stationary_ms: what no choice changes.
        block_ms: latency of each candidate, by label, ``[candidates]``.
        pair_ms: for two labels, ``[candidates, candidates]``: what both choices together take beyond the sum.
        unpredicted: operators that were not measured: name -> canonical operator, or if it is estimated its
            kernel type, which then says so.
        worst_error: largest relative difference from full-graph predictions among the architectures probed.
    """

    space: str
    space_fingerprint: str
    device: str
    pack_version: float
    pack_fingerprint: str
    input_shape: Shape
    candidates: Candidates
    stationary_ms: float
    block_ms: Mapping[str, FloatArray]
    pair_ms: Mapping[Pair, FloatArray] = field(default_factory=dict)
    unpredicted: Mapping[str, str] = field(default_factory=dict)
    worst_error: float = 0.0

    def __post_init__(self) -> None:
        shapes = {label: (len(known),) for label, known in self.candidates.items()}
        if {label: array.shape for label, array in self.block_ms.items()} != shapes:
            raise LookupTableError("block_ms does not have one latency for each candidate")
        for (first, second), array in self.pair_ms.items():
            if array.shape != shapes.get(first, ()) + shapes.get(second, ()):
                raise LookupTableError(f"pair_ms of {first!r} and {second!r} does not fit their candidates")
        numbers = [np.asarray([self.stationary_ms]), *self.block_ms.values(), *self.pair_ms.values()]
        if not all(np.isfinite(array).all() for array in numbers):
            raise LookupTableError("the table holds latencies that are no finite numbers")
        for array in numbers[1:]:
            array.flags.writeable = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the choices; the positions of an index array."""
        return tuple(self.candidates)

    def indices(self, architectures: Iterable[Mapping[str, Any]]) -> npt.NDArray[np.intp]:
        """Index array ``[N, positions]`` of architectures that map labels to candidates.

        Raises:
            SpaceError: an architecture is none of this space.
        """
        rows = [
            [known.index(plain[label]) for label, known in self.candidates.items()]
            for plain in (plain_architecture(a, self.candidates) for a in architectures)
        ]
        return np.array(rows, dtype=np.intp).reshape(len(rows), len(self.labels))

    def latency(self, architecture: Mapping[str, Any]) -> float:
        """Latency in ms of an architecture that maps labels to candidates.

        Raises:
            SpaceError: it is none of this space.
        """
        return float(self.latencies(self.indices([architecture]))[0])

    def latencies(self, indices: npt.ArrayLike) -> FloatArray:
        """Latency in ms of architectures ``[N, positions] -> [N]``.

        Raises:
            LookupTableError: ``indices`` is of another shape, or holds an index that is no candidate's.
        """
        return self.terms().values(indices, names=self.labels)

    def terms(self) -> Terms:
        """The latency in ms as a sum over the positions of an index array."""
        position = {label: i for i, label in enumerate(self.labels)}
        factors: dict[Positions, FloatArray] = {(i,): self.block_ms[label] for label, i in position.items()}
        for (first, second), ms in self.pair_ms.items():
            p, q = position[first], position[second]
            ascending, extra = ((p, q), ms) if p < q else ((q, p), ms.T)
            factors[ascending] = factors[ascending] + extra if ascending in factors else extra
        return Terms(tuple(map(len, self.candidates.values())), self.stationary_ms, factors)

    def expected(self, probabilities: Mapping[str, npt.ArrayLike]) -> float:
        """Expected latency in ms if every choice is made independently.

        Args:
            probabilities: of the candidates, ``[candidates]`` for each label.

        Raises:
            LookupTableError: a label lacks or is unknown, or its probabilities are of another length,
                negative, NaN, or do not sum to one.
        """
        p = {label: _numbers(label, value) for label, value in probabilities.items()}
        self.check_probabilities(p)
        total = self.stationary_ms + sum(p[label] @ ms for label, ms in self.block_ms.items())
        return float(total + sum(p[first] @ ms @ p[second] for (first, second), ms in self.pair_ms.items()))

    def check_probabilities(self, probabilities: Mapping[str, FloatArray]) -> None:
        """Raise a LookupTableError unless there is a distribution over every label's candidates."""
        for label in probabilities:
            if label not in self.candidates:
                raise LookupTableError(
                    f"the table has no choice {label!r}; {nearest(str(label), self.labels)}"
                )
        for label, known in self.candidates.items():
            if label not in probabilities:
                raise LookupTableError(f"probabilities lack the choice {label!r}")
            p = probabilities[label]
            if p.shape != (len(known),):
                raise LookupTableError(
                    f"probabilities of {label!r} must be of shape [{len(known)}], one for each of "
                    f"{', '.join(known)}; got {list(p.shape)}"
                )
            if not np.isfinite(p).all() or (p < 0).any():
                raise LookupTableError(
                    f"probabilities of {label!r} must be numbers from 0 to 1; got {p.tolist()}"
                )
            if abs(p.sum() - 1) > _SUM_TOLERANCE:
                raise LookupTableError(f"probabilities of {label!r} must sum to 1; they sum to {p.sum():g}")

    def save(self, path: str | Path) -> None:
        """Write the table to ``path``, whole or not at all.

        ``.yaml`` gives the layout of NNI's ``latency_table.yaml``, which has no pairs, and beside it what
        else the table knows; ``.json`` the same in a form that loads in less than a millisecond.

        Raises:
            LookupTableError: the suffix is another.
        """
        table = {
            label: {str(i): float(ms) for i, ms in enumerate(array)} for label, array in self.block_ms.items()
        }
        pairs = [{"labels": list(pair), "ms": array.tolist()} for pair, array in self.pair_ms.items()]
        write_document(path, {
            "applied_hardware": self.device,
            "latency_table": {**table, STATIONARY: {"root": float(self.stationary_ms)}},
            "details": {
                "space": self.space,
                "space_fingerprint": self.space_fingerprint,
                "pack_version": float(self.pack_version),
                "pack_fingerprint": self.pack_fingerprint,
                "input_shape": list(self.input_shape),
                "candidates": {label: list(known) for label, known in self.candidates.items()},
                "pairs": pairs,
                "unpredicted": dict(self.unpredicted),
                "worst_error": float(self.worst_error),
            },
        })  # fmt: skip


def _numbers(label: str, value: npt.ArrayLike) -> FloatArray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise LookupTableError(f"probabilities of {label!r} must be numbers from 0 to 1: {error}") from error


def load_table(path: str | Path) -> LatencyTable:
    """The table that :meth:`LatencyTable.save` wrote to ``path``.

    Raises:
        LookupTableError: there is none, it is damaged or half-written, or something else wrote it.
    """
    document = read_document(path)
    try:
        found, details = document["latency_table"], document["details"]
        candidates = {label: tuple(known) for label, known in details["candidates"].items()}
        return LatencyTable(
            space=details["space"],
            space_fingerprint=details["space_fingerprint"],
            device=document["applied_hardware"],
            pack_version=details["pack_version"],
            pack_fingerprint=details["pack_fingerprint"],
            input_shape=tuple(details["input_shape"]),
            candidates=candidates,
            stationary_ms=found[STATIONARY]["root"],
            block_ms={
                label: np.array([found[label][str(i)] for i in range(len(known))], dtype=float)
                for label, known in candidates.items()
            },
            pair_ms={tuple(pair["labels"]): np.array(pair["ms"], dtype=float) for pair in details["pairs"]},
            unpredicted=details["unpredicted"],
            worst_error=details["worst_error"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LookupTableError(f"{path} is no lookup table: {type(error).__name__}: {error}") from error
