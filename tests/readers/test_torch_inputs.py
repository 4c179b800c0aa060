"""Inputs of torch modules other than one image: several inputs, names, token ids, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnmeter_nas import read_model
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.readers.torch.module import read_torch_module
from torch_graphs import of, ops, read


class Masked(nn.Module):
    """Has a keyword-only mask, and an argument that is not a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: torch.Tensor, scale: float = 2.0, *, mask: Any = None) -> torch.Tensor:
        out = self.conv(image) * scale
        return out if mask is None else out * mask


class TakesAnything(nn.Module):
    def forward(self, image: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        return image + more["depth"]


def test_inputs_go_to_the_arguments_with_their_names() -> None:
    graph = read_torch_module(Masked(), {"image": (1, 3, 8, 8), "mask": (1, 1, 8, 8)})
    assert ops(graph) == {"conv": 1, "mul": 2}
    assert graph.nodes["mask"]["out_shapes"] == [(1, 1, 8, 8)]
    assert ops(read_torch_module(Masked(), (1, 3, 8, 8))) == {"conv": 1, "mul": 1}


def test_inputs_may_be_named_after_collected_keyword_arguments() -> None:
    shapes = {"image": (1, 3, 8, 8), "depth": (1, 1, 8, 8)}
    assert ops(read_torch_module(TakesAnything(), shapes)) == {"add": 1}


def test_inputs_of_wrapped_modules_have_the_modules_names() -> None:
    shapes = {"image": (1, 3, 8, 8), "mask": (1, 1, 8, 8)}
    assert ops(read_torch_module(torch.compile(Masked()), shapes)) == {"conv": 1, "mul": 2}
    assert ops(read_torch_module(nn.DataParallel(Masked()), shapes)) == {"conv": 1, "mul": 2}


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
def test_inputs_of_torchscript_have_its_schemas_names() -> None:
    traced = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    assert ops(read_torch_module(traced, {"input": (1, 3, 8, 8)})) == {"conv": 1}
    with pytest.raises(ReaderError, match=r"'image'; .*known: input"):
        read_torch_module(traced, {"image": (1, 3, 8, 8)})


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (Masked(), {"imgae": (1, 3, 8, 8)}, "did you mean 'image'"),
        (Masked(), {"mask": (1, 1, 8, 8)}, "missing a required argument: 'image'"),
        (Masked(), [(1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)], "from 2 to 3 positional arguments"),
    ],
)
def test_error_names_an_input_that_does_not_fit(module: nn.Module, shapes: Any, message: str) -> None:
    with pytest.raises(ReaderError, match=message):
        read_torch_module(module, shapes)


class Captioned(nn.Module):
    """Adds embedded words to the features of an image."""

    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.words, self.conv = words, nn.Conv2d(3, 16, 3)

    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        embedded = self.words(ids + positions)
        return self.conv(image).mean((2, 3)) + embedded.flatten(1)


@pytest.mark.parametrize(
    ("words", "name"), [(nn.Embedding(50, 4), "embedding"), (nn.EmbeddingBag(50, 16), "embedding_bag")]
)
def test_token_ids_need_only_a_shape(words: nn.Module, name: str) -> None:
    graph = read_torch_module(Captioned(words), {"image": (1, 3, 8, 8), "ids": (1, 4)})
    counts = ops(graph)
    assert (counts["conv"], counts["globalavgpool"], counts[name]) == (1, 1, 1)
    assert of(graph, name)[0]["out_shapes"][0][-1] == words.weight.shape[1]


def test_inputs_may_be_indices_and_masks() -> None:
    table = torch.rand(10, 4)

    def pick(ids: torch.Tensor, mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        picked = table[ids].masked_fill(mask.unsqueeze(-1), 0.0) + F.one_hot(ids, 4)
        return torch.where(mask.unsqueeze(-1), picked, scores)

    graph = read(pick, (1, 3), (1, 3), (1, 3, 4))
    assert {"index", "masked_fill", "where"} <= set(ops(graph))
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 3, 4)]


def test_a_state_dict_is_no_network() -> None:
    weights = nn.Linear(3, 4).state_dict()
    for saved in (weights, {"epoch": 3, "state_dict": weights}):
        with pytest.raises(ReaderError, match="holds only weights; load it into its module"):
            read_model(saved)
