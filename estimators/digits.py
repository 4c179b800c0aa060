"""Train one candidate network on scikit-learn's handwritten digits. Each trial of a search runs this.

The digits (1,797 real grey images of 8x8 pixels, ten classes; Alpaydin and Kaynak, "Optical Recognition
of Handwritten Digits", UCI 1998) ship with scikit-learn, so trials need no internet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nni
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

#: Share of the images kept for testing.
HELD_OUT = 0.25


def digits(input_shape: Sequence[int], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Load the digits for a network with input ``input_shape``: enlarged, the same grey in every channel.

    Args:
        input_shape: NCHW; the batch size is ignored.
        seed: seed for the split. Both parts have the same share of each class.

    Returns:
        Training images (1347, C, H, W) with mean 0 and standard deviation 1, their classes, held-out images
        (450, C, H, W) scaled in the same way, their classes.
    """
    images, classes = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images.astype(np.float32)).reshape(-1, 1, 8, 8)
    _, channels, height, width = input_shape
    pixels = functional.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(classes.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, stratify=classes, random_state=seed
    )
    pixels = (pixels - pixels[train].mean()) / pixels[train].std()
    pixels = pixels.expand(-1, channels, -1, -1)
    return pixels[train], labels[train], pixels[test], labels[test]


def train_on_digits(
    model: nn.Module | Callable[[], nn.Module],
    input_shape: Sequence[int] = (1, 3, 32, 32),
    epochs: int = 3,
    batch_size: int = 16,
    learning_rate: float = 0.05,
    seed: int = 0,
    threads: int = 1,
) -> float:
    """Train ``model`` and report its accuracy to NNI after each epoch. A trial runs this function.

    ``seed`` sets the weights, the split and the order of the images, so a candidate's accuracy does not
    depend on other trials.

    Args:
        model: a network, or a class or function that builds one (NNI 2.10.1 passes a class, 3.0 a network).
        input_shape: NCHW input of the network; the batch size is ignored.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: highest rate of the one-cycle schedule (Smith and Topin, 2019).
        seed: seed for everything random.
        threads: cores that torch may use. Trials run in parallel, so one core each is fastest.

    Returns:
        Accuracy on the held-out images, 0 to 1.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    network = _initialised(model) if isinstance(model, nn.Module) else model()
    accuracy = 0.0
    for accuracy in _epochs(network, digits(input_shape, seed), epochs, batch_size, learning_rate):
        nni.report_intermediate_result(accuracy)
    nni.report_final_result(accuracy)
    return accuracy


def _initialised(network: nn.Module) -> nn.Module:
    """Draw new weights for ``network``, which was built before the seed was set."""
    for part in network.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    return network


def _epochs(
    network: nn.Module, data: tuple[torch.Tensor, ...], epochs: int, batch_size: int, learning_rate: float
) -> Iterator[float]:
    """Train by SGD with momentum, yielding the held-out accuracy after each epoch."""
    images, classes, test_images, test_classes = data
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps)
    for _ in range(epochs):
        network.train()
        # Drop the last, smaller batch: it may be a single image, which has no batch statistics.
        for batch in torch.randperm(len(images)).split(batch_size)[: len(images) // batch_size]:
            loss = functional.cross_entropy(network(images[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        yield _accuracy(network, test_images, test_classes)


@torch.no_grad()
def _accuracy(network: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> float:
    """Return the share of ``images`` (n, C, H, W) that ``network`` classifies correctly."""
    network.eval()
    hits: Any = torch.cat([network(part).argmax(1) for part in images.split(256)]) == classes
    return int(hits.sum()) / len(hits)
