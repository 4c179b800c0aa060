"""A choice of a search space while ProxylessNAS trains it: one candidate at a time, drawn by learned odds.

Built on ``ProxylessLayerChoice`` of NNI 2.10.1, which knows one way of running: a step of the architecture.
Its backward pass asks every candidate what it would have done, and gives the drawn one's weights no gradient,
so that a search with it alone leaves all candidates as they were initialised. Steps of the weights therefore
run the drawn candidate as it is.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nni.retiarii.oneshot.pytorch.proxyless import ProxylessLayerChoice
from nni.retiarii.oneshot.pytorch.utils import replace_layer_choice
from torch import nn

from nnmeter_nas.errors import SearchError


class ProxylessChoice(ProxylessLayerChoice):
    """Runs one of its candidates.

    Args:
        choice: the space's; its candidates become those of this one.

    Attributes:
        names: of the candidates, in order.
        alpha: the architecture parameters, (candidates,); candidates are drawn by their softmax.
        learns: whether the backward pass gives ``alpha`` a gradient, and none to the candidates' weights.
    """

    def __init__(self, choice: Any) -> None:
        super().__init__(list(choice))
        self.names = tuple(choice.names)
        self.learns = False
        # All candidates are equally likely at first, under every seed.
        nn.init.zeros_(self.alpha)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the drawn candidate makes of ``x``."""
        return super().forward(x) if self.learns else self.ops[self.sampled](x)

    def finalize_grad(self) -> None:
        """Add to the gradient of ``alpha`` that of the gates, NNI's sum over pairs as a product."""
        gates, odds = self._binary_gates.grad, self.export_prob().detach()
        found = odds * (gates - (gates * odds).sum())
        self.alpha.grad = found if self.alpha.grad is None else self.alpha.grad + found


class Choices:
    """All choices of a space, by label.

    Args:
        space: an NNI model space; its layer choices are replaced by :class:`ProxylessChoice` in place.

    Raises:
        SearchError: there is no choice, or two share a label and so would have to choose alike.
    """

    def __init__(self, space: nn.Module) -> None:
        found: list[tuple[str, ProxylessChoice]] = []
        replace_layer_choice(space, ProxylessChoice, found)
        self.by_label = dict(found)
        if not found:
            raise SearchError(f"{type(space).__name__} has no LayerChoice to search")
        if len(self.by_label) < len(found):
            raise SearchError(f"two choices of {type(space).__name__} share a label; give each its own")

    def parameters(self) -> list[nn.Parameter]:
        """The architecture parameters."""
        return [choice.alpha for choice in self.by_label.values()]

    def draw(self) -> None:
        """Draw a candidate of every choice."""
        for choice in self.by_label.values():
            choice.resample()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within, a backward pass gives the architecture parameters their gradient."""
        for choice in self.by_label.values():
            choice.learns = True
        yield
        for choice in self.by_label.values():
            choice.learns = False
            choice.finalize_grad()

    def probabilities(self) -> dict[str, torch.Tensor]:
        """Odds of the candidates by label, differentiable."""
        return {label: choice.export_prob() for label, choice in self.by_label.items()}

    def entropy(self) -> float:
        """Entropy in nats of the distribution over all architectures; 0 once it is settled on one."""
        entropies = [torch.special.entr(odds.detach()).sum() for odds in self.probabilities().values()]
        return float(torch.stack(entropies).sum())

    def take_likeliest(self) -> None:
        """Run the likeliest candidates until others are drawn."""
        for choice in self.by_label.values():
            choice.sampled = choice.export()

    def architecture(self) -> dict[str, str]:
        """The likeliest candidate of every choice by label, in the form that NNI's ``fixed_arch`` takes."""
        return {label: choice.names[choice.export()] for label, choice in self.by_label.items()}
