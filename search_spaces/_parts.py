"""Parts that several search spaces share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from nnmeter_nas.nni.space_api import nn


class Zero(nn.Module):
    """No layer: a map of zeros."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map any shape to zeros of the same shape."""
        return x * 0.0


def of_size(
    space: Callable[..., Any], sizes: Mapping[str, Mapping[str, Any]], size: str, overrides: Mapping[str, Any]
) -> Any:
    """Make ``space`` with the arguments of a known ``size``; ``overrides`` replace them.

    Raises:
        ValueError: there is no such size.
    """
    if size not in sizes:
        raise ValueError(f"size={size!r} is not a known size; choose one of {', '.join(sizes)}")
    return space(**{**sizes[size], **overrides})
