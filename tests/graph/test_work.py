"""Flops match torch's counter, and parameters match those of the module, for every kind of layer."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnmeter_nas import read_model
from nnmeter_nas.benchmarks.networks import build_network, input_shape
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.work import flops, flops_by_operator, params, params_by_operator

torch.set_num_threads(1)


def counted_by_torch(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Flops of one forward pass, counted by torch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(shape))
    return int(counter.get_total_flops())


def n_params(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


LAYERS = {
    "conv": (nn.Conv2d(8, 12, (3, 5), stride=2, padding=1, groups=4), (1, 8, 17, 20)),
    "conv without bias": (nn.Conv2d(8, 12, 3, dilation=2, bias=False), (1, 8, 17, 20)),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8), (1, 8, 9, 9)),
    "1-D": (nn.Conv1d(8, 16, 3), (1, 8, 9)),
    "transposed": (nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=2), (1, 8, 9, 9)),
    "dense": (nn.Linear(20, 30), (1, 20)),
    "dense without bias": (nn.Linear(20, 30, bias=False), (1, 7, 20)),
    "batch norm": (nn.BatchNorm2d(8), (1, 8, 9, 9)),
    "batch norm without weights": (nn.BatchNorm2d(8, affine=False), (1, 8, 9, 9)),
    "group norm": (nn.GroupNorm(2, 8), (1, 8, 9, 9)),
    "layer norm": (nn.LayerNorm((9, 10)), (1, 8, 9, 10)),
    "instance norm": (nn.InstanceNorm2d(8), (1, 8, 9, 9)),
    "activation with weights": (nn.PReLU(8), (1, 8, 9, 9)),
    "pool": (nn.MaxPool2d(3), (1, 8, 9, 9)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_have_the_work_that_torch_counts(layer: str) -> None:
    module, shape = LAYERS[layer]
    network = nn.Sequential(nn.ReLU(), module).eval()
    graph = read_model(network, input_shape=shape)
    assert (flops(graph), params(graph)) == (counted_by_torch(network, shape), n_params(network))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1"])
def test_networks_have_the_work_that_torch_counts(name: str) -> None:
    network, shape = build_network(name).eval(), input_shape(name)
    graph = read_model(network, input_shape=shape)
    assert flops(graph) == counted_by_torch(network, shape)
    assert params(graph) == n_params(network)


class Product(nn.Module):
    """A product of two computed matrices, then one with a weight matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(1, n, 6) -> (1, n, 5)``."""
        return (x @ x.transpose(1, 2)) @ (x @ self.weights)


def test_products_of_matrices_have_the_work_that_torch_counts() -> None:
    network, shape = Product(), (1, 4, 6)
    graph = read_model(network, input_shape=shape)
    assert (flops(graph), params(graph)) == (counted_by_torch(network, shape), n_params(network))


def test_onnx_file_has_the_same_work() -> None:
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3, bias=False), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(400, 10)).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 10, 10),), file, dynamo=False)
    import onnx

    graph = read_model(onnx.load_from_string(file.getvalue()))
    assert (flops(graph), params(graph)) == (counted_by_torch(network, (1, 3, 10, 10)), n_params(network))


@pytest.mark.parametrize(
    ("op", "attrs", "knows_flops", "knows_params"),
    [
        ("fourier", {}, False, False),
        ("fourier", {"params": 3}, False, True),
        ("norm", {}, True, False),
        ("relu", {}, True, True),
    ],
)
def test_operators_of_unknown_work_are_left_out(
    op: str, attrs: dict[str, Any], knows_flops: bool, knows_params: bool
) -> None:
    graph = new_graph()
    add_op(graph, "y", op, [add_input(graph, "x", (1, 4, 8, 8))], attrs, declared=[(1, 4, 8, 8)])
    finish(graph)
    assert ("y" in flops_by_operator(graph), "y" in params_by_operator(graph)) == (knows_flops, knows_params)
