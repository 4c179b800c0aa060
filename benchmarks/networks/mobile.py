"""Reference networks designed for phones: MobileNets, MnasNet, ProxylessNAS, ShuffleNet and EfficientNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .classic import CLASSES

Activation = Callable[[], nn.Module]

relu, relu6 = partial(nn.ReLU, inplace=True), partial(nn.ReLU6, inplace=True)


def conv_bn(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1,
            activation: Activation | None = None) -> list[nn.Module]:
    """A padded convolution without bias, batch norm and an optional activation; stride 1 keeps the size."""
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), *([activation()] if activation else [])]


def rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % below ``channels``.

    >>> rounded(18), rounded(67.2)
    (24, 64)
    """
    width = max(8, int(channels + 4) // 8 * 8)
    return width + 8 if width < 0.9 * channels else width


class SqueezeExcite(nn.Module):
    """Hu et al., "Squeeze-and-Excitation Networks", 2018, with 1x1 convolutions in place of dense layers."""

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool, self.activation, self.gate = nn.AdaptiveAvgPool2d(1), activation(), gate()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(self.fc2(self.activation(self.fc1(self.pool(x))))) * x


class InvertedResidual(nn.Module):
    """A 1x1 convolution to ``wide`` channels, a depthwise one, optional squeeze-excite, and a linear 1x1 one.

    Args:
        channels, wide, width: channels before, inside and after; no expansion if the first two are equal.
        kernel, stride: of the depthwise convolution.
        squeeze: module after the depthwise convolution, or None.
    """

    def __init__(self, channels: int, wide: int, width: int, kernel: int, stride: int,
                 activation: Activation = relu6, squeeze: nn.Module | None = None) -> None:
        super().__init__()
        self.skip = stride == 1 and channels == width
        expansion = conv_bn(channels, wide, 1, activation=activation) if wide != channels else []
        self.block = nn.Sequential(
            *expansion, *conv_bn(wide, wide, kernel, stride, wide, activation),
            *([squeeze] if squeeze is not None else []), *conv_bn(wide, width, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.skip else self.block(x)


def classifier(channels: int, dropout: float = 0.2) -> list[nn.Module]:
    """Global average pool, dropout and a dense layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, CLASSES)]


class MobileNetV1(nn.Sequential):
    """Howard et al., "MobileNets", 2017."""

    def __init__(self) -> None:
        layers = conv_bn(3, 32, 3, 2, activation=relu)
        channels = 32
        for width, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
                              (1024, 2), (1024, 1)]:  # fmt: skip
            layers += conv_bn(channels, channels, 3, stride, channels, relu)
            layers += conv_bn(channels, width, 1, activation=relu)
            channels = width
        super().__init__(*layers, *classifier(channels))


class MobileNetV2(nn.Sequential):
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018."""

    def __init__(self) -> None:
        layers = conv_bn(3, 32, 3, 2, activation=relu6)
        channels = 32
        for expand, width, repeats, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                               (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:  # fmt: skip
            for i in range(repeats):
                layers.append(InvertedResidual(channels, channels * expand, width, 3, 1 if i else stride))
                channels = width
        super().__init__(*layers, *conv_bn(channels, 1280, 1, activation=relu6), *classifier(1280))


class MnasNet(nn.Sequential):
    """Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", 2019: model B1."""

    def __init__(self) -> None:
        layers = [
            *conv_bn(3, 32, 3, 2, activation=relu), *conv_bn(32, 32, 3, 1, 32, relu), *conv_bn(32, 16, 1),
        ]  # fmt: skip
        channels = 16
        for width, kernel, stride, expand, repeats in [(24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3),
                                                       (96, 3, 1, 6, 2), (192, 5, 2, 6, 4),
                                                       (320, 3, 1, 6, 1)]:  # fmt: skip
            for i in range(repeats):
                step = 1 if i else stride
                layers.append(InvertedResidual(channels, channels * expand, width, kernel, step, relu))
                channels = width
        super().__init__(*layers, *conv_bn(channels, 1280, 1, activation=relu), *classifier(1280))


class ProxylessNas(nn.Sequential):
    """Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", 2019.

    This is the network found for mobile phones.
    """

    def __init__(self) -> None:
        layers = [*conv_bn(3, 32, 3, 2, activation=relu6), InvertedResidual(32, 32, 16, 3, 1)]
        channels = 16
        for width, stride, blocks in [
            (32, 2, [(5, 3), (3, 3)]),
            (40, 2, [(7, 3), (3, 3), (5, 3), (5, 3)]),
            (80, 2, [(7, 6), (5, 3), (5, 3), (5, 3)]),
            (96, 1, [(5, 6), (5, 3), (5, 3), (5, 3)]),
            (192, 2, [(7, 6), (7, 6), (7, 3), (7, 3)]),
            (320, 1, [(7, 6)]),
        ]:
            for i, (kernel, expand) in enumerate(blocks):
                step = 1 if i else stride
                layers.append(InvertedResidual(channels, channels * expand, width, kernel, step))
                channels = width
        super().__init__(*layers, *conv_bn(channels, 1280, 1, activation=relu6), *classifier(1280))


#: Blocks of MobileNetV3: kernel, expanded and output channels, squeeze-excite, h-swish, stride.
_V3_BLOCKS = {
    "small": [
        (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
    ],
    "large": [
        (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
    ],
}  # fmt: skip


class MobileNetV3(nn.Sequential):
    """Howard et al., "Searching for MobileNetV3", 2019; ``size`` is ``"small"`` or ``"large"``."""

    def __init__(self, size: str) -> None:
        layers = conv_bn(3, 16, 3, 2, activation=nn.Hardswish)
        channels = 16
        for kernel, wide, width, squeezes, hswish, stride in _V3_BLOCKS[size]:
            squeeze = SqueezeExcite(wide, rounded(wide / 4), relu, nn.Hardsigmoid) if squeezes else None
            activation = nn.Hardswish if hswish else relu
            layers.append(InvertedResidual(channels, wide, width, kernel, stride, activation, squeeze))
            channels = width
        last, hidden = 6 * channels, {"small": 1024, "large": 1280}[size]
        super().__init__(
            *layers, *conv_bn(channels, last, 1, activation=nn.Hardswish),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, CLASSES),
        )  # fmt: skip


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half go through a branch; at stride 2 all go through two. Then a shuffle."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        half = width // 2
        side = [
            *conv_bn(channels, channels, 3, stride, channels), *conv_bn(channels, half, 1, activation=relu),
        ]  # fmt: skip
        self.side = nn.Sequential(*side) if stride > 1 else None
        self.main = nn.Sequential(
            *conv_bn(channels if stride > 1 else half, half, 1, activation=relu),
            *conv_bn(half, half, 3, stride, half), *conv_bn(half, half, 1, activation=relu),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, used = x.chunk(2, 1) if self.side is None else (self.side(x), x)
        out = torch.cat([kept, self.main(used)], 1)
        batch, channels, height, width = out.shape
        out = out.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return out.view(batch, channels, height, width)


class ShuffleNetV2(nn.Sequential):
    """Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018."""

    def __init__(self) -> None:
        layers = [*conv_bn(3, 24, 3, 2, activation=relu), nn.MaxPool2d(3, 2, 1)]
        channels = 24
        for width, repeats in [(116, 4), (232, 8), (464, 4)]:
            for i in range(repeats):
                layers.append(ShuffleUnit(channels, width, 1 if i else 2))
                channels = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, CLASSES)]
        super().__init__(*layers, *conv_bn(channels, 1024, 1, activation=relu), *head)


class EfficientNetB0(nn.Sequential):
    """Tan and Le, "EfficientNet: Rethinking Model Scaling for CNNs", 2019; model B0."""

    def __init__(self) -> None:
        layers = conv_bn(3, 32, 3, 2, activation=nn.SiLU)
        channels = 32
        for expand, kernel, stride, width, repeats in [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2),
                                                       (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
                                                       (6, 3, 1, 320, 1)]:  # fmt: skip
            for i in range(repeats):
                wide = channels * expand
                squeeze = SqueezeExcite(wide, channels // 4, nn.SiLU, nn.Sigmoid)
                step = 1 if i else stride
                layers.append(InvertedResidual(channels, wide, width, kernel, step, nn.SiLU, squeeze))
                channels = width
        super().__init__(*layers, *conv_bn(channels, 1280, 1, activation=nn.SiLU), *classifier(1280))
