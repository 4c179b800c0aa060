"""The reference networks are the published ones: they have the published parameters and multiply-adds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnmeter_nas.benchmarks.networks import NETWORKS, build_network, input_shape
from nnmeter_nas.errors import ReaderError

#: Parameters, and multiply-adds in 1e9: "num_params" and "GFLOPS" of the weights in the documentation of
#: torchvision (pytorch.org/vision/stable/models.html); inception_v3 less the 3,326,696 of its auxiliary
#: classifier. Of mobilenet_v1, what table 1 of its paper adds up to (table 8: 4.2 and 569 million); of
#: proxylessnas, the same from its figure 4 (320 million multiply-adds in table 2 of "Once-for-All").
PUBLISHED = {
    "alexnet": (61_100_840, 0.71),
    "vgg11": (132_863_336, 7.61),
    "vgg13": (133_047_848, 11.31),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnext50_32x4d": (25_028_904, 4.23),
    "wide_resnet50_2": (68_883_240, 11.40),
    "squeezenet1_0": (1_248_424, 0.82),
    "squeezenet1_1": (1_235_496, 0.35),
    "densenet121": (7_978_856, 2.83),
    "densenet161": (28_681_000, 7.73),
    "googlenet": (6_624_904, 1.50),
    "inception_v3": (27_161_264 - 3_326_696, 5.71),
    "mnasnet1_0": (4_383_312, 0.31),
    "mobilenet_v1": (4_231_976, 0.569),
    "mobilenet_v2": (3_504_872, 0.30),
    "mobilenet_v3_small": (2_542_856, 0.06),
    "mobilenet_v3_large": (5_483_032, 0.22),
    "shufflenet_v2_x1_0": (2_278_604, 0.14),
    "efficientnet_b0": (5_288_548, 0.39),
    "proxylessnas": (4_080_512, 0.32),
}


def on_meta(name: str) -> nn.Module:
    """The network without weights."""
    with torch.device("meta"):
        return build_network(name)


def test_every_network_has_published_figures() -> None:
    assert set(PUBLISHED) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_network_has_the_published_parameters_and_multiply_adds(name: str) -> None:
    network = on_meta(name)
    with FlopCounterMode(display=False) as counter:
        scores = network(torch.empty(input_shape(name), device="meta"))
    parameters, multiply_adds = PUBLISHED[name]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(multiply_adds, abs=0.006)
    assert scores.shape == (1, 1000)


def test_network_comes_in_eval_mode_and_runs_on_data() -> None:
    network = build_network("shufflenet_v2_x1_0")
    assert not any(module.training for module in network.modules())
    with torch.inference_mode():
        assert network(torch.rand(input_shape("shufflenet_v2_x1_0"))).isfinite().all()


@pytest.mark.parametrize("look_up", [build_network, input_shape])
def test_unknown_network_is_answered_with_the_nearest_name(look_up: object) -> None:
    assert callable(look_up)
    with pytest.raises(ReaderError, match="'mobilenetv2'; did you mean 'mobilenet_v2'"):
        look_up("mobilenetv2")
