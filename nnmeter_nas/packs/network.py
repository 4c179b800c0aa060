"""Kernel predictors of version 2: small networks over :mod:`.features`, evaluated with NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackError
from ..kernels.configuration import (
    COLUMN,
    BoolArray,
    Configurations,
    FloatArray,
    configuration,
    kernel_type,
)
from ..kernels.fusion import Kernel
from .features import DESCRIPTORS, TERMS, values
from .latency import UNPREDICTED, Basis, KernelLatency
from .vocabulary import Vocabulary

#: The correction multiplies or divides the base by at most e to the power of this number.
CORRECTION_BOUND = 1.5

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Features:
    """Features of ``n`` kernels: ``kinds [n]`` as indices, ``terms [n, T]`` and ``descriptors [n, D]``."""

    kinds: npt.NDArray[np.int64]
    terms: FloatArray
    descriptors: FloatArray


@dataclass(frozen=True)
class KernelNetwork:
    """An ensemble of kernel predictors for one device.

    Attributes:
        names: names of the positions along the arrays' axes. Below, ``T`` terms, ``D`` descriptors,
            ``M`` measured kernel types and ``C`` columns.
        center, scale: standardisation of descriptors, ``[D]``.
        low, high: range of standardised descriptors seen in training, ``[D]``. Outside it the correction
            keeps its value at the edge, and only the base grows.
        range_low, range_high: sizes of each measured kernel type seen in training, ``[M, C]``.
        members: parameters of each member, see :func:`member_latency`.
    """

    names: Vocabulary
    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    range_low: npt.NDArray[np.float32]
    range_high: npt.NDArray[np.float32]
    members: list[Arrays]

    def covers(self, kernel: Kernel) -> bool:
        """Whether kernels of this type were measured."""
        return kernel_type(kernel) in self.names.measured

    def latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel; kernels with equal configurations are priced once.

        A kernel of an unmeasured type is estimated if the pack has weights for the type.
        """
        types = self.names.types
        rows = {i: configuration(k) for i, k in enumerate(kernels) if kernel_type(k) in types}
        distinct = list(dict.fromkeys(rows.values()))
        known: dict[Any, KernelLatency] = {}
        if distinct:
            found = Configurations.of(distinct)
            priced = map(KernelLatency, self.predict(found).tolist(), self.bases(found))
            known = dict(zip(distinct, priced, strict=True))
        return [known[rows[i]] if i in rows else UNPREDICTED for i in range(len(kernels))]

    def predict(self, found: Configurations) -> FloatArray:
        """Mean of :meth:`by_member`, ``[n]``; errors as there."""
        return np.asarray(self.by_member(found).mean(axis=0))

    def by_member(self, found: Configurations) -> FloatArray:
        """Latency of each kernel in ms as each member predicts it, ``[members, n]``.

        It is always finite and above zero.

        Raises:
            PackError: the pack has no weights for the type of a kernel.
        """
        seen = self.features(found)
        if (seen.kinds < 0).any():
            missing = ", ".join(sorted(set(found.types[seen.kinds < 0].tolist())))
            raise PackError(f"the pack has no weights for kernels of type {missing}")
        inputs = self.standardise(seen.descriptors)
        groups = self.names.group_of_kind
        return np.stack([member_latency(m, groups, seen, inputs) for m in self.members])

    def known_by_member(self, found: Configurations) -> FloatArray:
        """As :meth:`by_member`, but 0 where the pack has no weights for the type of a kernel."""
        latencies = np.zeros((len(self.members), len(found)))
        known = self.names.kinds_of(found) >= 0
        latencies[:, known] = self.by_member(found[known])
        return latencies

    def features(self, found: Configurations) -> Features:
        """Features of kernels; descriptors are not yet standardised."""
        priced = found.by_declared_work(self.names.declared)
        terms = values(priced, TERMS, self.names.terms)
        descriptors = values(priced, DESCRIPTORS, self.names.descriptors)
        return Features(self.names.kinds_of(found), terms, descriptors)

    def standardise(self, descriptors: FloatArray) -> FloatArray:
        """Standardise descriptors, as the members expect them."""
        return np.clip((descriptors - self.center) / self.scale, self.low, self.high)

    def outside_range(self, found: Configurations) -> BoolArray:
        """Which kernels lie outside the measured range of their type, ``[n]``; all of an unmeasured type."""
        sizes = found.sizes[:, [COLUMN[name] for name in self.names.columns]]
        outside = np.ones(len(found), dtype=bool)
        for i, name in enumerate(self.names.measured):
            mine = found.is_type(name)
            rows = sizes[mine]
            outside[mine] = ((rows < self.range_low[i]) | (rows > self.range_high[i])).any(axis=1)
        return outside

    def ranges(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Least and greatest measured value of each size, by kernel type and column."""
        return {
            name: dict(zip(self.names.columns, zip(low.tolist(), high.tolist(), strict=True), strict=True))
            for name, low, high in zip(self.names.measured, self.range_low, self.range_high, strict=True)
        }

    def bases(self, found: Configurations) -> list[Basis]:
        """What the latency of each kernel rests on."""
        measured = found.is_type(*self.names.measured).tolist()
        outside = self.outside_range(found).tolist()
        return [
            ("extrapolated" if out else "measured") if known else "estimated"
            for known, out in zip(measured, outside, strict=True)
        ]

    def to_arrays(self) -> Arrays:
        """All parameters and names in one flat dict, for ``numpy.savez``."""
        arrays: Arrays = {**self.names.to_arrays(), **{name: getattr(self, name) for name in _SHARED}}
        for index, member in enumerate(self.members):
            arrays.update({f"member{index}.{name}": value for name, value in member.items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> KernelNetwork:
        """Inverse of :meth:`to_arrays`.

        Raises:
            PackError: arrays are missing or do not fit the names, or this package does not know a name.
        """
        names = Vocabulary.from_arrays(arrays)
        members: dict[int, Arrays] = {}
        try:
            for name, value in arrays.items():
                if name.startswith("member"):
                    index, key = name[len("member") :].split(".")
                    members.setdefault(int(index), {})[key] = value
            network = cls(
                names,
                **{name: arrays[name] for name in _SHARED},
                members=[members[i] for i in sorted(members)],
            )
            network._check_shapes()
        except (KeyError, ValueError) as error:
            raise PackError(f"the pack's weights lack {error}") from error
        return network

    def _check_shapes(self) -> None:
        """Raise a PackError unless every array has the shape that the names require."""
        names = self.names
        kinds, terms, descriptors = len(names.kinds), len(names.terms), len(names.descriptors)
        expected: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("center", "scale", "low", "high"), (descriptors,)),
            **dict.fromkeys(("range_low", "range_high"), (len(names.measured), len(names.columns))),
        }
        found = {name: getattr(self, name) for name in expected}
        if not self.members:
            raise PackError("the pack's weights lack members")
        for i, member in enumerate(self.members):
            hidden = member["hidden_bias"].shape[0] if member["hidden_bias"].ndim else 0
            shapes = {
                "group_weights": (len(names.groups), terms),
                "kind_weights": (kinds, terms),
                "input_weights": (descriptors, hidden),
                "kind_bias": (kinds, hidden),
                "hidden_weights": (hidden, hidden),
                "hidden_bias": (hidden,),
                "output_weights": (hidden,),
                "output_bias": (),
            }
            expected.update({f"member{i}.{name}": shape for name, shape in shapes.items()})
            found.update({f"member{i}.{name}": member[name] for name in shapes})
        for name, shape in expected.items():
            if found[name].shape != shape or found[name].dtype.kind != "f":
                raise PackError(
                    "the pack's weights do not fit the kernel types and terms that they are for: "
                    f"{name} is of shape {found[name].shape}, not {shape}"
                )


_SHARED = ("center", "scale", "low", "high", "range_low", "range_high")


def member_latency(
    member: Arrays, group_of_kind: npt.NDArray[np.int64], found: Features, inputs: FloatArray
) -> FloatArray:
    """``softplus(group + kind weights) . terms * exp(bounded correction)``, in ms, ``[n]``.

    ``inputs [n, D]`` are the standardised descriptors.
    """
    weights = _softplus(member["group_weights"][group_of_kind] + member["kind_weights"])
    base = np.einsum("nt,nt->n", weights[found.kinds], found.terms)
    # The first layer reads the descriptors and the one-hot kind; the kind selects a row of weights.
    hidden = _silu(inputs @ member["input_weights"] + member["kind_bias"][found.kinds])
    hidden = _silu(hidden @ member["hidden_weights"] + member["hidden_bias"])
    raw = hidden @ member["output_weights"] + member["output_bias"]
    return np.asarray(base * np.exp(CORRECTION_BOUND * np.tanh(raw / CORRECTION_BOUND)), dtype=np.float64)


def _softplus(x: FloatArray | npt.NDArray[np.float32]) -> FloatArray:
    return np.logaddexp(0.0, x)


def _silu(x: FloatArray) -> FloatArray:
    return x / (1.0 + np.exp(-np.clip(x, -60.0, None)))
