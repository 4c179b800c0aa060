"""The Single Path One-Shot search space: every layer is one of four ShuffleNetV2 blocks.

    >>> from nnmeter_nas.search_spaces import spos
    >>> spos("small").input_shape
    (1, 3, 32, 32)

``spos(size="imagenet", **overrides)`` makes a space of a known size; the constructor is
``ShuffleNetV2OneShot(input_size=224, classes=1000, in_channels=3, depths=(4, 4, 8, 4),
channels=(64, 160, 320, 640), stem_channels=16, stem_stride=2, head_channels=1024, dropout=0.1)``.
Choices are labelled ``layer_1`` ... ``layer_N`` in order; their candidates are ``BLOCKS``.

Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020;
the block is that of Ma et al., "ShuffleNet V2", ECCV 2018.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch

from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn

from ._parts import of_size

#: Candidates of every choice: the branch's depthwise kernel, or the deeper Xception-like branch.
BLOCKS = ("k3", "k5", "k7", "xception")

SIZES: dict[str, dict[str, Any]] = {
    "imagenet": {},
    "small": {
        "input_size": 32,
        "classes": 10,
        "depths": (2, 2, 2),
        "channels": (32, 64, 128),
        "stem_stride": 1,
        "head_channels": 128,
        "dropout": 0.0,
    },
}


def spos(size: Literal["imagenet", "small"] = "imagenet", **overrides: Any) -> Any:
    """Make a Single Path One-Shot space of a known size.

    Args:
        size: "imagenet" (20 choices, input (1, 3, 224, 224), 1000 classes) or "small" (6 choices,
            input (1, 3, 32, 32), 10 classes, trains within seconds on a CPU).
        overrides: constructor arguments of :class:`ShuffleNetV2OneShot` that replace the size's.

    Raises:
        ValueError: there is no such size.
    """
    return of_size(ShuffleNetV2OneShot, SIZES, size, overrides)


def _depthwise(channels: int, kernel: int, stride: int) -> list[Any]:
    """Return a depthwise convolution that keeps the map's size at stride 1, and its batch norm."""
    return [
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    ]


def _pointwise(in_channels: int, out_channels: int) -> list[Any]:
    """Return a 1x1 convolution, batch norm and ReLU."""
    return [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]


def _branch(block: str, in_channels: int, out_channels: int, stride: int) -> Any:
    """Return the computing branch of ``block``, from ``in_channels`` to ``out_channels``."""
    if block == "xception":
        return nn.Sequential(
            *_depthwise(in_channels, 3, stride), *_pointwise(in_channels, out_channels),
            *_depthwise(out_channels, 3, 1), *_pointwise(out_channels, out_channels),
            *_depthwise(out_channels, 3, 1), *_pointwise(out_channels, out_channels),
        )
    kernel = int(block[1:])
    return nn.Sequential(
        *_pointwise(in_channels, out_channels), *_depthwise(out_channels, kernel, stride),
        *_pointwise(out_channels, out_channels),
    )


class UnitBlock(nn.Module):
    """Stride 1: half of the channels pass unchanged, half go through the branch; then both mix."""

    def __init__(self, block: str, channels: int) -> None:
        super().__init__()
        self.branch = _branch(block, channels // 2, channels // 2, stride=1)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, channels, h, w) to the same shape."""
        passed, computed = torch.chunk(x, 2, dim=1)
        return self.shuffle(torch.cat([passed, self.branch(computed)], dim=1))


class DownsampleBlock(nn.Module):
    """Stride 2: the whole input goes through the branch and through a projection; then both mix."""

    def __init__(self, block: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        kernel = 3 if block == "xception" else int(block[1:])
        self.projection = nn.Sequential(
            *_depthwise(in_channels, kernel, 2), *_pointwise(in_channels, out_channels // 2)
        )
        self.branch = _branch(block, in_channels, out_channels - out_channels // 2, stride=2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, in_channels, h, w) to (1, out_channels, ceil(h/2), ceil(w/2))."""
        return self.shuffle(torch.cat([self.projection(x), self.branch(x)], dim=1))


@model_space
class ShuffleNetV2OneShot(ModelSpace):
    """ShuffleNetV2 in which every layer is a labelled choice between :data:`BLOCKS`.

    Each stage halves the map in its first layer. ``input_shape`` is (1, in_channels, input_size,
    input_size).

    Args:
        input_size: height and width of the input.
        classes: width of the classifier.
        in_channels: channels of the input.
        depths: layers of each stage.
        channels: output channels of each stage; even, and as many as ``depths``.
        stem_channels: output channels of the first convolution.
        stem_stride: stride of the first convolution.
        head_channels: output channels of the last 1x1 convolution.
        dropout: share of the features dropped before the classifier during training.

    Raises:
        ValueError: ``depths`` and ``channels`` differ in length, or a stage's channels are odd.
    """

    def __init__(
        self,
        input_size: int = 224,
        classes: int = 1000,
        in_channels: int = 3,
        depths: Sequence[int] = (4, 4, 8, 4),
        channels: Sequence[int] = (64, 160, 320, 640),
        stem_channels: int = 16,
        stem_stride: int = 2,
        head_channels: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(depths) != len(channels) or any(c % 2 for c in channels):
            raise ValueError(
                f"depths={tuple(depths)} and channels={tuple(channels)} must name the same stages, "
                f"each with an even number of channels"
            )
        self.input_shape = (1, in_channels, input_size, input_size)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels, 3, stem_stride, 1, bias=False),
            nn.BatchNorm2d(stem_channels), nn.ReLU(),
        )
        layers: list[Any] = []
        width = stem_channels
        for depth, stage_channels in zip(depths, channels, strict=True):
            for position in range(depth):
                candidates = OrderedDict(
                    (block, DownsampleBlock(block, width, stage_channels) if position == 0
                     else UnitBlock(block, stage_channels))
                    for block in BLOCKS
                )
                layers.append(LayerChoice(candidates, label=f"layer_{len(layers) + 1}"))
                width = stage_channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(*_pointwise(width, head_channels))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head_channels, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, input_size, input_size) to logits (n, classes)."""
        features = self.pool(self.head(self.layers(self.stem(x))))
        return self.classifier(torch.flatten(features, 1))
