"""Warmth: how much less a small network takes than its kernels do in a large one.

The caches of a processor still hold most of a small network when its next run begins, so each of its kernels
finds its weights, its code and its input nearby. Kernels of a large network find what the others have left.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import PackError
from ..kernels.configuration import FloatArray


@dataclass(frozen=True)
class Warmth:
    """What turns the sum of a network's kernels into its latency.

    A network whose kernels sum up to ``s`` ms takes ``s * (s / below_ms) ** exponent`` if ``s`` is less than
    ``below_ms``. The latency rises with the sum, so the order of networks stays.

    Attributes:
        below_ms: a sum from which a network takes just as long.
        exponent: 0 if small networks take as long as their kernels, too.
        least_ms: the share ``(s / below_ms) ** exponent`` of a smaller sum is that of this one.

    >>> warmth = Warmth(below_ms=2.0, exponent=0.5, least_ms=0.5)
    >>> warmth.ms(np.array([0.125, 0.5, 2.0, 8.0]))
    array([0.0625, 0.25  , 2.    , 8.    ])
    >>> warmth.sums(warmth.ms(np.array([0.125, 0.5, 2.0, 8.0])))
    array([0.125, 0.5  , 2.   , 8.   ])
    """

    below_ms: float = 1.0
    exponent: float = 0.0
    least_ms: float = 1.0

    def share(self, sums: Any) -> Any:
        """Latency over the sum of the kernels, for sums in ms: a number, a NumPy array or a torch tensor."""
        within = (np.float64(sums) if isinstance(sums, float | int) else sums) / self.below_ms
        return within.clip(self.least_ms / self.below_ms, 1.0) ** self.exponent

    def ms(self, sums: Any) -> Any:
        """Latency in ms of networks, from the sums of their kernels in ms, as in :meth:`share`."""
        return sums * self.share(sums) if self.exponent else sums

    def sums(self, ms: FloatArray | float) -> FloatArray:
        """Inverse of :meth:`ms`; limits may be infinite."""
        least = self.least_ms * float(self.share(self.least_ms))
        power = self.exponent / (1 + self.exponent)
        return np.asarray(ms * np.maximum(1.0, self.below_ms / np.maximum(ms, least)) ** power)

    def to_card(self) -> dict[str, float]:
        """The constants as they stand on a card."""
        return asdict(self)

    @classmethod
    def from_card(cls, entry: Any) -> Warmth:
        """Inverse of :meth:`to_card`; other entries are ignored.

        Raises:
            PackError: a constant is missing or is not such a number.
        """
        try:
            found = cls(*(float(entry[name]) for name in ("below_ms", "exponent", "least_ms")))
        except (TypeError, ValueError, KeyError) as error:
            raise PackError(f"the card has no usable warmth: {error!r}") from error
        if not (0 < found.least_ms <= found.below_ms < math.inf and 0 <= found.exponent < math.inf):
            raise PackError(f"the card has no usable warmth: {found}")
        return found


#: Of a device where small networks take as long as their kernels.
COLD = Warmth()
