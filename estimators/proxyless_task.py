"""The task of a ProxylessNAS search: a dataset, and the space of networks to learn it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from nnmeter_nas.errors import SettingsError
from nnmeter_nas.search_spaces import proxylessnas

from .datasets import Dataset, check_dataset, load_dataset

#: A size of the space.
Size = Literal["small", "imagenet"]


@dataclass(frozen=True)
class Defaults:
    """Default settings for a dataset."""

    size: Size
    epochs: int
    train_batch_size: int


DEFAULTS: Mapping[str, Defaults] = {
    "digits": Defaults("small", 30, 16),
    "cifar10": Defaults("small", 120, 128),
    "imagefolder": Defaults("imagenet", 120, 256),
}


@dataclass(frozen=True)
class Task:
    """A search space, and a dataset for its networks to learn.

    Attributes:
        dataset: name of the dataset.
        data_path: folder of the dataset; digits needs none.
        size: "small" or "imagenet"; None picks the dataset's default.
        stages: arguments of the space that override the size's.
        bn_momentum, bn_eps: momentum and epsilon of batch norms.
        resize_scale: smallest share of a photograph that training may crop.
        n_worker: processes that read images ahead.
        test_batch_size: images per batch when measuring accuracy.
        device: torch device; "auto" uses a GPU if there is one.
    """

    dataset: str = "digits"
    data_path: Path | None = None
    size: Size | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    bn_momentum: float = 0.1
    bn_eps: float = 1e-3
    resize_scale: float = 0.08
    n_worker: int = 0
    test_batch_size: int = 250
    device: str = "auto"

    def __post_init__(self) -> None:
        check_dataset(self.dataset)

    def load(self, seed: int) -> tuple[Callable[[], nn.Module], Dataset]:
        """Return a function that builds the space for the dataset, and the dataset.

        Raises:
            DatasetError: the dataset is missing or damaged.
            SettingsError: the space cannot be built.
        """
        try:
            shape = proxylessnas(self.space_size, **self.stages).input_shape
        except (ValueError, RuntimeError) as error:
            raise SettingsError(f"the search space cannot be built: {error}") from error
        dataset = load_dataset(self.dataset, self.data_path, shape, seed, self.resize_scale)
        return functools.partial(self._network, dataset.classes), dataset

    @property
    def space_size(self) -> Size:
        """Size of the space."""
        return self.size or DEFAULTS[self.dataset].size

    def about(self) -> dict[str, Any]:
        """Return everything besides its settings that a training depends on, as JSON values."""
        return {
            "dataset": self.dataset,
            "data_path": str(self.data_path.absolute()) if self.data_path else None,
            "size": self.space_size,
            "stages": dict(self.stages),
            "bn_momentum": self.bn_momentum,
            "bn_eps": self.bn_eps,
            "resize_scale": self.resize_scale,
        }

    def _network(self, classes: int) -> nn.Module:
        space: nn.Module = proxylessnas(self.space_size, classes=classes, **self.stages)
        for module in space.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = self.bn_momentum, self.bn_eps
        return space
