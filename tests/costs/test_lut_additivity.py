"""The report on additivity compares sums of blocks priced in context with sums of blocks priced alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("torch")
pytest.importorskip("nni")

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.benchmarks.search.additivity import (
    isolated_graphs,
    isolated_sums,
    report_additivity,
)
from nnmeter_nas.costs.pricing import LatencyMeter, Pricing
from nnmeter_nas.supernet import Space
from toy_supernets import fusing_supernet, residual_supernet, width_supernet


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    return load_latency_predictor("adreno640gpu_tflite21")


def test_every_operator_is_in_one_block_or_in_the_rest() -> None:
    supernet = residual_supernet(layers=2)
    alone = isolated_graphs(Space.of_supernet(supernet))
    assert {name for name in alone[None] or () if ":" not in name} == {
        "input", "stem", "stem.bn", "stem.relu", "layer_1.add", "layer_2.add", "pool", "flatten", "fc",
    }  # fmt: skip
    block = alone["layer_2", "k5"]
    assert block is not None
    assert list(block) == ["layer_1.add:0", "layer_2.k5", "layer_2.k5.bn", "layer_2.k5.relu"]
    assert alone["layer_2", "zero"] is None


def test_blocks_priced_alone_miss_fusion_across_their_borders(predictor: LatencyPredictor) -> None:
    space = Space.of_supernet(fusing_supernet())
    rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    full = Pricing(space, [LatencyMeter([predictor])]).values(rows)[:, 0]
    off = np.abs(isolated_sums(space, isolated_graphs(space), predictor, rows) / full - 1)
    assert off[[0, 2]].max() < 1e-9  # without the addition nothing fuses
    assert off[[1, 3]].min() > 0.01


def test_blocks_priced_alone_miss_effects_of_the_previous_choice(predictor: LatencyPredictor) -> None:
    space = Space.of_supernet(width_supernet())
    rows = np.array([[0, 0, 0], [2, 2, 0]])
    full = Pricing(space, [LatencyMeter([predictor])]).values(rows)[:, 0]
    off = np.abs(isolated_sums(space, isolated_graphs(space), predictor, rows) / full - 1)
    assert off[0] < 1e-9
    assert off[1] > 0.05


@pytest.mark.slow
def test_the_report_shows_both_spaces_within_the_targets() -> None:
    console = Console(file=io.StringIO(), width=120)
    found = report_additivity(["cortexA76cpu_tflite21", "adreno640gpu_tflite21"], 5, 0, console)
    assert [(one.space, len(one.in_context)) for one in found] == (
        [("ShuffleNetV2OneShot", 5)] * 2 + [("ProxylessNASSpace", 5)] * 2
    )
    for one in found:
        assert np.median(one.in_context) <= 0.01
        assert one.in_context.max() <= 0.03
    assert "ProxylessNASSpace" in console.file.getvalue()  # type: ignore[attr-defined]
