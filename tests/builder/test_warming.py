"""A build finds how much less small networks take than their kernels do in large ones, if they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from nnmeter_nas.backends.base import KernelTime
from nnmeter_nas.builder.fitting import predicted, quick_fit
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import Observation, kernel_table
from nnmeter_nas.builder.warming import as_in_large, fit_warmth
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.warmth import COLD, Warmth
from nnmeter_nas.training.table import KernelTable
from simulated_device import RULES, kernel_ms, operators

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def observed(seed: int, warmth: Warmth) -> Observation:
    """A random network, measured on the simulated device if that were so warm."""
    graph, noise = random_network(seed), np.random.default_rng(seed).normal(1, 0.02)
    kernels = [kernel for _, kernel in fuse(graph, parse_rules(RULES)).nodes(data="kernel")]
    in_large = [kernel_ms(kernel) for kernel in kernels]
    share = float(warmth.share(sum(in_large))) * noise
    times = tuple(
        KernelTime(operators(kernel), kernel.type, share * ms)
        for kernel, ms in zip(kernels, in_large, strict=True)
    )
    ms = share * sum(in_large)
    return Observation(f"network{seed}", graph, ms, (ms, ms), times)


def table_of(seeds: range, warmth: Warmth) -> tuple[KernelTable, Any]:
    return kernel_table((observed(seed, warmth) for seed in seeds), parse_rules(RULES), "simulated")


@pytest.mark.parametrize("exponent", [0.0, 0.3])
def test_warmth_is_found_from_networks_and_their_kernels(
    exponent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 400)  # half a dozen fits
    sums = [observed(seed, COLD).ms for seed in range(60)]
    true = Warmth(float(np.quantile(sums, 0.5)), exponent, min(sums))
    table, source = table_of(range(60), true)
    found = fit_warmth(table, source, 0)
    if not exponent:
        assert found == COLD
        return
    assert found.exponent > 0.1
    new, _ = table_of(range(100, 140), true)
    measured = new.measured("simulated")
    small = (new.families == "network") & (measured < 0.5 * true.below_ms)
    off = {}
    for warmth in (COLD, found):
        network = quick_fit(as_in_large(table, source, warmth), np.arange(len(table.ids)), 0, members=1)
        ratios = warmth.ms(predicted(network, new)[0][small]) / measured[small]
        off[warmth] = np.abs(np.log(ratios)).mean()
    assert off[found] < 0.8 * off[COLD]
