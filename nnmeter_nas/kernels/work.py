"""Work of one kernel, as its operator declares it."""

from __future__ import annotations

import math

from .fusion import Kernel


def work_of(kernel: Kernel) -> tuple[float, float, float, float]:
    """Multiply-adds, values read, values written and weights of ``kernel``, by its head operator.

    All operands are read. An operator whose multiply-adds are not known counts one for each value written.
    """
    read = float(sum(math.prod(shape) for shape in kernel.in_shapes))
    written = float(sum(math.prod(shape) for shape in kernel.out_shapes))
    weights = float(kernel.attrs.get("params", 0))
    if kernel.op == "convtranspose":
        window = math.prod(kernel.attrs["kernel"]) * kernel.attrs["out_channels"]
        window /= kernel.attrs.get("groups", 1)
        return math.prod(kernel.in_shapes[0]) * window, read, written, kernel.in_shapes[0][1] * window
    if kernel.op == "matmul":
        return written * kernel.in_shapes[0][-1], read, written, weights
    return written, read, written, weights
