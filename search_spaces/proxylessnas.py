"""The ProxylessNAS search space: every layer is one of six kinds of MobileNetV2 block, or is left out.

    >>> from nnmeter_nas.search_spaces import proxylessnas
    >>> proxylessnas("small").input_shape
    (1, 3, 32, 32)

``proxylessnas(size="imagenet", **overrides)`` makes a space of a known size; the constructor is
``ProxylessNASSpace(input_size=224, classes=1000, in_channels=3, depths=(4, 4, 4, 4, 4, 1),
channels=(24, 40, 80, 96, 192, 320), strides=(2, 2, 2, 1, 2, 1), stem_channels=32, stem_stride=2,
first_channels=16, head_channels=1280, dropout=0.0)``. Choices are labelled ``layer_1`` ... ``layer_N`` in
order; their candidates are :data:`MOBILE_BLOCKS`, and ``zero`` if the layer keeps the shape and can be
left out.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019;
the block is that of Sandler et al., "MobileNetV2", CVPR 2018.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch

from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn

from ._parts import Zero, of_size

#: Candidates of every choice: the block's kernel and expansion.
MOBILE_BLOCKS = ("k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6")
#: The candidate that leaves its layer out.
ZERO = "zero"

SIZES: dict[str, dict[str, Any]] = {
    "imagenet": {},
    "small": {
        "input_size": 32,
        "classes": 10,
        "depths": (2, 2, 2),
        "channels": (16, 24, 40),
        "strides": (1, 2, 2),
        "stem_channels": 16,
        "stem_stride": 2,
        "first_channels": 8,
        "head_channels": 128,
    },
}


def proxylessnas(size: Literal["imagenet", "small"] = "imagenet", **overrides: Any) -> Any:
    """Make a ProxylessNAS space of a known size.

    Args:
        size: "imagenet" (21 choices, input (1, 3, 224, 224), 1000 classes) or "small" (6 choices, input
            (1, 3, 32, 32), 10 classes, trains within seconds on a CPU).
        overrides: constructor arguments of :class:`ProxylessNASSpace` that replace the size's.

    Raises:
        ValueError: there is no such size.
    """
    return of_size(ProxylessNASSpace, SIZES, size, overrides)


def _convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> list[Any]:
    """Return a convolution that keeps the map's size at stride 1, batch norm, and ReLU6 if ``act``."""
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return [*layers, nn.ReLU6()] if act else layers


class MobileBlock(nn.Module):
    """MobileNetV2's block: expand by 1x1, filter each channel, project by 1x1 without activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        expand = _convolution(in_channels, wide, 1) if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            *_convolution(wide, wide, kernel, stride, groups=wide),
            *_convolution(wide, out_channels, 1, act=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, ceil(h/stride), ceil(w/stride))."""
        return self.layers(x)


class ResidualLayer(nn.Module):
    """A layer of the space: the chosen block, and the skip path around it."""

    def __init__(self, chosen: Any) -> None:
        super().__init__()
        self.chosen = chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, h, w) to the same shape."""
        return x + self.chosen(x)


def _candidates(in_channels: int, out_channels: int, stride: int) -> OrderedDict[str, Any]:
    blocks: OrderedDict[str, Any] = OrderedDict()
    for block in MOBILE_BLOCKS:
        kernel, expansion = (int(part[1:]) for part in block.split("_"))
        blocks[block] = MobileBlock(in_channels, out_channels, kernel, expansion, stride)
    return blocks


@model_space
class ProxylessNASSpace(ModelSpace):
    """MobileNetV2 in which every layer is a labelled choice of kernel and expansion, or is left out.

    The first layer of a stage sets its channels and stride and cannot be left out. ``input_shape`` is
    (1, in_channels, input_size, input_size).

    Args:
        input_size: height and width of the input.
        classes: width of the classifier.
        in_channels: channels of the input.
        depths: layers of each stage.
        channels: output channels of each stage.
        strides: stride of each stage's first layer.
        stem_channels: output channels of the first convolution.
        stem_stride: stride of the first convolution.
        first_channels: output channels of the fixed block after it (kernel 3, no expansion).
        head_channels: output channels of the last 1x1 convolution.
        dropout: share of the features dropped before the classifier during training.

    Raises:
        ValueError: ``depths``, ``channels`` and ``strides`` differ in length.
    """

    def __init__(
        self,
        input_size: int = 224,
        classes: int = 1000,
        in_channels: int = 3,
        depths: Sequence[int] = (4, 4, 4, 4, 4, 1),
        channels: Sequence[int] = (24, 40, 80, 96, 192, 320),
        strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
        stem_channels: int = 32,
        stem_stride: int = 2,
        first_channels: int = 16,
        head_channels: int = 1280,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not len(depths) == len(channels) == len(strides):
            raise ValueError(
                f"depths={tuple(depths)}, channels={tuple(channels)} and strides={tuple(strides)} must name "
                f"the same stages"
            )
        self.input_shape = (1, in_channels, input_size, input_size)
        self.stem = nn.Sequential(
            *_convolution(in_channels, stem_channels, 3, stem_stride),
            MobileBlock(stem_channels, first_channels, kernel=3, expansion=1, stride=1),
        )
        layers: list[Any] = []
        width = first_channels
        for depth, stage_channels, stage_stride in zip(depths, channels, strides, strict=True):
            for position in range(depth):
                label = f"layer_{len(layers) + 1}"
                if position == 0:
                    layers.append(LayerChoice(_candidates(width, stage_channels, stage_stride), label=label))
                else:
                    blocks = _candidates(stage_channels, stage_channels, 1)
                    blocks[ZERO] = Zero()
                    layers.append(ResidualLayer(LayerChoice(blocks, label=label)))
                width = stage_channels
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(*_convolution(width, head_channels, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(head_channels, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, input_size, input_size) to logits (n, classes)."""
        features = self.pool(self.head(self.layers(self.stem(x))))
        return self.classifier(torch.flatten(features, 1))
