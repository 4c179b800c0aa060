"""ProxylessNAS: train the weights and the architecture of a search space in turn, within a latency.

A step draws an architecture and trains its weights on one batch. It then trains the odds of all candidates on
another batch, with a loss that includes the expected latency. In the last epochs, only the weights of the
architecture found are trained.

NNI's losses find the likeliest candidate of every choice. Under the hinge, the reference is a limit, and the
search finds the likeliest architecture that is within it.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from nni.retiarii import fixed_arch
from torch import nn

from nnmeter_nas.costs import FactorTable
from nnmeter_nas.errors import SearchError, SettingsError
from nnmeter_nas.solve.likeliest import likeliest

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
#: The penalty that makes of the reference a limit for the architecture found.
_LIMIT = "add#hinge"


class LatencyEstimator(Protocol):
    """Gives a search its latencies in ms, under NNI's method names."""

    def cal_expected_latency(self, current_architecture_prob: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the expected latency for the odds of each choice's candidates, differentiable."""

    def export_latency(self, current_architecture: Mapping[str, Any]) -> float:
        """Return the latency of an architecture."""

    @property
    def table(self) -> FactorTable:
        """The lookup table that both come from."""


@dataclass(frozen=True)
class SearchSettings(WeightSettings):
    """Settings of a search.

    Attributes:
        warmup_epochs: number of first epochs in which the odds stay equal.
        settle_epochs: number of last epochs in which only the weights of the architecture found are trained,
            on all training images.
        arc_learning_rate: Adam's rate for the architecture parameters: about how far a step moves each. None
            picks a rate with which they can settle in the available steps.
        reference_latency: in ms; None leaves latency out of the loss.
        grad_reg_loss_type: "add#hinge", with which the architecture found is within the reference by the
            table; or one of NNI's, "add#linear" or "mul#log".
        grad_reg_loss_params: parameters of the penalty under NNI's names.
    """

    warmup_epochs: int = 7
    settle_epochs: int = 3
    arc_learning_rate: float | None = None
    reference_latency: float | None = None
    grad_reg_loss_type: str = _LIMIT
    grad_reg_loss_params: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.warmup_epochs >= self.odds_end:
            raise SettingsError(
                f"warmup_epochs={self.warmup_epochs} and settle_epochs={self.settle_epochs} leave none of "
                f"{self.epochs} epochs to the architecture"
            )

    def penalty(self) -> Penalty | None:
        """Make the penalty that adds latency to the loss; None if latency does not count.

        Raises:
            SettingsError: the penalty or a parameter is unknown, or a value is out of range.
        """
        if self.reference_latency is None:
            return None
        return latency_penalty(self.grad_reg_loss_type, self.grad_reg_loss_params, self.reference_latency)

    @property
    def limit(self) -> float:
        """Largest latency in ms that the architecture found may have."""
        if self.reference_latency is None or self.grad_reg_loss_type != _LIMIT:
            return math.inf
        return self.reference_latency

    @property
    def odds_end(self) -> int:
        """Number of epochs after which the odds stay as they are."""
        return self.epochs - self.settle_epochs

    def odds_rate(self, an_epoch: int) -> float:
        """Return the learning rate of the architecture parameters for ``an_epoch`` steps per epoch."""
        if self.arc_learning_rate is not None:
            return self.arc_learning_rate
        steps = (self.odds_end - self.warmup_epochs) * an_epoch
        return min(max(_WAY / steps, _SLOWEST), _FASTEST)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        architecture: the candidate of each choice, by label.
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
        SettingsError: there are too few images for a batch.
    """
    torch.manual_seed(settings.seed)
    network = build()
    choices = Choices(network)
    on_device(network, place.device).train()
    batches = _halves(dataset, settings)
    run = _Search(network, choices, estimator, settings, settings.odds_rate(len(batches[0])))
    state = place.state("search", asdict(settings), network, (run.weights, run.odds))

    def judge() -> float:
        choices.take(run.decided())
        return place.accuracy(network, dataset.held_out)

    Training("search", place, COLUMNS, settings.epochs, batches, state).run(run.step, judge)
    architecture = run.decided()
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
    """The kinds of steps, and their optimisers."""

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
        self._settled: dict[str, str] | None = None

    def step(self, progress: float, batches: Sequence[Batch]) -> dict[str, float]:
        """Train the weights on the first batch, and the odds on the second, unless in warm-up or settling."""
        epoch = progress * self.settings.epochs
        if epoch >= self.settings.odds_end:
            figures = self._settle(progress, batches)
        else:
            set_learning_rate(self.weights, self.settings.learning_rate, progress)
            self.choices.draw()
            figures = train_weights(self.network, self.weights, batches[0], self.settings)
        figures |= {"cross_entropy": figures["loss"], "latency_penalty": 0.0}
        if self.settings.warmup_epochs <= epoch < self.settings.odds_end:
            figures = self._train_odds(*batches[1])
        return {
            **figures,
            "expected_latency_ms": self.expected_latency().item(),
            "entropy": self.choices.entropy(),
        }

    def _settle(self, progress: float, batches: Sequence[Batch]) -> dict[str, float]:
        """Train the weights of the architecture found on both batches, with a learning rate of its own."""
        end = self.settings.odds_end / self.settings.epochs
        set_learning_rate(self.weights, self.settings.learning_rate, (progress - end) / (1 - end))
        self._settled = self._settled or self.decided()
        self.choices.take(self._settled)
        return [train_weights(self.network, self.weights, batch, self.settings) for batch in batches][-1]

    def decided(self) -> dict[str, str]:
        """Return the architecture that the odds now say is best, by label."""
        if math.isinf(self.settings.limit):
            return self.choices.likeliest()
        odds = {label: p.detach().cpu().numpy() for label, p in self.choices.probabilities().items()}
        row = likeliest(self.estimator.table, odds, self.settings.limit)
        known = self.estimator.table.candidates.items()
        return {label: names[place] for (label, names), place in zip(known, row, strict=True)}

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
