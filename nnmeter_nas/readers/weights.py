"""Random weights for the files that are written, the same in every format."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

#: Weights repeat after so many: drawing each one of a large layer takes longer than running it. It is prime,
#: so that no two rows of a matrix are the same.
_PERIOD = 65_537


def random_weights(seed: int, name: str, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Weights that ``seed`` and ``name`` decide; values that pass through them keep about their size.

    >>> random_weights(0, "conv/weight", (8, 3, 3, 3)).shape
    (8, 3, 3, 3)
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = random.standard_normal(min(math.prod(shape), _PERIOD), dtype=np.float32)
    values /= np.float32(math.sqrt(max(1, math.prod(shape[1:]))))
    return np.resize(values, tuple(shape))
