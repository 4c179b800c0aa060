"""ProxylessNAS: train the weights and the architecture of a search space in turn, within a latency.

A step draws an architecture and trains its weights on one batch. It then trains the odds of all candidates on
another batch, with a loss that includes the expected latency. The search finds the likeliest candidates.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from nni.retiarii import fixed_arch
from torch import nn

from nnmeter_nas.errors import SearchError

from .datasets import Batches, Dataset
from .penalties import Penalty, latency_penalty
from .proxyless_choice import Choices
from .proxyless_training import (
    Batch,
    Training,
    WeightSettings,
    Workplace,
    cross_entropy,
    hit_rate,
    on_device,
    set_learning_rate,
    train_weights,
    weights_optimizer,
)

COLUMNS = (
    "step", "epoch", "expected_latency_ms", "loss", "cross_entropy", "latency_penalty", "entropy",
    "accuracy", "held_out_accuracy",
)  # fmt: skip
#: How far all steps together may move an architecture parameter, by default. The odds settle well before, so
#: a long search can take small steps; a short search with small steps would end undecided.
_WAY = 25.0
#: Limits of the default learning rate of the architecture parameters.
_SLOWEST, _FASTEST = 1e-3, 5e-2
#: Default parameters of penalties where they differ from NNI's. With NNI's lambda, 0.2, searches end above
#: references that they could meet.
_PARAMETERS: Mapping[str, Mapping[str, float]] = {"add#linear": {"lambda": 1.0}}


class LatencyEstimator(Protocol):
    """Gives a search its latencies in ms, under NNI's method names."""

    def cal_expected_latency(self, current_architecture_prob: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the expected latency for the odds of each choice's candidates, differentiable."""

    def export_latency(self, current_architecture: Mapping[str, Any]) -> float:
        """Return the latency of an architecture."""


@dataclass(frozen=True)
class SearchSettings(WeightSettings):
    """Settings of a search.

    Attributes:
        warmup_epochs: number of first epochs in which the odds stay equal.
        arc_learning_rate: Adam's rate for the architecture parameters: about how far a step moves each. None
            picks a rate with which they can settle in the available steps.
        reference_latency: in ms; None leaves latency out of the loss.
        grad_reg_loss_type: "add#linear" or "mul#log".
        grad_reg_loss_params: parameters of the penalty under NNI's names; lambda is 1 by default.
    """

    warmup_epochs: int = 7
    arc_learning_rate: float | None = None
    reference_latency: float | None = None
    grad_reg_loss_type: str = "add#linear"
    grad_reg_loss_params: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise SearchError(
                f"warmup_epochs={self.warmup_epochs} leaves none of {self.epochs} epochs to the architecture"
            )

    def penalty(self) -> Penalty | None:
        """Make the penalty that adds latency to the loss; None if latency does not count.

        Raises:
            SearchError: the penalty or a parameter is unknown, or a value is out of range.
        """
        if self.reference_latency is None:
            return None
        usual = _PARAMETERS.get(self.grad_reg_loss_type, {})
        parameters = {**usual, **self.grad_reg_loss_params}
        return latency_penalty(self.grad_reg_loss_type, parameters, self.reference_latency)

    def odds_rate(self, an_epoch: int) -> float:
        """Return the learning rate of the architecture parameters for ``an_epoch`` steps per epoch."""
        if self.arc_learning_rate is not None:
            return self.arc_learning_rate
        steps = (self.epochs - self.warmup_epochs) * an_epoch
        return min(max(_WAY / steps, _SLOWEST), _FASTEST)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        architecture: the likeliest candidate of each choice, by label.
        table_latency_ms: its latency from the estimator's table.
        expected_latency_ms: expected latency for the final odds.
        entropy: entropy of the odds in nats; 0 if they are settled.
        held_out_accuracy: accuracy with the search's weights; training the architecture anew improves it.
    """

    architecture: Mapping[str, str]
    table_latency_ms: float
    expected_latency_ms: float
    entropy: float
    held_out_accuracy: float


def search(
    build: Callable[[], nn.Module],
    dataset: Dataset,
    estimator: LatencyEstimator,
    settings: SearchSettings,
    place: Workplace,
) -> SearchResult:
    """Search a space, or resume an interrupted search.

    Args:
        build: makes the space, an NNI model space whose choices are layer choices.
        dataset: half of its training images train the weights, the other half the architecture.
        estimator: gives latencies of the space on the applied hardware.
        settings, place: how and where to search.

    Raises:
        SearchError: the space cannot be searched, the checkpoint cannot be used, or a loss is not finite.
        DatasetError: there are too few images.
    """
    torch.manual_seed(settings.seed)
    network = build()
    choices = Choices(network)
    on_device(network, place.device).train()
    batches = _halves(dataset, settings)
    run = _Search(network, choices, estimator, settings, settings.odds_rate(len(batches[0])))
    state = place.state("search", asdict(settings), network, (run.weights, run.odds))

    def judge() -> float:
        choices.take_likeliest()
        return place.accuracy(network, dataset.held_out)

    Training("search", place, COLUMNS, settings.epochs, batches, state).run(run.step, judge)
    architecture = choices.architecture()
    return SearchResult(
        architecture,
        float(estimator.export_latency(architecture)),
        run.expected_latency().item(),
        choices.entropy(),
        judge(),
    )


def chosen_network(build: Callable[[], nn.Module], architecture: Mapping[str, str]) -> nn.Module:
    """Build the network of ``architecture`` (candidate by label) in a space."""
    with fixed_arch(dict(architecture), verbose=False):
        return build()


def _halves(dataset: Dataset, settings: SearchSettings) -> Sequence[Batches]:
    """Split the training images into random halves: batches for the weights, and for the architecture."""
    order = np.random.default_rng([settings.seed, 0]).permutation(len(dataset.train))
    halves = enumerate(np.array_split(order, 2), 1)
    size, seed = settings.train_batch_size, settings.seed
    return [Batches(dataset.train, size, (seed, place), half) for place, half in halves]


class _Search:
    """The two kinds of steps, and their optimisers."""

    def __init__(
        self,
        network: nn.Module,
        choices: Choices,
        estimator: LatencyEstimator,
        settings: SearchSettings,
        odds_rate: float,
    ) -> None:
        self.network, self.choices, self.estimator, self.settings = network, choices, estimator, settings
        gates = [choice._binary_gates for choice in choices.by_label.values()]
        self.weights = weights_optimizer(network, settings, without=[*choices.parameters(), *gates])
        # No first moment, as in the paper: parameters of candidates that were not drawn must not move.
        self.odds = torch.optim.Adam(choices.parameters(), odds_rate, betas=(0.0, 0.999))
        self._penalised = settings.penalty()

    def step(self, progress: float, batches: Sequence[Batch]) -> dict[str, float]:
        """Train the weights on the first batch, then, after the warm-up, the odds on the second."""
        set_learning_rate(self.weights, self.settings.learning_rate, progress)
        self.choices.draw()
        figures = train_weights(self.network, self.weights, batches[0], self.settings)
        figures |= {"cross_entropy": figures["loss"], "latency_penalty": 0.0}
        if progress * self.settings.epochs >= self.settings.warmup_epochs:
            figures = self._train_odds(*batches[1])
        return {
            **figures,
            "expected_latency_ms": self.expected_latency().item(),
            "entropy": self.choices.entropy(),
        }

    def expected_latency(self) -> torch.Tensor:
        """Return the expected latency in ms, differentiable."""
        return self.estimator.cal_expected_latency(self.choices.probabilities())

    def _train_odds(self, images: torch.Tensor, classes: torch.Tensor) -> dict[str, float]:
        self.odds.zero_grad()
        self.choices.draw()
        with self.choices.learning():
            logits = self.network(images)
            task = cross_entropy(logits, classes, self.settings)
            loss = task if self._penalised is None else self._penalised(task, self.expected_latency())
            loss.backward()
        self.odds.step()
        if not all(alpha.isfinite().all() for alpha in self.choices.parameters()):
            raise SearchError("the architecture parameters are not finite")
        return {
            "loss": loss.item(), "cross_entropy": task.item(), "latency_penalty": (loss - task).item(),
            "accuracy": hit_rate(logits, classes),
        }  # fmt: skip
