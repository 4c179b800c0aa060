"""Shared by searching and training: settings, optimiser, and a loop that can be interrupted."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn import functional

from nnmeter_nas.errors import DatasetError, SearchError, SettingsError

from .datasets import Batches, Images
from .proxyless_checkpoint import Checkpoint
from .proxyless_log import Row, TrainingLog

#: Images and their classes, on the device of the training.
Batch = tuple[torch.Tensor, torch.Tensor]
#: A checkpoint is written when the last one is this many seconds old, and at the end of each epoch.
CHECKPOINT_S = 60.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class WeightSettings:
    """Settings for training weights by SGD with Nesterov momentum and a cosine learning rate.

    Attributes:
        epochs: passes over the images.
        train_batch_size: images per step.
        learning_rate: rate at the start.
        weight_decay: decay of all weights except those exempted by ``no_decay_keys``.
        no_decay_keys: "bn" exempts batch norms, "bn#bias" also biases, "" nothing.
        label_smoothing: share of the target spread evenly over all classes.
        seed: seed for weights, order of images and drawn candidates.
    """

    epochs: int = 20
    train_batch_size: int = 32
    learning_rate: float = 0.05
    weight_decay: float = 4e-5
    no_decay_keys: str = "bn"
    label_smoothing: float = 0.1
    seed: int = 0


def torch_device(name: str) -> torch.device:
    """Return the device called ``name``: "cpu", "cuda", "cuda:1", or "auto" for a GPU if there is one.

    Raises:
        SettingsError: the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise SettingsError(f"device={name}: torch cannot use it here; take cpu") from error
    return device


def on_device(values: Any, device: torch.device) -> Any:
    """Move a network or images to ``device``, in channels-last memory layout.

    In this layout, depthwise convolutions of small maps run two to four times as fast on a CPU.
    """
    return values.to(device, memory_format=torch.channels_last)


def weights_optimizer(
    network: nn.Module, settings: WeightSettings, without: Sequence[nn.Parameter] = ()
) -> torch.optim.SGD:
    """Make the optimiser of all weights of ``network`` except ``without``."""
    exempt = {key for key in settings.no_decay_keys.split("#") if key}
    left_out = {id(parameter) for parameter in without}
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            group = spared if ("bn" in exempt and norm) or ("bias" in exempt and name == "bias") else decayed
            if id(parameter) not in left_out:
                group.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, start: float, progress: float) -> None:
    """Set the rate, which falls from ``start`` to 0 along half a cosine; ``progress`` is the part done."""
    for group in optimizer.param_groups:
        group["lr"] = start * (1 + math.cos(math.pi * progress)) / 2


def hit_rate(logits: torch.Tensor, classes: torch.Tensor) -> float:
    """Return the share of images whose class has the highest logit."""
    return float((logits.argmax(1) == classes).float().mean())


def cross_entropy(logits: torch.Tensor, classes: torch.Tensor, settings: WeightSettings) -> torch.Tensor:
    """Return the task's loss.

    Raises:
        SearchError: the loss is not finite.
    """
    loss = functional.cross_entropy(logits, classes, label_smoothing=settings.label_smoothing)
    if not torch.isfinite(loss):
        raise SearchError(f"the cross-entropy is {loss.item()}")
    return loss


def train_weights(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, settings: WeightSettings
) -> dict[str, float]:
    """Train the weights on a batch; return the loss and the share of images classified correctly."""
    images, classes = batch
    logits = network(images)
    loss = cross_entropy(logits, classes, settings)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss.item(), "accuracy": hit_rate(logits, classes)}


@dataclass(frozen=True)
class Workplace:
    """Where a training runs, and where it leaves its files.

    Attributes:
        folder: folder for the log and TensorBoard's files.
        checkpoint: file for the state; by default ``<training>.pt`` in ``folder``.
        about: other things the training depends on, as JSON values; a checkpoint with others is refused.
        device: device to train on.
        workers: processes that prepare batches ahead.
        test_batch_size: images per batch when measuring accuracy.
    """

    folder: Path
    checkpoint: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = _CPU
    workers: int = 0
    test_batch_size: int = 250

    def state(
        self,
        training: str,
        settings: Mapping[str, Any],
        network: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> Checkpoint:
        """Return the state of a training of ``network`` with these ``settings``, to load and save."""
        path = self.checkpoint or self.folder / f"{training}.pt"
        context = json.loads(json.dumps({"training": training, **settings, **self.about}))
        return Checkpoint(path, context, network, optimizers, self.device)

    @torch.no_grad()
    def accuracy(self, network: nn.Module, images: Images) -> float:
        """Return the share of ``images`` classified correctly; leave ``network`` in training mode."""
        network.eval()
        hits = 0
        parts = max(1, -(-len(images) // self.test_batch_size))
        for chosen in np.array_split(np.arange(len(images)), parts):
            pixels, classes = images.batch(chosen, None)
            found = network(on_device(pixels, self.device)).argmax(1)
            hits += int((found == classes.to(self.device)).sum())
        network.train()
        return hits / max(1, len(images))


@dataclass(frozen=True)
class Training:
    """A training, run to its end from the first step or from the checkpoint.

    Attributes:
        name: "search" or "retrain"; names the log and its file.
        place: where it runs.
        columns: columns of the log, including ``step``, ``epoch``, ``loss`` and ``held_out_accuracy``.
        epochs: passes over the first of ``batches``.
        batches: each step gets one batch from each of them.
        checkpoint: where the state is saved.
    """

    name: str
    place: Workplace
    columns: Sequence[str]
    epochs: int
    batches: Sequence[Batches]
    checkpoint: Checkpoint

    def run(
        self, step: Callable[[float, Sequence[Batch]], dict[str, float]], judge: Callable[[], float]
    ) -> None:
        """Run the remaining steps.

        Args:
            step: takes the share of steps done and one batch each of ``batches``; returns the log's figures.
            judge: returns the accuracy on held-out images; called after each epoch.

        Raises:
            SearchError: a loss or a weight is not finite, or the checkpoint cannot be used.
        """
        an_epoch = len(self.batches[0])
        total = self.epochs * an_epoch
        done = self.checkpoint.load()
        saved = time.monotonic()
        with (
            closing(TrainingLog(self.place.folder, self.name, self.columns, done)) as log,
            _progress(self.name, total, done) as tell,
        ):
            for number, batches in enumerate(self._loaded(done, total), done + 1):
                try:
                    row: dict[str, float | None] = dict(step((number - 1) / total, batches))
                except SearchError as error:
                    raise SearchError(f"step {number}: {error}; {self.checkpoint.way_back()}") from error
                row |= {"step": number, "epoch": (number - 1) // an_epoch + 1}
                ends_epoch = number % an_epoch == 0
                row["held_out_accuracy"] = judge() if ends_epoch else None
                log.write(row)
                if ends_epoch or time.monotonic() - saved > CHECKPOINT_S:
                    self.checkpoint.save(number)
                    saved = time.monotonic()
                tell(row)

    def _loaded(self, start: int, end: int) -> Iterator[list[Batch]]:
        device = self.place.device
        pinned = device.type == "cuda"
        loaders = [batches.loader(start, end, self.place.workers, pinned) for batches in self.batches]
        try:
            for loaded in zip(*loaders, strict=True):
                yield [(on_device(images, device), classes.to(device)) for images, classes in loaded]
        except DatasetError as error:  # from a worker, its message includes a traceback
            raise DatasetError(str(error).rsplit("DatasetError: ", 1)[-1].strip()) from error


@contextmanager
def _progress(name: str, total: int, done: int) -> Iterator[Callable[[Row], None]]:
    """Yield a function to call with each log row: it moves a bar on a terminal, else it prints each epoch."""
    console = Console(stderr=True, markup=False)
    if done:
        note = "it is finished" if done == total else f"it goes on from step {done} of {total}"
        console.print(f"{name}: {note}", soft_wrap=True)
    if not console.is_terminal:
        yield lambda row: _print_epoch(row, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(name, total=total, completed=done)
        judged: dict[str, Any] = {}

        def tell(row: Row) -> None:
            if row["held_out_accuracy"] is not None:
                judged["held_out_accuracy"] = row["held_out_accuracy"]
            bar.update(task, advance=1, description=_figures({**row, **judged}))

        yield tell


def _print_epoch(row: Row, total: int) -> None:
    if row["held_out_accuracy"] is not None:
        print(
            f"epoch {row['epoch']}, step {row['step']}/{total}: {_figures(row)}", file=sys.stderr, flush=True
        )


def _figures(row: Row) -> str:
    """Format the main figures to fit on one line of a terminal."""
    shown = {
        "expected_latency_ms": "expected {:.4g} ms",
        "loss": "loss {:.2f}",
        "entropy": "entropy {:.1f}",
        "held_out_accuracy": "accuracy {:.1%}",
    }
    return "  ".join(form.format(row[name]) for name, form in shown.items() if row.get(name) is not None)
