"""Networks that learn: a few steps on random images fit them."""

from __future__ import annotations

from typing import Any


def assert_learns(network: Any, image: tuple[int, int, int], rate: float, steps: int = 15) -> None:
    """Train ``network`` on 16 random images of shape ``image``, CHW; its loss must fall to less than half."""
    import torch

    network.train()
    images, labels = torch.randn(16, *image), torch.arange(16) % 4
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
