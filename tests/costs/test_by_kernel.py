"""Kernels are learned size by size: few networks give the latency of every other one, whatever moves."""

from __future__ import annotations

import random
from functools import partial

import pytest

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs.by_kernel import KernelLearner
from nnmeter_nas.costs.influence import Sample
from nnmeter_nas.costs.pricing import LatencyMeter
from nnmeter_nas.errors import SpaceError
from nnmeter_nas.kernels.fusion import Kernel
from nnmeter_nas.supernet.place import Place

WIDTHS, EXPANSIONS, KERNELS = ("8", "12", "16", "24", "32"), ("1", "2", "3", "6"), ("3", "5", "7")
BLOCKS = 4
CANDIDATES = {
    "stem": WIDTHS,
    **{
        f"block_{i}_{what}": known
        for i in range(BLOCKS)
        for what, known in (("expand", EXPANSIONS), ("kernel", KERNELS), ("width", WIDTHS))
    },
    "depth": ("2", "3", "4"),
}
PLACES = {
    "": Place({}),
    **{
        f"blocks.{i}": Place({"depth": frozenset(d for d in CANDIDATES["depth"] if int(d) > i)})
        for i in range(2, BLOCKS)
    },
}


def convolution(op: str, read: int, written: int, size: int, relu: bool) -> Kernel:
    attrs = {"kernel": (size, size), "stride": (1, 1), "out_channels": written}
    joined = ["bn", "relu"] if relu else ["bn"]
    return Kernel(op, [], attrs, [(1, read, 14, 14)], [(1, written, 14, 14)], joined)


def kernels_of(sample: Sample) -> dict[str, Kernel]:
    """Of inverted residual blocks, whose layers move up by one where nothing is expanded."""
    width = int(sample["stem"])
    found = {"stem": convolution("conv", 3, width, 3, relu=True)}
    for i in range(int(sample["depth"])):
        expand, size, then = (sample[f"block_{i}_{what}"] for what in ("expand", "kernel", "width"))
        inner = width * int(expand)
        layers = [convolution("conv", width, inner, 1, relu=True)] if expand != "1" else []
        layers.append(convolution("dwconv", inner, inner, int(size), relu=True))
        layers.append(convolution("conv", inner, int(then), 1, relu=False))
        found |= {f"blocks.{i}.{n}": layer for n, layer in enumerate(layers)}
        width = int(then)
    return found


def samples(count: int, seed: int) -> list[Sample]:
    draw = random.Random(seed)
    return [{label: draw.choice(known) for label, known in CANDIDATES.items()} for _ in range(count)]


@pytest.mark.parametrize("device", ["cortexA76cpu_tflite21", "adreno640gpu_tflite21"])
def test_few_networks_give_the_latency_of_every_other_one(device: str) -> None:
    meter = LatencyMeter([load_latency_predictor(device)])
    learner = KernelLearner(kernels_of, CANDIDATES, PLACES, samples(32, seed=1))
    table = learner.table(partial(meter.priced, 0))
    assert len({tuple(sample.items()) for sample in learner.samples}) < 150  # of 559 million
    drawn = samples(200, seed=2)
    priced = meter.priced(0, [kernels_of(sample) for sample in drawn])
    assert table.values(table.indices(drawn)) == pytest.approx(
        [sum(parts.values()) for parts in priced], rel=1e-9
    )


def test_a_layer_that_moves_up_is_one_kernel_wherever_it_stands() -> None:
    """Where the module with the pool is left out, the convolution takes its path."""
    known = {"wide": WIDTHS, "expand": EXPANSIONS, "pool": ("no", "yes")}

    def moving(sample: Sample) -> dict[str, Kernel]:
        inner = int(sample["wide"]) * int(sample["expand"])
        last = convolution("conv", inner, 8, 1, relu=False)
        pool = Kernel("maxpool", [], {"kernel": (2, 2), "stride": (1, 1)}, [(1, 8, 4, 4)], [(1, 8, 4, 4)])
        return {"body.1.pool": pool, "body.2": last} if sample["pool"] == "yes" else {"body.1": last}

    draw = random.Random(0)
    probes = [{label: draw.choice(of) for label, of in known.items()} for _ in range(32)]
    meter = LatencyMeter([load_latency_predictor("cortexA76cpu_tflite21")])
    table = KernelLearner(moving, known, {"": Place({})}, probes).table(partial(meter.priced, 0))
    assert set(table.factors) == {(0, 1), (2,)}  # not all three together


def test_a_kernel_that_too_many_choices_decide_is_refused_by_name() -> None:
    def one_kernel(sample: Sample) -> dict[str, Kernel]:
        widths = [sample["stem"], *(sample[f"block_{i}_width"] for i in range(BLOCKS))]
        reads = [(1, int(width), 14, 14) for width in [*widths, sample["block_0_expand"]]]
        return {"join": Kernel("concat", [], {"axis": 1}, reads, [(1, 8, 14, 14)])}

    learner = KernelLearner(one_kernel, CANDIDATES, {"": Place({})}, samples(32, seed=1))
    with pytest.raises(SpaceError, match="latency of join depends on 12500 combinations of stem, block_0_"):
        learner.table(lambda kernels: [])


def test_kernels_that_are_put_together_are_not_noted_as_left_out() -> None:
    def odd(sample: Sample) -> dict[str, Kernel]:
        return {**kernels_of(sample), "odd": Kernel("fourier", [], {}, [(1, 8, 4, 4)], [(1, 8, 4, 4)])}

    meter = LatencyMeter([load_latency_predictor("cortexA76cpu_tflite21")])
    KernelLearner(odd, CANDIDATES, PLACES, samples(32, seed=1)).table(partial(meter.priced, 0))
    assert meter.left_out == [{}]
