"""Reference networks designed for accuracy alone, from AlexNet to Inception and DenseNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

CLASSES = 1000


class AlexNet(nn.Sequential):
    """Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d(6), nn.Flatten(),
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(True),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True), nn.Linear(4096, CLASSES),
        )  # fmt: skip


#: Number of convolutions in each of the five stages of a VGG.
VGG_STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class Vgg(nn.Sequential):
    """Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015."""

    def __init__(self, stages: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for width, repeats in zip((64, 128, 256, 512, 512), stages, strict=True):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(True)]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(),
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, CLASSES),
        )  # fmt: skip


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(True)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 has the stride."""

    expansion = 4

    def __init__(
        self, channels: int, width: int, stride: int, groups: int = 1, group_width: int = 64
    ) -> None:
        super().__init__()
        inner, outer = width * group_width // 64 * groups, width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(True)
        self.downsample = _shortcut(channels, outer, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    """The layers that give the input of a residual block the shape of its output; None if it has it."""
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Sequential):
    """He et al., "Deep Residual Learning for Image Recognition", 2016.

    With other groups and widths in ``block``, this is ResNeXt (Xie et al., "Aggregated Residual
    Transformations for Deep Neural Networks", 2017) or Wide ResNet (Zagoruyko and Komodakis, 2016).
    """

    def __init__(
        self, block: Callable[[int, int, int], BasicBlock | Bottleneck], repeats: Sequence[int]
    ) -> None:
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
        channels = 64
        stages: list[nn.Module] = []
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), repeats, strict=True)):
            blocks: list[nn.Module] = []
            for i in range(count):
                made = block(channels, width, 2 if stage and i == 0 else 1)
                blocks.append(made)
                channels = width * made.expansion
            stages.append(nn.Sequential(*blocks))
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        super().__init__(*stem, nn.MaxPool2d(3, 2, 1), *stages, *head)


class _Fire(nn.Module):
    """A 1x1 convolution that squeezes, then parallel 1x1 and 3x3 convolutions that expand."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.ReLU(True))
        self.expand1x1 = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU(True))
        self.expand3x3 = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)


class SqueezeNet(nn.Sequential):
    """Iandola et al., "SqueezeNet", 2016: version ``"1_0"`` (paper) or ``"1_1"`` (its repository)."""

    def __init__(self, version: str) -> None:
        stem = nn.Conv2d(3, 96, 7, 2) if version == "1_0" else nn.Conv2d(3, 64, 3, 2)
        pools_before = (3, 7) if version == "1_0" else (2, 4)
        layers: list[nn.Module] = [stem, nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True)]
        channels = stem.out_channels
        for i, (squeezed, expanded) in enumerate(
            [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
        ):
            if i in pools_before:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            layers.append(_Fire(channels, squeezed, expanded))
            channels = 2 * expanded
        super().__init__(
            *layers, nn.Dropout(), nn.Conv2d(channels, CLASSES, 1), nn.ReLU(True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


class _DenseLayer(nn.Sequential):
    """Two convolutions, each after batch norm and ReLU; :class:`DenseBlock` concatenates the outputs."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels), nn.ReLU(True), nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(True),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip


class DenseBlock(nn.ModuleList):
    """Each layer reads the outputs of all earlier layers, concatenated."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class DenseNet(nn.Sequential):
    """Huang et al., "Densely Connected Convolutional Networks", 2017: bottlenecks, compression by half."""

    def __init__(self, channels: int, growth: int, repeats: Sequence[int]) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True),
            nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        for i, count in enumerate(repeats):
            layers.append(DenseBlock(_DenseLayer(channels + j * growth, growth) for j in range(count)))
            channels += count * growth
            layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(True))
            if i + 1 < len(repeats):
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                channels //= 2
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        super().__init__(*layers, *head)


class _ConvBnRelu(nn.Sequential):
    """Convolution without bias, batch norm with Inception's epsilon, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int | tuple[int, int], stride: int = 1,
                 padding: int | tuple[int, int] = 0) -> None:
        super().__init__(
            nn.Conv2d(channels, width, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(width, eps=0.001), nn.ReLU(True),
        )  # fmt: skip


class Branches(nn.ModuleList):
    """Modules that read the same input; their outputs are concatenated along the channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self], 1)


def _inception(channels: int, w1: int, r3: int, w3: int, r5: int, w5: int, pooled: int) -> Branches:
    """GoogLeNet's module. Its third branch has 3x3 kernels, like the published weights; the paper has 5x5."""
    return Branches([
        _ConvBnRelu(channels, w1, 1),
        nn.Sequential(_ConvBnRelu(channels, r3, 1), _ConvBnRelu(r3, w3, 3, padding=1)),
        nn.Sequential(_ConvBnRelu(channels, r5, 1), _ConvBnRelu(r5, w5, 3, padding=1)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _ConvBnRelu(channels, pooled, 1)),
    ])  # fmt: skip


class GoogLeNet(nn.Sequential):
    """Szegedy et al., "Going Deeper with Convolutions", 2015; batch norm, no auxiliary classifiers."""

    def __init__(self) -> None:
        super().__init__(
            _ConvBnRelu(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True),
            _ConvBnRelu(64, 64, 1), _ConvBnRelu(64, 192, 3, padding=1), nn.MaxPool2d(3, 2, ceil_mode=True),
            _inception(192, 64, 96, 128, 16, 32, 32), _inception(256, 128, 128, 192, 32, 96, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _inception(480, 192, 96, 208, 16, 48, 64), _inception(512, 160, 112, 224, 24, 64, 64),
            _inception(512, 128, 128, 256, 24, 64, 64), _inception(512, 112, 144, 288, 32, 64, 64),
            _inception(528, 256, 160, 320, 32, 128, 128), nn.MaxPool2d(2, 2, ceil_mode=True),
            _inception(832, 256, 160, 320, 32, 128, 128), _inception(832, 384, 192, 384, 48, 128, 128),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, CLASSES),
        )  # fmt: skip


def _inception_a(channels: int, pooled: int) -> Branches:
    """35x35: 1x1, 5x5, two 3x3, average pool."""
    return Branches([
        _ConvBnRelu(channels, 64, 1),
        nn.Sequential(_ConvBnRelu(channels, 48, 1), _ConvBnRelu(48, 64, 5, padding=2)),
        nn.Sequential(_ConvBnRelu(channels, 64, 1), _ConvBnRelu(64, 96, 3, padding=1),
                      _ConvBnRelu(96, 96, 3, padding=1)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _ConvBnRelu(channels, pooled, 1)),
    ])  # fmt: skip


def _reduction_b(channels: int) -> Branches:
    """35x35 to 17x17."""
    return Branches([
        _ConvBnRelu(channels, 384, 3, 2),
        nn.Sequential(_ConvBnRelu(channels, 64, 1), _ConvBnRelu(64, 96, 3, padding=1),
                      _ConvBnRelu(96, 96, 3, 2)),
        nn.MaxPool2d(3, 2),
    ])  # fmt: skip


def _factored7(channels: int, width: int, kernels: Sequence[tuple[int, int]], out: int) -> nn.Sequential:
    """A 1x1 convolution to ``width`` channels, then one per entry of ``kernels``, the last to ``out``."""
    widths = [width] * len(kernels) + [out]
    layers = [
        _ConvBnRelu(widths[i], widths[i + 1], kernel, padding=(kernel[0] // 2, kernel[1] // 2))
        for i, kernel in enumerate(kernels)
    ]
    return nn.Sequential(_ConvBnRelu(channels, width, 1), *layers)


def _inception_c(width: int) -> Branches:
    """17x17: 1x1; one 7x7; two 7x7; average pool. Each 7x7 is split into a 1x7 and a 7x1."""
    return Branches([
        _ConvBnRelu(768, 192, 1),
        _factored7(768, width, [(1, 7), (7, 1)], 192),
        _factored7(768, width, [(7, 1), (1, 7), (7, 1), (1, 7)], 192),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _ConvBnRelu(768, 192, 1)),
    ])  # fmt: skip


def _reduction_d() -> Branches:
    """17x17 to 8x8."""
    return Branches([
        nn.Sequential(_ConvBnRelu(768, 192, 1), _ConvBnRelu(192, 320, 3, 2)),
        nn.Sequential(_factored7(768, 192, [(1, 7), (7, 1)], 192), _ConvBnRelu(192, 192, 3, 2)),
        nn.MaxPool2d(3, 2),
    ])  # fmt: skip


def _inception_e(channels: int) -> Branches:
    """8x8: 1x1; 3x3; two 3x3; average pool. The last 3x3 of a branch is a 1x3 in parallel with a 3x1."""
    def halves() -> Branches:
        return Branches([
            _ConvBnRelu(384, 384, (1, 3), padding=(0, 1)), _ConvBnRelu(384, 384, (3, 1), padding=(1, 0)),
        ])  # fmt: skip

    return Branches([
        _ConvBnRelu(channels, 320, 1),
        nn.Sequential(_ConvBnRelu(channels, 384, 1), halves()),
        nn.Sequential(_ConvBnRelu(channels, 448, 1), _ConvBnRelu(448, 384, 3, padding=1), halves()),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), _ConvBnRelu(channels, 192, 1)),
    ])  # fmt: skip


class InceptionV3(nn.Sequential):
    """Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016; 299x299 images.

    It leaves out the auxiliary classifier, which only training uses.
    """

    def __init__(self) -> None:
        super().__init__(
            _ConvBnRelu(3, 32, 3, 2), _ConvBnRelu(32, 32, 3), _ConvBnRelu(32, 64, 3, padding=1),
            nn.MaxPool2d(3, 2), _ConvBnRelu(64, 80, 1), _ConvBnRelu(80, 192, 3), nn.MaxPool2d(3, 2),
            _inception_a(192, 32), _inception_a(256, 64), _inception_a(288, 64), _reduction_b(288),
            _inception_c(128), _inception_c(160), _inception_c(160), _inception_c(192), _reduction_d(),
            _inception_e(1280), _inception_e(2048),
            nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(2048, CLASSES),
        )  # fmt: skip
