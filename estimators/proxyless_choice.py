"""A choice that ProxylessNAS trains: it runs one candidate at a time, drawn by learned odds.

It is built on ``ProxylessLayerChoice`` of NNI 2.10.1, which supports only steps of the architecture. In
NNI's backward pass every candidate runs, and the drawn candidate's weights get no gradient. With NNI's class
alone, all candidates would keep their initial weights. Steps of the weights therefore run the drawn
candidate directly.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from nni.retiarii.oneshot.pytorch.proxyless import ProxylessLayerChoice
from nni.retiarii.oneshot.pytorch.utils import replace_layer_choice
from torch import nn

from nnmeter_nas.errors import SearchError


class ProxylessChoice(ProxylessLayerChoice):
    """A layer choice that runs one of its candidates.

    Args:
        choice: the choice in the space; this one takes over its candidates.

    Attributes:
        names: names of the candidates, in order.
        alpha: the architecture parameters, (candidates,); their softmax gives the odds.
        learns: if True, the backward pass gives a gradient to ``alpha`` only, not to the candidates' weights.
    """

    def __init__(self, choice: Any) -> None:
        super().__init__(list(choice))
        self.names = tuple(choice.names)
        self.learns = False
        # All candidates start equally likely, with any seed.
        nn.init.zeros_(self.alpha)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the drawn candidate on ``x``."""
        return super().forward(x) if self.learns else self.ops[self.sampled](x)

    def finalize_grad(self) -> None:
        """Add the gates' gradient to that of ``alpha``: NNI's sum over pairs, written as a product."""
        gates, odds = self._binary_gates.grad, self.export_prob().detach()
        found = odds * (gates - (gates * odds).sum())
        self.alpha.grad = found if self.alpha.grad is None else self.alpha.grad + found


class Choices:
    """All choices of a space, by label.

    Args:
        space: an NNI model space; :class:`ProxylessChoice` replaces its layer choices in place.

    Raises:
        SearchError: there is no choice, or two choices share a label (they would have to choose alike).
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
        """Draw a candidate for every choice."""
        for choice in self.by_label.values():
            choice.resample()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """While entered, backward passes give gradients to the architecture parameters.

        The candidates' weights get none, also where NNI is patched so that they do in its own search.
        """
        of_candidates = (p for choice in self.by_label.values() for p in choice.ops.parameters())
        weights = [p for p in of_candidates if p.requires_grad]
        for choice in self.by_label.values():
            choice.learns = True
        for weight in weights:
            weight.requires_grad_(False)
        yield
        for weight in weights:
            weight.requires_grad_(True)
        for choice in self.by_label.values():
            choice.learns = False
            choice.finalize_grad()

    def probabilities(self) -> dict[str, torch.Tensor]:
        """Return the odds of the candidates by label, differentiable."""
        return {label: choice.export_prob() for label, choice in self.by_label.items()}

    def entropy(self) -> float:
        """Return the entropy, in nats, of the distribution over architectures; 0 once one is certain."""
        entropies = [torch.special.entr(odds.detach()).sum() for odds in self.probabilities().values()]
        return float(torch.stack(entropies).sum())

    def take(self, architecture: Mapping[str, str]) -> None:
        """Select the candidates of ``architecture``, by label, until the next draw."""
        for label, choice in self.by_label.items():
            choice.sampled = choice.names.index(architecture[label])

    def likeliest(self) -> dict[str, str]:
        """Return the likeliest candidate of every choice by label, in the format of NNI's ``fixed_arch``."""
        return {label: choice.names[choice.export()] for label, choice in self.by_label.items()}
