"""Constants that adapt a pack to a device that it was not measured on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..errors import PackError

#: A calibrated kernel takes at least this share of its original latency.
_LEAST = 0.05


@dataclass(frozen=True)
class Calibration:
    """What turns a pack's latencies into those on another device.

    A kernel takes ``scale * ms + launch_ms``, and each run of a model takes ``offset_ms`` more.

    Attributes:
        scale, launch_ms: for kernel types that have no constants of their own.
        offset_ms: not below zero.
        kernel_types: scale and launch (ms) of a kernel type.
    """

    scale: float = 1.0
    launch_ms: float = 0.0
    offset_ms: float = 0.0
    kernel_types: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def kernel_ms(self, kernel_type: str, ms: float) -> float:
        """Latency in ms of a kernel that takes ``ms`` by the original pack."""
        scale, launch_ms = self.kernel_types.get(kernel_type, (self.scale, self.launch_ms))
        return max(scale * ms + launch_ms, _LEAST * ms)

    def model_ms(self, kernels: Iterable[tuple[str, float]]) -> float:
        """Latency in ms of a model, of whose kernels are given the type and the ms by the original pack."""
        return self.offset_ms + math.fsum(self.kernel_ms(*kernel) for kernel in kernels)

    def to_card(self) -> dict[str, Any]:
        """The constants as they stand on a card."""
        return {
            "scale": self.scale,
            "launch_ms": self.launch_ms,
            "offset_ms": self.offset_ms,
            "kernel_types": {name: list(constants) for name, constants in self.kernel_types.items()},
        }

    @classmethod
    def from_card(cls, entry: Any) -> Calibration:
        """Inverse of :meth:`to_card`; other entries are ignored.

        Raises:
            PackError: a constant is missing or is not a finite number.
        """
        try:
            own = {str(n): (float(one), float(ms)) for n, (one, ms) in entry["kernel_types"].items()}
            scale, launch_ms, offset_ms = (float(entry[n]) for n in ("scale", "launch_ms", "offset_ms"))
            found = cls(scale, launch_ms, offset_ms, own)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise PackError(f"the card has no usable calibration: {error!r}") from error
        numbers = [found.scale, found.launch_ms, found.offset_ms, *chain.from_iterable(own.values())]
        if not all(map(math.isfinite, numbers)):
            raise PackError("the card has no usable calibration: not all constants are finite")
        return found
