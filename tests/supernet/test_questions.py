"""Spaces whose blocks ask whether the chosen candidate is a zero layer, of both NNI lines."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from nni_networks import assert_as_nni_makes_them, frozen, operators  # noqa: E402
from nnmeter_nas.errors import ReaderError, SpaceError  # noqa: E402
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn  # noqa: E402
from nnmeter_nas.readers.torch.module import read_torch_module  # noqa: E402
from nnmeter_nas.supernet.choices import choices, select  # noqa: E402
from nnmeter_nas.supernet.nni_space import space_of  # noqa: E402
from nnmeter_nas.supernet.tracing import read_supernet  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore")]

InputChoice: Any = importlib.import_module("nni.nas.nn.pytorch").InputChoice
SHAPE = (1, 4, 8, 8)


class Nothing(torch.nn.Module):
    """A zero layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0


def is_nothing(x: torch.Tensor) -> bool:
    return torch.sum(torch.abs(x)).item() == 0


def layers(label: str) -> Any:
    """Two layers or nothing; the activation makes zeros, but never only zeros."""
    kernels = {f"k{k}": nn.Sequential(nn.Conv2d(4, 4, k, padding=k // 2), nn.ReLU()) for k in (1, 3)}
    return LayerChoice({**kernels, "nothing": Nothing()}, label=label)


class Shortcut(torch.nn.Module):
    """Adds its input to what a choice made of it, unless that is nothing."""

    def forward(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if is_nothing(out) and x.size() == out.size():
            return x
        return out + x


class Apart(nn.Module):  # type: ignore[misc]
    """A block that asks in a module of its own."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.layer, self.shortcut = layers(label), Shortcut()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x, self.layer(x))


class Together(nn.Module):  # type: ignore[misc]
    """A block that asks where it chooses, changes its input before, and goes on otherwise for each answer."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.layer = layers(label)
        self.more, self.less = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += 1
        out = self.layer(x)
        if torch.count_nonzero(out) == 0:
            return torch.tanh(self.less(x))
        return self.more(out) + x


class Pair(nn.Module):  # type: ignore[misc]
    """A block that asks whether both of two choices are nothing, and then of one of them."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.one, self.other = layers(f"{label}_one"), layers(f"{label}_other")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.one(x), self.other(x)
        if not (one + other).any():
            return torch.sigmoid(x)
        return torch.tanh(other) if torch.equal(one, torch.zeros_like(one)) else one + other


class Inputs(nn.Module):  # type: ignore[misc]
    """A block that chooses between inputs, one of which is nothing."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.conv, self.choose = nn.Conv2d(4, 4, 1), InputChoice(2, 1, label=label)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.choose([self.conv(x), x * 0])
        return torch.tanh(x) if out.abs().max() == 0 else out


class Nested(nn.Module):  # type: ignore[misc]
    """A block whose candidate chooses and asks itself."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.layer = LayerChoice({"some": Together(f"{label}_inner"), "nothing": Nothing()}, label=label)
        self.shortcut = Shortcut()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x, self.layer(x.clone()))


BLOCKS = [Apart, Together, Pair, Inputs, Nested]


@model_space
class Row(ModelSpace):  # type: ignore[misc]
    """Blocks of one kind in a row."""

    def __init__(self, block: Any, count: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 3, padding=1)
        self.blocks = nn.Sequential(*(block(f"layer_{i}") for i in range(count)))
        self.last = nn.Conv2d(4, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.stem(x)))


def all_architectures(supernet: Any) -> list[dict[str, str]]:
    found = choices(supernet)
    return [dict(zip(found, chosen, strict=True)) for chosen in itertools.product(*found.values())]


@pytest.mark.parametrize("block", BLOCKS)
def test_one_trace_reads_what_each_architecture_computes(block: Any) -> None:
    supernet = read_supernet(Row(block, 1), SHAPE)
    for architecture in all_architectures(supernet):
        sample = {label: [int(value)] if block is Inputs else value for label, value in architecture.items()}
        network = read_torch_module(frozen(lambda: Row(block, 1), sample), SHAPE)
        assert operators(select(supernet, architecture)) == operators(network), architecture


@pytest.mark.parametrize("block", BLOCKS)
def test_spaces_of_several_such_blocks_match_nnis_networks(block: Any) -> None:
    space = space_of(Row(block, 3), SHAPE)
    assert_as_nni_makes_them(space, lambda: Row(block, 3), 4)


def test_a_space_without_layers_has_no_operators_of_its_blocks() -> None:
    space = space_of(Row(Apart, 2), SHAPE)
    empty = space.model_graph(dict.fromkeys(space.candidates, "nothing"))
    assert [op for _, op in empty.nodes(data="op")] == ["input", "conv", "conv"]


@model_space
class AsksAtTheTop(ModelSpace):  # type: ignore[misc]
    """Asks of each of its layers in its own ``forward``; skipped layers make it end otherwise."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layers(f"layer_{i}") for i in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            out = layer(x)
            x = torch.tanh(x) if is_nothing(out) else x + out
        return x


def test_a_whole_space_may_ask_of_a_few_choices() -> None:
    supernet = read_supernet(AsksAtTheTop(2), SHAPE)
    for architecture in all_architectures(supernet):
        network = read_torch_module(frozen(lambda: AsksAtTheTop(2), architecture), SHAPE)
        assert operators(select(supernet, architecture)) == operators(network), architecture


def test_too_many_answers_in_one_forward_are_refused_with_the_line() -> None:
    with pytest.raises(SpaceError, match=r"test_questions\.py:\d+ .*more than 6 choices.* module of its own"):
        read_supernet(AsksAtTheTop(8), SHAPE)


class Guarded(nn.Module):  # type: ignore[misc]
    """A block that leaves out its layer if the data is small."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.layer = layers(label)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.abs().mean() > 0.1 else x  # small


@pytest.mark.parametrize("reader", [read_supernet, space_of])
def test_a_branch_on_data_in_a_space_is_refused_with_its_line(reader: Callable[..., Any]) -> None:
    with pytest.raises(ReaderError, match=r"test_questions\.py:\d+ \(.*# small\) decides by values"):
        reader(Row(Guarded, 1), SHAPE)


def test_the_space_is_as_it_was_after_it_was_read() -> None:
    space = Row(Together, 1)
    read_supernet(space, SHAPE)
    assert all("forward" not in vars(part) for part in space.modules())
