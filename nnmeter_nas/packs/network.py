"""Version-2 kernel predictors: small networks on :mod:`.features`, evaluated with NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import PackError
from ..kernels.configuration import COLUMNS, KERNEL_TYPES, FloatArray, configuration, kernel_type
from ..kernels.fusion import Kernel
from .features import GROUP_OF_KIND, GROUPS, KINDS, TERMS, features

#: The correction multiplies or divides the base by at most e to this power.
CORRECTION_BOUND = 1.5

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class KernelNetwork:
    """An ensemble of kernel predictors for one device.

    Attributes:
        center, scale: standardisation of descriptors, ``[d]``.
        low, high: range of standardised descriptors seen in training; beyond it the correction stays as
            at its edge, and only the base grows.
        range_low, range_high: configurations seen in training, ``[KERNEL_TYPES, COLUMNS]``.
        members: parameters of each member, see :func:`member_latency`.
    """

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    range_low: npt.NDArray[np.float32]
    range_high: npt.NDArray[np.float32]
    members: list[Arrays]

    def covers(self, kernel: Kernel) -> bool:
        """Whether ``kernel`` is of one of the kernel types."""
        return kernel_type(kernel) is not None

    def latencies(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Latency in ms of ``n`` covered kernels, ``[n]``, and which lie outside the range measured, ``[n]``.

        Equal configurations are evaluated once.
        """
        rows = np.array([configuration(kernel) for kernel in kernels], dtype=float)
        distinct, position = np.unique(rows, axis=0, return_inverse=True)
        return self.predict(distinct)[position.ravel()], self.outside_range(distinct)[position.ravel()]

    def predict(self, rows: FloatArray) -> FloatArray:
        """Latency in ms of each configuration, ``[n, COLUMNS] -> [n]``; always finite and above zero."""
        found = features(rows)
        inputs = self.standardise(found.descriptors)
        latencies = [member_latency(m, found.kinds, found.terms, inputs) for m in self.members]
        return np.mean(latencies, axis=0)

    def standardise(self, descriptors: FloatArray) -> FloatArray:
        """Descriptors as the networks take them."""
        return np.clip((descriptors - self.center) / self.scale, self.low, self.high)

    def outside_range(self, rows: FloatArray) -> npt.NDArray[np.bool_]:
        """Which configurations lie outside what was seen of their kernel type in training, ``[n]``."""
        kinds = rows[:, 0].astype(int)
        below, above = rows < self.range_low[kinds], rows > self.range_high[kinds]
        return np.asarray((below | above).any(axis=1))

    def to_arrays(self) -> Arrays:
        """All parameters under flat names, for ``numpy.savez``."""
        arrays = {name: getattr(self, name) for name in _SHARED}
        for index, member in enumerate(self.members):
            arrays.update({f"member{index}.{name}": value for name, value in member.items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> KernelNetwork:
        """Inverse of :meth:`to_arrays`.

        Raises:
            PackError: arrays are missing, or were made for other kernel types or features.
        """
        expected = (len(KERNEL_TYPES), len(COLUMNS)), (len(GROUPS), len(TERMS)), (len(KINDS), len(TERMS))
        members: dict[int, Arrays] = {}
        try:
            for name, value in arrays.items():
                if name.startswith("member"):
                    index, key = name[len("member") :].split(".")
                    members.setdefault(int(index), {})[key] = value
            network = cls(
                **{name: arrays[name] for name in _SHARED}, members=[members[i] for i in sorted(members)]
            )
            shapes = {
                (network.range_low.shape, m["group_weights"].shape, m["kind_weights"].shape)
                for m in network.members
            }
        except (KeyError, ValueError) as error:
            raise PackError(f"the pack's weights lack {error}") from error
        if shapes != {expected}:
            raise PackError("the pack's weights were made for other kernel types than this version knows")
        return network


_SHARED = ("center", "scale", "low", "high", "range_low", "range_high")


def member_latency(
    member: Arrays, kinds: npt.NDArray[np.int64], terms: FloatArray, inputs: FloatArray
) -> FloatArray:
    """``softplus(group + kind weights) . terms * exp(bounded correction)``, in ms, ``[n]``."""
    weights = _softplus(member["group_weights"][GROUP_OF_KIND] + member["kind_weights"])
    base = np.einsum("nt,nt->n", weights[kinds], terms)
    # The first layer reads descriptors and the one-hot kind; the latter selects a row of weights.
    hidden = _silu(inputs @ member["input_weights"] + member["kind_bias"][kinds])
    hidden = _silu(hidden @ member["hidden_weights"] + member["hidden_bias"])
    raw = hidden @ member["output_weights"] + member["output_bias"]
    return np.asarray(base * np.exp(CORRECTION_BOUND * np.tanh(raw / CORRECTION_BOUND)), dtype=np.float64)


def _softplus(x: FloatArray | npt.NDArray[np.float32]) -> FloatArray:
    return np.logaddexp(0.0, x)


def _silu(x: FloatArray) -> FloatArray:
    return x / (1.0 + np.exp(-np.clip(x, -60.0, None)))
