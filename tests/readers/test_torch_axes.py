"""Every view, permutation and reduction of torch is read with torch's own output shape, on any axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torch_graphs import read

Draw = Callable[[Any], Any]
#: All sizes differ, so that a wrong axis gives a wrong shape.
SHAPE = (1, 6, 5, 7)
RANK = len(SHAPE)


class Spelt(nn.Module):
    """An operator between two others, so that neither input nor output hides what it does."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(self.function(torch.tanh(x)))


def _one(draw: Draw) -> int:
    return int(draw(st.integers(-RANK, RANK - 1)))


def _several(draw: Draw, count: int) -> list[int]:
    chosen = draw(st.permutations(range(RANK)))[:count]
    return [axis - RANK * draw(st.booleans()) for axis in chosen]


#: A torch call, and the number of different axes that it takes.
CALLS: dict[str, tuple[int, Callable[..., torch.Tensor]]] = {
    "transpose": (2, torch.transpose),
    "swapaxes": (2, torch.swapaxes),
    "swapdims": (2, torch.swapdims),
    "transpose_": (2, lambda x, a, b: x.clone().transpose_(a, b)),
    "swapaxes_": (2, lambda x, a, b: x.clone().swapaxes_(a, b)),
    "movedim": (2, torch.movedim),
    "moveaxis": (2, torch.moveaxis),
    "movedim of two": (4, lambda x, a, b, c, d: x.movedim((a, b), (c, d))),
    "permute": (4, lambda x, *axes: x.permute(axes)),
    "mT": (0, lambda x: x.mT),
    "adjoint": (0, torch.adjoint),
    "rot90": (2, lambda x, a, b: torch.rot90(x, 1, (a, b))),
    "rot180": (2, lambda x, a, b: torch.rot90(x, 2, (a, b))),
    "flip": (2, lambda x, a, b: x.flip(a, b)),
    "roll": (1, lambda x, a: x.roll(2, a)),
    "flatten": (2, lambda x, a, b: x.flatten(*sorted((a % RANK, b % RANK)))),
    "unflatten": (1, lambda x, a: x.unflatten(a, (-1, 1))),
    "unsqueeze": (1, torch.unsqueeze),
    "squeeze": (1, lambda x, a: x.mean(a, keepdim=True).squeeze(a)),
    "squeeze of two": (2, lambda x, a, b: x.mean((a, b), keepdim=True).squeeze((a, b))),
    "select": (1, lambda x, a: x.select(a, -1)),
    "narrow": (1, lambda x, a: x.narrow(a, 0, 1)),
    "chunk": (1, lambda x, a: x.chunk(2, a)[-1]),
    "split": (1, lambda x, a: x.split(4, a)[0]),
    "unbind": (1, lambda x, a: x.unbind(a)[0]),
    "stack": (1, lambda x, a: torch.stack([x, x], a)),
    "cat": (1, lambda x, a: torch.cat([x, x], a)),
    "sum": (2, lambda x, a, b: x.sum((a, b))),
    "mean": (2, lambda x, a, b: x.mean((a, b), keepdim=True)),
    "amax": (2, lambda x, a, b: x.amax((a, b))),
    "max": (1, lambda x, a: x.max(a)[0]),
    "prod": (1, lambda x, a: x.prod(a)),
    "var": (2, lambda x, a, b: x.var((a, b))),
    "logsumexp": (1, lambda x, a: x.logsumexp(a)),
    "softmax": (1, lambda x, a: x.softmax(a)),
    "cumsum": (1, torch.cumsum),
    "topk": (1, lambda x, a: x.topk(1, a)[0]),
    "repeat_interleave": (1, lambda x, a: x.repeat_interleave(2, a)),
    "diagonal": (2, lambda x, a, b: x.diagonal(0, a, b)),
    "unfold": (1, lambda x, a: x.unfold(a, 1, 1)),
    "index_select": (1, lambda x, a: x.index_select(a, torch.tensor([0]))),
    "norm": (1, lambda x, a: x.norm(dim=a)),
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=12)
@given(data=st.data())
def test_output_shape_is_torchs(name: str, data: Any) -> None:
    count, function = CALLS[name]
    axes = [_one(data.draw)] if count == 1 else _several(data.draw, count)
    module = Spelt(lambda x: function(x, *axes))
    graph = read(module, SHAPE)
    [output] = graph.graph["outputs"]
    with torch.inference_mode():
        assert graph.nodes[output]["out_shapes"] == [tuple(module(torch.rand(SHAPE)).shape)]
    assert graph.graph["shape_mismatches"] == []
