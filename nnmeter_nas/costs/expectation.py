"""Expected latency as a torch operation, for architecture parameters that learn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import LookupTableError
from .table import LatencyTable

if TYPE_CHECKING:
    import torch


def expected_latency(table: LatencyTable, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Expected latency in ms if every choice is made independently, as a differentiable scalar.

    Args:
        table: of the space.
        probabilities: of the candidates, ``[candidates]`` for each label, all on one device.

    Raises:
        LookupTableError: as :meth:`LatencyTable.expected`, or a value is no tensor of floats.

    >>> import numpy as np, torch
    >>> table = LatencyTable("s", "", "d", 2.0, "", (1, 3, 8, 8), {"layer": ("a", "b")}, 1.0,
    ...                      {"layer": np.array([2.0, 4.0])})
    >>> weights = torch.zeros(2, requires_grad=True)
    >>> expected = expected_latency(table, {"layer": weights.softmax(0)})
    >>> expected.item()
    4.0
    >>> expected.backward()
    >>> weights.grad
    tensor([-0.5000,  0.5000])
    """
    import torch

    for label, p in probabilities.items():
        if not isinstance(p, torch.Tensor) or not p.is_floating_point():
            raise LookupTableError(f"probabilities of {label!r} must be a tensor of floats; got {p!r}")
    table.check_probabilities(
        {label: p.detach().cpu().double().numpy() for label, p in probabilities.items()}
    )
    total = next(iter(probabilities.values())).new_tensor(table.stationary_ms)
    for label, ms in table.block_ms.items():
        p = probabilities[label]
        total = total + p @ p.new_tensor(ms)
    for (first, second), matrix in table.pair_ms.items():
        p, q = probabilities[first], probabilities[second]
        total = total + p @ p.new_tensor(matrix) @ q
    return total
