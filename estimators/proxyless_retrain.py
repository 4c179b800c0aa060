"""Train a found architecture from scratch, as a network of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnmeter_nas.errors import SearchError, SpaceError
from nnmeter_nas.supernet.choices import plain_architecture

from .datasets import Batches, Dataset
from .proxyless_choice import Choices
from .proxyless_search import chosen_network
from .proxyless_training import (
    Batch,
    Training,
    WeightSettings,
    Workplace,
    on_device,
    set_learning_rate,
    train_weights,
    weights_optimizer,
)

COLUMNS = ("step", "epoch", "loss", "accuracy", "held_out_accuracy")


def retrain(
    build: Callable[[], nn.Module],
    architecture: Mapping[str, str],
    dataset: Dataset,
    settings: WeightSettings,
    place: Workplace,
) -> tuple[nn.Module, float]:
    """Train an architecture of a space, or resume an interrupted training.

    Args:
        build: makes the space.
        architecture: the candidate of each choice by label.
        dataset: all its training images are used.
        settings, place: how and where to train.

    Returns:
        The trained network, and its accuracy on held-out images, 0 to 1.

    Raises:
        SearchError: the checkpoint cannot be used, or a loss is not finite.
        SettingsError: there are too few images for a batch.
    """
    torch.manual_seed(settings.seed)
    network = on_device(chosen_network(build, architecture), place.device).train()
    weights = weights_optimizer(network, settings)
    context = {"architecture": architecture, **asdict(settings)}
    state = place.state("retrain", context, network, (weights,))

    def step(progress: float, batches: Sequence[Batch]) -> dict[str, float]:
        set_learning_rate(weights, settings.learning_rate, progress)
        return train_weights(network, weights, batches[0], settings)

    def judge() -> float:
        return place.accuracy(network, dataset.held_out)

    batches = [Batches(dataset.train, settings.train_batch_size, (settings.seed, 3))]
    Training("retrain", place, COLUMNS, settings.epochs, batches, state).run(step, judge)
    return network, judge()


def read_architecture(path: Path, build: Callable[[], nn.Module]) -> dict[str, str]:
    """Read an architecture from a JSON file of a search or of NNI: label -> a candidate's name or index.

    ``build`` makes its space.

    Raises:
        SearchError: the file is missing, or holds something else.
        SpaceError: the architecture does not belong to the space.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SearchError(f"{path} cannot be read as an exported architecture: {error}") from error
    candidates = {label: choice.names for label, choice in Choices(build()).by_label.items()}
    try:
        return plain_architecture(_named(found, candidates), candidates)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}; is it of another size or of other stages?") from error


def _named(architecture: Any, candidates: Mapping[str, Sequence[str]]) -> Any:
    """Replace indices in ``architecture`` by names; NNI's trainer exports indices."""
    if not isinstance(architecture, dict):
        return architecture
    return {
        label: candidates[label][chosen]
        if type(chosen) is int and label in candidates and 0 <= chosen < len(candidates[label])
        else chosen
        for label, chosen in architecture.items()
    }
