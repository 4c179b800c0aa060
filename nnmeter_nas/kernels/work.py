"""Work of one kernel, as declared by its head operator."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..ops import OPERATORS
from .fusion import Kernel


class DeclaredWork(NamedTuple):
    """Multiply-adds, values read, values written and weights of a kernel, and how often it is launched."""

    macs: float
    read: float
    written: float
    weights: float
    launches: float = 1.0


def declared_work(kernel: Kernel) -> DeclaredWork:
    """Work of the head operator of ``kernel``, or of an attention.

    An undeclared operator reads all its operands, writes all its outputs and multiplies nothing.
    """
    if kernel.op == "attention":
        return _work_of_attention(kernel)
    operator = OPERATORS.get(kernel.op)
    if operator is None:
        written = float(sum(map(math.prod, kernel.out_shapes)))
        read = float(sum(map(math.prod, kernel.in_shapes)))
        return DeclaredWork(0.0, read, written, float(kernel.attrs.get("params", 0)))
    node = _node(kernel)
    work = operator.work(node)
    amounts = work.macs, work.read, work.written, work.params or 0, operator.launches(node)
    return DeclaredWork(*map(float, amounts))


def _work_of_attention(kernel: Kernel) -> DeclaredWork:
    """Two products; the scores between them are written too."""
    query, key, _ = kernel.in_shapes
    [result] = kernel.out_shapes
    scores = math.prod(query[:-1]) * key[-1]
    macs = scores * (query[-1] + result[-1])
    return DeclaredWork(macs, sum(map(math.prod, kernel.in_shapes)), math.prod(result) + scores, 0.0)


def work_of(kernel: Kernel) -> tuple[float, float, float, float]:
    """Multiply-adds, values read, values written and weights of the head operator of ``kernel``.

    An operator without multiply-adds counts one per value written.
    """
    macs, read, written, weights, _ = declared_work(kernel)
    return macs or written, read, written, weights


def _node(kernel: Kernel) -> dict[str, Any]:
    """The head operator of ``kernel`` as a node of a model graph."""
    # Some formats store neither a bias nor the weights of a norm, whose cost is negligible beside the rest.
    attrs = {key: value for key, value in kernel.attrs.items() if key != "params"} | {"bias": False}
    return {"attrs": attrs, "in_shapes": kernel.in_shapes, "out_shapes": kernel.out_shapes}
