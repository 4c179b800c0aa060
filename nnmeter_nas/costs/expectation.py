"""Expected latency as a torch operation, so that architecture parameters can learn from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import LookupTableError
from .table import FactorTable, contracted

if TYPE_CHECKING:
    import torch


def expected_latency(table: FactorTable, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Expected latency in ms if all choices are independent, as a differentiable scalar.

    Args:
        table: latency table of the space.
        probabilities: of the candidates, ``[candidates]`` for each label, all on one device.

    Raises:
        LookupTableError: as :meth:`FactorTable.expected`, or a value is not a float tensor.

    >>> import numpy as np, torch
    >>> table = FactorTable({"layer": ("a", "b")}, 1.0, {(0,): np.array([2.0, 4.0])})
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
    by_position = [probabilities[label] for label in table.labels]
    factors = {positions: by_position[0].new_tensor(array) for positions, array in table.factors.items()}
    expected: torch.Tensor = contracted(by_position[0].new_tensor(table.constant), factors, by_position)
    latency: torch.Tensor = table.header.warmth.ms(expected)
    return latency
