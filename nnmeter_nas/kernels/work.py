"""Work of one kernel, as declared by its head operator."""

from __future__ import annotations

import math

from ..ops import OPERATORS
from .fusion import Kernel


def work_of(kernel: Kernel) -> tuple[float, float, float, float]:
    """Multiply-adds, values read, values written and weights of the head operator of ``kernel``.

    An operator that declares no multiply-adds counts one per value written. An undeclared operator reads all
    its operands and writes all its outputs.
    """
    operator = OPERATORS.get(kernel.op)
    if operator is None:
        written = float(sum(map(math.prod, kernel.out_shapes)))
        read = float(sum(map(math.prod, kernel.in_shapes)))
        return written, read, written, float(kernel.attrs.get("params", 0))
    # Some formats store neither a bias nor the weights of a norm, whose cost is negligible beside the rest.
    attrs = {key: value for key, value in kernel.attrs.items() if key != "params"} | {"bias": False}
    node = {"attrs": attrs, "in_shapes": kernel.in_shapes, "out_shapes": kernel.out_shapes}
    work = operator.work(node)
    return float(work.macs or work.written), float(work.read), float(work.written), float(work.params or 0)
