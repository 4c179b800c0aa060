"""The ProxylessNAS space has the published shape, and a layer that is left out costs nothing."""

from __future__ import annotations

import importlib
from typing import Any

import networkx as nx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from learning import assert_learns  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.costs import FactorTable, build_table  # noqa: E402
from nnmeter_nas.search_spaces import MOBILE_BLOCKS, ZERO, proxylessnas  # noqa: E402
from nnmeter_nas.search_spaces.proxylessnas import MobileBlock  # noqa: E402
from nnmeter_nas.supernet.choices import choices, select  # noqa: E402
from nnmeter_nas.supernet.tracing import read_supernet  # noqa: E402
from work import millions_of_multiplications  # noqa: E402

pytestmark = pytest.mark.nni3

#: First layers of the stages at ImageNet size, which set channels or stride and have to be there.
FIRST_LAYERS = {"layer_1", "layer_5", "layer_9", "layer_13", "layer_17", "layer_21"}


def supernet(size: str) -> nx.DiGraph:
    space = proxylessnas(size)
    return read_supernet(space, space.input_shape)


def uniform(space: nx.DiGraph, block: str) -> dict[str, str]:
    """``block`` in every layer; where that is not among the candidates, the smallest block."""
    return {label: block if block in known else "k3_e3" for label, known in choices(space).items()}


@pytest.fixture(scope="module")
def table() -> FactorTable:
    return build_table(supernet("small"), load_latency_predictor("cortexA76cpu_tflite21"))


@pytest.fixture(scope="module")
def imagenet() -> nx.DiGraph:
    return supernet("imagenet")


def test_every_layer_is_one_of_six_blocks_and_may_go_unless_it_is_the_first_of_a_stage(
    imagenet: nx.DiGraph,
) -> None:
    found = choices(imagenet)
    assert list(found) == [f"layer_{i}" for i in range(1, 22)]
    for label, known in found.items():
        assert known == (MOBILE_BLOCKS if label in FIRST_LAYERS else (*MOBILE_BLOCKS, ZERO))


def test_the_imagenet_space_is_of_the_published_size(imagenet: nx.DiGraph) -> None:
    # The networks that the paper finds take 320 to 465 million multiplications.
    work = {
        b: millions_of_multiplications(select(imagenet, uniform(imagenet, b))) for b in ("k3_e3", "k7_e6")
    }
    assert work["k3_e3"] < 320
    assert work["k7_e6"] > 465
    graph = select(imagenet, uniform(imagenet, "k3_e3"))
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 1000)]


@pytest.mark.parametrize(("kernel", "expansion", "stride"), [(3, 3, 1), (5, 6, 2), (7, 3, 2), (3, 1, 1)])
def test_blocks_expand_filter_and_project(kernel: int, expansion: int, stride: int) -> None:
    block = MobileBlock(8, 12, kernel, expansion, stride).eval()
    assert block(torch.zeros(2, 8, 10, 7)).shape == (2, 12, -(-10 // stride), -(-7 // stride))
    convolutions = [part for part in block.modules() if isinstance(part, torch.nn.Conv2d)]
    shapes = [(c.out_channels, c.kernel_size[0], c.groups) for c in convolutions]
    wide = 8 * expansion
    assert shapes == [(wide, 1, 1)] * (expansion > 1) + [(wide, kernel, wide), (12, 1, 1)]
    last = list(block.layers)[-1]
    assert isinstance(last, torch.nn.BatchNorm2d)  # no activation behind the projection


def test_a_layer_that_is_left_out_is_not_in_the_model() -> None:
    space = supernet("small")
    graph = select(space, uniform(space, ZERO))
    names = {name.split(".")[1] for name in graph if name.startswith("layers.")}
    assert names == {"0", "2", "4"}  # those that cannot go; neither additions nor zeros are left


def test_a_layer_that_is_left_out_costs_nothing(table: FactorTable) -> None:
    for label, known in table.candidates.items():
        block_ms = dict(zip(known, table.block(label), strict=True))
        assert block_ms.pop(ZERO, 0.0) == 0.0
        assert min(block_ms.values()) > 0
    assert not table.interactions()


def test_larger_blocks_take_longer(table: FactorTable) -> None:
    for ms in map(table.block, table.labels):
        assert ms[MOBILE_BLOCKS.index("k3_e3")] < ms[MOBILE_BLOCKS.index("k3_e6")]
        assert ms[MOBILE_BLOCKS.index("k3_e6")] < ms[MOBILE_BLOCKS.index("k7_e6")]


def candidate(**chosen: str) -> Any:
    """A small architecture as a torch module: the smallest blocks save for what is ``chosen``."""
    space = proxylessnas("small")
    known = choices(read_supernet(space, space.input_shape))
    sample = {label: chosen.get(label, "k3_e3") for label in known}
    if hasattr(space, "freeze"):
        return space.freeze(sample)
    with importlib.import_module("nni.retiarii").fixed_arch(sample, verbose=False):
        return proxylessnas("small")


def test_a_layer_that_is_left_out_hands_its_input_on() -> None:
    module = candidate(layer_2=ZERO).eval()
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(module.layers[1](x), x)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_candidate_learns() -> None:
    torch.manual_seed(0)
    module = candidate(layer_2=ZERO, layer_4="k5_e6")
    assert_learns(module, (3, 32, 32), 0.005)


def test_overrides_reach_the_constructor() -> None:
    space = proxylessnas("small", classes=7, in_channels=1, input_size=16, depths=(1, 2), channels=(8, 16),
                         strides=(1, 2))  # fmt: skip
    assert space.input_shape == (1, 1, 16, 16)
    found = read_supernet(space, space.input_shape)
    assert [ZERO in known for known in choices(found).values()] == [False, False, True]
    graph = select(found, uniform(found, ZERO))
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 7)]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"size": "large"}, "size='large'"),
    ({"depths": (2, 2), "channels": (8,)}, "same stages"),
    ({"strides": (1,)}, "same stages"),
])  # fmt: skip
def test_impossible_spaces_are_refused_by_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        proxylessnas(**arguments)
