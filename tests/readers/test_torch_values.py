"""The torch reader tracks in-place writes of ``forward``, and values on which it branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnmeter_nas.errors import ReaderError
from nnmeter_nas.readers.torch.module import read_torch_module
from torch_graphs import of, ops, read


def test_all_slices_written_into_a_new_tensor_are_kept() -> None:
    def assemble(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(1, 8, 4, 4, device=x.device)
        out[:, :4] = F.relu(x)
        out[:, 4:].copy_(torch.sigmoid(x))
        return out

    assert ops(read(assemble, (1, 4, 4, 4))) == {"relu": 1, "scatter": 2, "sigmoid": 1}


def test_writing_one_half_does_not_change_the_other() -> None:
    def half(x: torch.Tensor) -> torch.Tensor:
        left, right = F.max_pool2d(x, 2).chunk(2, 1)
        left = F.relu(left, inplace=True)
        return torch.cat([left, right], 1)

    graph = read(half, (1, 4, 8, 8))
    assert ops(graph) == {"maxpool": 1, "split": 1, "relu": 1, "concat": 1}
    assert of(graph, "concat")[0]["inputs"] == [("relu", 0), ("split", 1)]


def test_interleaved_halves_do_not_overlap() -> None:
    def half(x: torch.Tensor) -> torch.Tensor:
        x = torch.exp(x)
        even, odd = x[..., ::2], x[..., 1::2]
        even.relu_()
        return even * odd

    assert ops(read(half, (1, 4, 8, 8))) == {"exp": 1, "slice": 2, "relu": 1, "mul": 1}


def test_writing_through_a_reshaped_view_changes_the_tensor() -> None:
    def flat(x: torch.Tensor) -> torch.Tensor:
        x = torch.exp(x)
        x.flatten(1).sigmoid_()
        return x

    graph = read(flat, (1, 2, 3, 3))
    assert ops(graph) == {"exp": 1, "flatten": 1, "sigmoid": 1, "reshape": 1}
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 2, 3, 3)]


def test_in_place_shape_change_starts_from_the_old_shape() -> None:
    def squeeze(x: torch.Tensor) -> torch.Tensor:
        x = F.adaptive_avg_pool2d(x, 1).squeeze_()
        return x.unsqueeze_(0).t_()

    graph = read(squeeze, (1, 6, 4, 4))
    assert ops(graph) == {"globalavgpool": 1, "reshape": 1}
    assert of(graph, "reshape")[0]["in_shapes"] == [(1, 6, 1, 1)]
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(6, 1)]


def test_assigning_data_replaces_a_tensors_value() -> None:
    def swap(x: torch.Tensor) -> torch.Tensor:
        y = torch.exp(x)
        y.data = torch.tanh(x)
        return y

    assert ops(read(swap, (1, 3))) == {"tanh": 1}


@pytest.mark.parametrize("fit", ["to", "type_as", "device"])
def test_coordinates_made_in_forward_are_constants(fit: str) -> None:
    def add_coordinates(x: torch.Tensor) -> torch.Tensor:
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        grid = torch.stack([rows, columns])[None]
        fitted = {"to": grid.to(x), "type_as": grid.type_as(x), "device": grid.to(x.device, x.dtype)}[fit]
        return torch.cat([x, fitted], 1)

    graph = read(add_coordinates, (1, 3, 4, 4))
    assert ops(graph) == {"concat": 1}
    assert of(graph, "concat")[0]["out_shapes"] == [(1, 5, 4, 4)]


def test_results_may_be_appended_to_an_empty_tensor() -> None:
    def collect(x: torch.Tensor) -> torch.Tensor:
        out = torch.tensor([], device=x.device)
        for part in x.chunk(2, 1):
            out = torch.cat([out, part.relu()], 1)
        return out

    counts = ops(read(collect, (1, 4, 2, 2)))
    assert (counts["split"], counts["relu"]) == (1, 2)


class Counting(nn.Module):
    """Branches on stored values: a flag, a number of steps, a learned threshold."""

    steps: torch.Tensor

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(3))
        self.threshold = nn.Parameter(torch.tensor([threshold]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.threshold.item() > 0.5:
            x = torch.exp(x)
        for _ in range(int(self.steps + 1)):
            x = torch.tanh(x)
        return x


class Settings(nn.Module):
    """Reads the values of small buffers, as detection heads read their strides."""

    strides: torch.Tensor
    flags: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("strides", torch.tensor([1.0, 2.0, 4.0]))
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for stride in self.strides:
            out = torch.tanh(F.avg_pool2d(x, int(stride)))
            if self.flags[0] and not self.flags[1]:
                out = out.repeat_interleave(int(self.strides[1].item()), -1)
        sizes = (self.strides * 2).long().tolist()
        return F.interpolate(out, size=[sizes[-1]] * 2)


def test_values_of_small_buffers_are_read_and_not_changed() -> None:
    module = Settings()
    graph = read_torch_module(module, (1, 2, 16, 16))
    assert ops(graph)["tanh"] == 1  # the others are not used
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 2, 8, 8)]
    assert module.strides.tolist() == [1.0, 2.0, 4.0]


class Anchors(nn.Module):
    """Keeps values beyond what counts as a setting, as detection heads keep anchors, and weights."""

    anchors: torch.Tensor
    prior: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.arange(1.0, 301.0).reshape(3, 50, 2))
        self.register_buffer("prior", torch.ones(5000, 4))
        self.kept = {"sizes": [torch.tensor([2, 2])]}
        self.on = nn.Parameter(torch.tensor([1.0, 0.0, 1.0]))
        self.conv = nn.Conv2d(3, 8, 1)
        nn.init.ones_(self.conv.weight)


#: What ``forward`` may ask of the values that a module keeps; each is 2.
ASKED: dict[str, Callable[[Anchors], Any]] = {
    "one value": lambda m: m.anchors[0, 0, 1].item(),
    "iteration": lambda m: min(a[0, 1].item() for a in m.anchors),
    "list": lambda m: m.anchors.tolist()[0][0][1],
    "list of a part": lambda m: m.anchors[0].reshape(-1).tolist()[1],
    "numpy": lambda m: m.anchors.numpy()[0, 0, 1],
    "numpy of a part": lambda m: m.anchors.detach()[0].cpu().numpy()[0, 1],
    "largest": lambda m: m.anchors.max().item() / 150,
    "list of a result": lambda m: (m.anchors[:, 0] * 2).mean(1).tolist()[0] - 1,
    "condition": lambda m: 2 if (m.prior > 0).all() and bool(m.prior.any()) else 3,
    "indices": lambda m: m.on.nonzero().numel(),
    "mask": lambda m: m.anchors.flatten()[m.anchors.flatten() < 2.5].numel(),
    "trained": lambda m: m.on[0].item() + m.on[2].item(),
    "trained condition": lambda m: 2 if m.on[0] > m.on[1] else 3,
    "weights": lambda m: m.conv.weight.abs().max().item() * 2,
    "nested": lambda m: m.kept["sizes"][0].tolist()[0],
    "before a write": lambda m: (m.on.sum(), m.on.add_(5))[0].item(),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_values_that_a_module_keeps_are_there_when_asked_for(asked: Callable[[Anchors], Any]) -> None:
    module = Anchors()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def forward(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(module.conv(x), int(asked(module)))

    graph = read(forward, (1, 3, 8, 8))
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 8, 4, 4)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_values_made_from_weights_are_no_longer_known_after_a_write() -> None:
    module = Anchors()

    def forward(x: torch.Tensor) -> torch.Tensor:
        made = module.prior * 2
        made[0].add_(module.prior[0])
        return x * made.max().item()

    with pytest.raises(ReaderError, match="no branch and no shape in it depends on tensor values"):
        read(forward, (1, 3, 8, 8))


def test_a_constant_that_is_written_to_later_counts_as_it_was() -> None:
    module = Anchors()

    def forward(x: torch.Tensor) -> torch.Tensor:
        steps = torch.zeros(4)
        scaled = module.prior * 2 + steps
        steps.add_(100)
        return F.avg_pool2d(x, int(scaled.max().item()))

    assert of(read(forward, (1, 3, 8, 8)), "avgpool")[0]["attrs"]["kernel"] == (2, 2)


def test_branches_on_stored_values_are_followed() -> None:
    assert ops(read_torch_module(Counting(1.0), (1, 3))) == {"exp": 1, "tanh": 4}
    assert ops(read_torch_module(Counting(0.0), (1, 3))) == {"tanh": 4}


class CountsUp(nn.Module):
    """Would run forever if the reader ignored its write to the value it branches on."""

    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while self.steps.item() < 3:
            self.steps += 1
            x = F.relu(x)
        return x


@pytest.mark.parametrize("same", [torch.Tensor.detach, lambda x: x.data, lambda x: x.view(1)[0]])
def test_a_write_to_a_stored_value_is_seen_and_not_kept(same: object) -> None:
    module = Counting(0.0)

    def forward(x: torch.Tensor) -> torch.Tensor:
        assert callable(same)
        same(module.steps).add_(1)
        return module(x)

    assert ops(read(forward, (1, 3))) == {"tanh": 5}
    assert module.steps == 3


def test_branch_on_a_value_that_forward_changes_is_rejected() -> None:
    module = CountsUp()
    with pytest.raises(ReaderError, match="no branch and no shape in it depends on tensor values"):
        read_torch_module(module, (1, 3))
    assert module.steps == 0


@pytest.mark.parametrize("value", [torch.Tensor.nonzero, lambda x: x[x > 0], lambda x: x * x.max().item()])
def test_data_dependent_shapes_and_values_are_rejected(value: object) -> None:
    assert callable(value)
    with pytest.raises(ReaderError, match="no branch and no shape in it depends on tensor values"):
        read(value, (1, 3, 4, 4))


def test_batched_product_with_one_weight_matrix_is_a_dense_layer() -> None:
    weights = torch.ones(1, 6, 5)
    graph = read(lambda x: torch.bmm(x, weights), (1, 4, 6))
    assert of(graph, "fc")[0]["attrs"] == {"in_features": 6, "out_features": 5, "bias": False}
    several = torch.ones(4, 6, 5)
    [product] = of(read(lambda x: x @ several, (1, 4, 3, 6)), "matmul")
    assert product["attrs"] == {"const_shape": (4, 6, 5)}


def test_gated_linear_unit_and_maximum_become_known_operators() -> None:
    assert ops(read(lambda x: F.glu(x, 1), (1, 4, 3, 3))) == {"split": 1, "sigmoid": 1, "mul": 1}
    graph = read(lambda x: x.amax((-1, -2)), (1, 4, 3, 3))
    assert ops(graph) == {"maxpool": 1, "squeeze": 1}
    assert of(graph, "maxpool")[0]["attrs"]["kernel"] == (3, 3)
    assert ops(read(lambda x: x.amax(1), (1, 4, 3, 3))) == {"max": 1}
