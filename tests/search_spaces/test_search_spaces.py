"""The Single Path One-Shot space has the published shape and gives candidates under both NNI lines."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nni = pytest.importorskip("nni")

from learning import assert_learns  # noqa: E402
from nni_networks import frozen  # noqa: E402
from nnmeter_nas.readers.torch.module import read_torch_module  # noqa: E402
from nnmeter_nas.search_spaces import BLOCKS, spos  # noqa: E402
from nnmeter_nas.search_spaces.shufflenet import DownsampleBlock, UnitBlock  # noqa: E402
from work import millions_of_multiplications  # noqa: E402

pytestmark = pytest.mark.nni3


def candidate(size: str, block: str, **overrides: Any) -> Any:
    """The space's candidate that has the same block in every layer, as a torch module."""
    labels = [layer.label for layer in spos(size, **overrides).layers]
    return frozen(lambda: spos(size, **overrides), dict.fromkeys(labels, block))


def multiplications(module: Any, shape: tuple[int, ...]) -> float:
    """Multiplications of a module, in millions."""
    return millions_of_multiplications(read_torch_module(module, shape))


def test_choices_have_stable_labels_in_order_and_the_four_blocks() -> None:
    for size, layers in (("imagenet", 20), ("small", 6)):
        space = spos(size)
        assert [layer.label for layer in space.layers] == [f"layer_{i + 1}" for i in range(layers)]
        assert all(list(layer.names) == list(BLOCKS) for layer in space.layers)


def test_the_imagenet_space_is_of_the_published_size() -> None:
    # The paper searches 4 blocks in 20 layers around 300 to 350 million multiplications.
    shape = (1, 3, 224, 224)
    assert spos().input_shape == shape
    work = {block: multiplications(candidate("imagenet", block), shape) for block in ("k3", "xception")}
    assert 270 < work["k3"] < 330
    assert work["k3"] < work["xception"] < 450


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_keeps_or_halves_the_map(block: str) -> None:
    x = torch.zeros(1, 16, 10, 6)
    assert UnitBlock(block, 16).eval()(x).shape == (1, 16, 10, 6)
    assert DownsampleBlock(block, 16, 24).eval()(x).shape == (1, 24, 5, 3)
    assert DownsampleBlock(block, 16, 24).eval()(torch.zeros(1, 16, 7, 9)).shape == (1, 24, 4, 5)


@pytest.mark.parametrize("block", BLOCKS)
def test_small_candidates_compute_logits(block: str) -> None:
    module = candidate("small", block)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not any("LayerChoice" in type(part).__name__ for part in module.modules())


def test_blocks_differ_in_work() -> None:
    work = [multiplications(candidate("small", block), (1, 3, 32, 32)) for block in BLOCKS]
    assert all(a != b for a, b in itertools.combinations(work, 2))
    assert work[0] < work[1] < work[2]


def test_a_candidate_learns() -> None:
    torch.manual_seed(0)
    module = candidate("small", "k3", depths=(1, 1), channels=(16, 32), in_channels=1)
    assert_learns(module, (1, 16, 16), 0.01)


def test_overrides_reach_the_constructor() -> None:
    space = spos("small", classes=7, in_channels=1, input_size=16, depths=(1,), channels=(8,))
    assert space.input_shape == (1, 1, 16, 16)
    assert len(space.layers) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    ({"size": "large"}, "size='large'"),
    ({"depths": (2, 2), "channels": (8,)}, "depths"),
    ({"depths": (2,), "channels": (7,)}, "even"),
])
def test_impossible_spaces_are_refused_by_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spos(**arguments)
