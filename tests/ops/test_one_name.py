"""One operator has one canonical name, whichever format it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("nni.retiarii", reason="reads what NNI 2.10 makes")

import nni.retiarii.nn.pytorch as nn

from nnmeter_nas import read_model
from nnmeter_nas.graph.model_graph import output_names
from nnmeter_nas.graph.traversal import topological_order
from onnx_models import model, node
from recorded import nni_ir_of, onnx_of
from tf_graphs import TfBuilder

SHAPE = (1, 8, 6, 10)


class Erf(nn.Module):
    def forward(self, x):
        return torch.erf(x)


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)


class Sum(nn.Module):
    def forward(self, x):
        return torch.sum(x, [1])


class Largest(nn.Module):
    def forward(self, x):
        return torch.amax(x, [1])


class LargestOfMap(nn.Module):
    def forward(self, x):
        return torch.amax(x, [2, 3])


class Least(nn.Module):
    def forward(self, x):
        return torch.amin(x, [1], True)


class Product(nn.Module):
    def forward(self, x):
        return torch.prod(x, 1)


class Inverse(nn.Module):
    def forward(self, x):
        return torch.reciprocal(x)


class Copies(nn.Module):
    def forward(self, x):
        return x.repeat(1, 2, 1, 1)


def tensorflow(op: str, *constants: Any, **attrs: Any) -> Callable[[], Any]:
    """A GraphDef of one operator over the same input."""

    def build() -> Any:
        b = TfBuilder((1, 6, 10, 8))
        b.add("y", op, ["input", *(b.const(f"c{i}", value) for i, value in enumerate(constants))], **attrs)
        return b.graph_def

    return build


CASES = {
    "pixelshuffle": (nn.PixelShuffle(2), ["pixelshuffle"], tensorflow("DepthToSpace", block_size=2)),
    "pixelunshuffle": (nn.PixelUnshuffle(2), ["pixelunshuffle"], tensorflow("SpaceToDepth", block_size=2)),
    "logsoftmax": (nn.LogSoftmax(1), ["logsoftmax"], tensorflow("LogSoftmax")),
    "erf": (Erf(), ["erf"], tensorflow("Erf")),
    "log": (Log(), ["log"], tensorflow("Log")),
    "sum": (Sum(), ["sum"], tensorflow("Sum", [3])),
    "max": (Largest(), ["max"], tensorflow("Max", [3])),
    "global max": (LargestOfMap(), ["maxpool", "view"], tensorflow("Max", [1, 2])),
    "min": (Least(), ["min"], tensorflow("Min", [3], keep_dims=True)),
    "prod": (Product(), ["prod"], tensorflow("Prod", [3])),
    "reciprocal": (Inverse(), ["div"], tensorflow("Reciprocal")),
    "tile": (Copies(), ["tile"], tensorflow("Tile", [1, 1, 1, 2])),
}

#: What torch's exporter spells in other operators.
ONNX = {"pixelunshuffle": model([node("SpaceToDepth", "x", "y", blocksize=2)], inputs={"x": SHAPE})}


class Wrapped(nn.Module):
    """A layer behind another, so that NNI has a shape to trace."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first, self.layer = nn.Identity(), layer

    def forward(self, x):
        return self.layer(self.first(x))


def operators(graph: Any) -> list[str]:
    """Canonical operators of a graph, producers first, its inputs left out."""
    views = {"squeeze": "view", "reshape": "view"}
    found = [graph.nodes[name]["op"] for name in topological_order(graph)]
    return [views.get(op, op) for op in found if op != "input"]


@pytest.mark.parametrize("case", CASES)
def test_every_format_has_the_same_name_for_it(case: str) -> None:
    layer, expected, graph_def = CASES[case]
    network = Wrapped(layer).eval()
    found = {
        "torch": read_model(network, input_shape=SHAPE),
        "onnx": read_model(ONNX[case] if case in ONNX else onnx_of(network, SHAPE)),
        "nni-ir": read_model(nni_ir_of(network, SHAPE), input_shape=SHAPE),
        "tensorflow": read_model(graph_def(), "pb"),
    }
    assert {form: operators(graph) for form, graph in found.items()} == dict.fromkeys(found, expected)
    result = tuple(network(torch.ones(SHAPE)).shape)
    for graph in found.values():
        assert [graph.nodes[name]["out_shapes"] for name in output_names(graph)] == [[result]]
