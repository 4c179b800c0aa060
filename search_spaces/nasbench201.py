"""The NAS-Bench-201 search space: a repeated cell with six edges, each with one of five operations.

    >>> from nnmeter_nas.search_spaces import nasbench201
    >>> nasbench201("small").input_shape
    (1, 3, 16, 16)

``nasbench201(size="full", **overrides)`` makes a space of a known size; the constructor is
``NASBench201Space(input_size=32, classes=10, in_channels=3, channels=16, cells=5)``. Choices are labelled
``edge_<from>_<to>`` after the nodes they join, the same in all cells; their candidates are
:data:`OPERATIONS`. Making a space patches NNI's graph engine so that choices can share a label; see
:func:`nnmeter_nas.nni.graph_engine.tell_repeated_choices_apart`.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch

from nnmeter_nas.nni.graph_engine import tell_repeated_choices_apart
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn

from ._parts import Zero, of_size

#: Candidates of every choice.
OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")
#: Edges of a cell as pairs of nodes, in the order of the choices.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

SIZES: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {"input_size": 16, "channels": 8, "cells": 1},
}


def nasbench201(size: Literal["full", "small"] = "full", **overrides: Any) -> Any:
    """Make a NAS-Bench-201 space of a known size, with 6 choices and 15,625 possible cells.

    Args:
        size: "full" (the published networks for CIFAR-10: 3 stages of 5 cells, input (1, 3, 32, 32)) or
            "small" (3 stages of 1 cell, input (1, 3, 16, 16), trains within seconds on a CPU).
        overrides: constructor arguments of :class:`NASBench201Space` that replace the size's.

    Raises:
        ValueError: there is no such size.
    """
    return of_size(NASBench201Space, SIZES, size, overrides)


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> Any:
    """Return ReLU, a convolution that keeps the map's size at stride 1, and batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _operations(channels: int) -> OrderedDict[str, Any]:
    return OrderedDict(
        none=Zero(),
        skip_connect=nn.Identity(),
        conv_1x1=_convolution(channels, channels, 1),
        conv_3x3=_convolution(channels, channels, 3),
        avg_pool_3x3=nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    )


class Cell(nn.Module):
    """Four nodes: the first is the input, each other one sums the edges from all earlier nodes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        chosen = [LayerChoice(_operations(channels), label=f"edge_{start}_{end}") for start, end in EDGES]
        self.edge_0_1, self.edge_0_2, self.edge_1_2, self.edge_0_3, self.edge_1_3, self.edge_2_3 = chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, channels, h, w) to the same shape."""
        first = self.edge_0_1(x)
        second = self.edge_0_2(x) + self.edge_1_2(first)
        return self.edge_0_3(x) + self.edge_1_3(first) + self.edge_2_3(second)


class Reduction(nn.Module):
    """Residual block between stages: halves the map and doubles the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _convolution(in_channels, out_channels, 3, stride=2), _convolution(out_channels, out_channels, 3)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, h/2, w/2); h and w are even."""
        return self.shortcut(x) + self.branch(x)


@model_space
class NASBench201Space(ModelSpace):
    """Three stages of one chosen cell; residual blocks between them halve the map.

    ``input_shape`` is (1, in_channels, input_size, input_size).

    Args:
        input_size: height and width of the input, a multiple of 4.
        classes: width of the classifier.
        in_channels: channels of the input.
        channels: channels of the first stage; each later stage has twice as many as the one before.
        cells: number of cells in each stage.

    Raises:
        ValueError: ``input_size`` is not a multiple of 4, so it cannot be halved twice.
    """

    def __init__(
        self,
        input_size: int = 32,
        classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        cells: int = 5,
    ) -> None:
        super().__init__()
        if input_size % 4:
            raise ValueError(f"input_size={input_size} must be a multiple of 4")
        tell_repeated_choices_apart()
        self.input_shape = (1, in_channels, input_size, input_size)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        layers: list[Any] = [Cell(channels) for _ in range(cells)]
        for width in (channels, 2 * channels):
            layers.append(Reduction(width, 2 * width))
            layers += [Cell(2 * width) for _ in range(cells)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.BatchNorm2d(4 * channels), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, input_size, input_size) to logits (n, classes)."""
        features = self.pool(self.head(self.layers(self.stem(x))))
        return self.classifier(torch.flatten(features, 1))
