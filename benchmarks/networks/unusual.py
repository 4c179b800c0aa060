"""Networks beside the classic CNNs: a vision transformer, a U-Net, and thin and grouped networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .mobile import InvertedResidual, conv_bn


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021: ViT-Tiny's width, and half its depth."""

    def __init__(self, width: int = 192, depth: int = 6, heads: int = 3, patch: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(*(_TransformerBlock(width, heads) for _ in range(depth)))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        return self.classifier(self.norm(tokens).mean(1))


class _TransformerBlock(nn.Module):
    """Attention and two dense layers, each after a norm and beside a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, tokens, width = x.shape
        normed = self.before(x)
        shape = (1, tokens, self.heads, width // self.heads)
        query, key, value = (
            layer(normed).reshape(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((scores @ value).transpose(1, 2).reshape(1, tokens, width))
        return x + self.dense(self.after(x))


class UNet(nn.Module):
    """Ronneberger et al., "U-Net", 2015, with padded convolutions, batch norm and few channels."""

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:-1]))
        self.join = nn.ModuleList(_double(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.last(x)


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_bn(before, after, 3, activation=nn.ReLU), *conv_bn(after, after, 3, activation=nn.ReLU)
    )


class Thin(nn.Module):
    """Inverted residuals of few channels with SiLU, as found for microcontrollers."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [InvertedResidual(c, 3 * c, w, 3, s, nn.SiLU) for c, w, s in
                  ((8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1))]
        self.body = nn.Sequential(*conv_bn(3, 8, 3, 2, activation=nn.SiLU), *blocks, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(40, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x).flatten(1))


class Grouped(nn.Module):
    """Convolutions in groups, one after another."""

    def __init__(self) -> None:
        super().__init__()
        layers = conv_bn(3, 32, 3, 2, activation=nn.ReLU)
        for before, after, stride in ((32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
            layers += conv_bn(before, after, 3, stride, groups=8, activation=nn.ReLU)
        self.body, self.classifier = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), nn.Linear(128, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x).flatten(1))


#: Constructor and size of the images of each.
UNUSUAL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (VisionTransformer, 224),
    "vit_thin": (lambda: VisionTransformer(96, 4, 2), 160),
    "unet": (UNet, 128),
    "thin": (Thin, 96),
    "grouped": (Grouped, 160),
}
