"""``forward`` may ask about values: what follows from zeros, constants and weights is known, data is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnmeter_nas.errors import ReaderError
from nnmeter_nas.readers.torch.module import read_torch_module
from torch_graphs import ops, read

SHAPE = (1, 3, 6, 6)
Asks = Callable[["Block", torch.Tensor], Any]


class Block(nn.Module):
    """Goes one way if ``asks`` says that a branch is zero, and another way otherwise."""

    nothing: torch.Tensor
    mask: torch.Tensor

    def __init__(self, asks: Asks, branch: str) -> None:
        super().__init__()
        self.asks, self.branch = asks, branch
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.register_buffer("nothing", torch.zeros(1))
        self.register_buffer("mask", torch.zeros(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = BRANCHES[self.branch](self, x)
        return torch.tanh(x) if self.asks(self, out) else torch.sigmoid(x)


#: Branches of a block; those whose names begin with "no" are zero.
BRANCHES: dict[str, Callable[[Block, torch.Tensor], torch.Tensor]] = {
    "convolution": lambda b, x: b.conv(x),
    "activation": lambda b, x: F.relu(b.bn(b.conv(x))),
    "sum": lambda b, x: x + b.conv(x),
    "shifted nothing": lambda b, x: x * 0 + 1,
    "no product": lambda b, x: x * 0,
    "no half": lambda b, x: F.avg_pool2d(x, 2).mul(0.0),
    "no mask": lambda b, x: b.conv(x) * b.mask,
    "no constant": lambda b, x: torch.zeros(x.shape),
    "no likeness": lambda b, x: torch.zeros_like(x),
    "no layer": lambda b, x: b.conv(x * 0),
    "no norm": lambda b, x: b.bn(b.conv(x.mul(0))),
    "no write": lambda b, x: x.clone().zero_(),
    "no sum": lambda b, x: x * 0 + F.relu(x * 0),
    "no difference": lambda b, x: x - x,
}
QUESTIONS: dict[str, Asks] = {
    "item": lambda b, out: torch.sum(torch.abs(out)).item() == 0,
    "comparison": lambda b, out: out.abs().sum() == 0,
    "bool": lambda b, out: not bool(out.abs().sum()),
    "float": lambda b, out: float(out.abs().sum()) == 0.0,
    "equal": lambda b, out: torch.equal(out, torch.zeros_like(out)),
    "equal to a constant": lambda b, out: torch.equal(out, torch.zeros(out.shape)),
    "equal to a buffer": lambda b, out: out.norm() == b.nothing,
    "any": lambda b, out: not out.any(),
    "any unequal": lambda b, out: not (out != 0).any().item(),
    "all equal": lambda b, out: out.eq(0).all(),
    "maximum": lambda b, out: out.abs().max().item() == 0,
    "both ends": lambda b, out: out.min() == 0 and out.max() == 0,
    "count": lambda b, out: torch.count_nonzero(out) == 0,
    "count as a number": lambda b, out: not torch.count_nonzero(out).item(),
    "squares": lambda b, out: (out**2).sum() == 0,
    "mean of detached": lambda b, out: not out.detach().cpu().abs().mean() > 0,
    "finite": lambda b, out: not torch.isnan(out).any() and out.double().abs().sum() == 0,
}


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("asks", QUESTIONS.values(), ids=QUESTIONS)
def test_whether_a_branch_is_zero_is_known(asks: Asks, branch: str) -> None:
    graph = read_torch_module(Block(asks, branch), SHAPE)
    assert ops(graph) == {"tanh" if branch.startswith("no ") else "sigmoid": 1}


@pytest.mark.parametrize("seed", range(3))
def test_the_answers_are_those_of_data(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(SHAPE)
    for branch in BRANCHES:
        block = Block(QUESTIONS["item"], branch).eval()
        with torch.no_grad():
            is_zero = torch.equal(block(x), torch.tanh(x))
        assert is_zero == branch.startswith("no "), branch


def test_what_follows_from_a_zero_and_weights_is_worked_out() -> None:
    block = Block(lambda b, out: out.max().item() == 2, "no norm")
    nn.init.constant_(block.bn.bias, 2)
    assert ops(read_torch_module(block, SHAPE)) == {"tanh": 1}
    assert ops(read_torch_module(Block(QUESTIONS["item"], "no norm"), SHAPE)) == {"tanh": 1}


def sign(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x) if x.mean() > 0 else x  # of the sign


def size(x: torch.Tensor) -> torch.Tensor:
    if x.abs().max().item() < 1e-3:  # of the size
        return x
    return F.relu(x)


def range_of(x: torch.Tensor) -> torch.Tensor:
    low, high = x.min().item(), x.max().item()  # of the range
    return F.relu(x) if low < -1 else x * high


def number(x: torch.Tensor) -> torch.Tensor:
    return x * x.max().item()  # of the number


def count(x: torch.Tensor) -> torch.Tensor:
    return F.relu(x) if (x > 0).sum().item() > 5 else x  # of the count


def position(x: torch.Tensor) -> torch.Tensor:
    return x[:, int(x.mean((0, 2, 3)).argmax())]  # of the position


def raises(x: torch.Tensor) -> torch.Tensor:
    if x.sum().item() < 0:  # of the error
        raise ValueError("negative")
    return F.relu(x)


def caught(x: torch.Tensor) -> torch.Tensor:
    return x if torch.allclose(F.relu(x), x) else F.relu(x)  # of the tolerance


def selected(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]  # of the selection


@pytest.mark.parametrize(
    "forward", [sign, size, range_of, number, count, position, raises, caught, selected]
)
def test_a_branch_on_data_is_refused_with_its_line(forward: Callable[..., Any]) -> None:
    with pytest.raises(ReaderError, match="no branch and no shape in it depends on tensor values") as refused:
        read(forward, SHAPE)
    assert re.search(rf"{re.escape(__file__)}:\d+ \(.*  # of the \w+\)", str(refused.value))


def test_the_line_is_the_users_also_inside_torchs_containers() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else F.relu(x)  # in a container

    with pytest.raises(ReaderError, match=r"cannot trace Sequential: .*# in a container\) decides by values"):
        read_torch_module(nn.Sequential(nn.ReLU(), nn.Sequential(Asks())), SHAPE)


def test_a_number_that_only_a_check_reads_does_not_matter() -> None:
    seen: list[float] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.mean().item())
        assert x.abs().sum().item() >= 0
        return F.relu(x)

    assert ops(read(forward, SHAPE)) == {"relu": 1}
    assert len(set(seen)) == len(seen) > 1


def test_questions_leave_the_module_as_it_was() -> None:
    block = Block(QUESTIONS["item"], "no norm").train()
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    read_torch_module(block, SHAPE)
    assert block.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())
    assert all(not tensor.is_meta for tensor in block.state_dict().values())


def test_weights_without_values_are_no_answer() -> None:
    with torch.device("meta"):
        block = Block(QUESTIONS["item"], "no norm")
    with pytest.raises(ReaderError, match=r"it asks for values that the module does not keep, at .*:"):
        read_torch_module(block, SHAPE)
