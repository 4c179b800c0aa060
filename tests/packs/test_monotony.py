"""Kernel predictors are never negative, NaN, or faster for more work, even far outside the measured range."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir import small_cnn
from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.kernels.configuration import COLUMN, COLUMNS, FORMULA_TYPES, Configurations
from nnmeter_nas.packs.network import KernelNetwork
from nnmeter_nas.packs.registry import devices
from synthetic_bench import inception

DEVICES = sorted(devices())
WINDOWED = ("conv", "dwconv", "maxpool", "avgpool")
MAP = ("hin", "win", "hout", "wout")
#: Exponents of two that bound random channels and map sizes: one range as in networks, one far beyond.
RANGES = {"usual": ((3, 10), (0, 7.8)), "far outside": ((3, 14), (4, 12))}
#: Runtimes change algorithm as sizes grow, so some measured latencies drop, and predictions follow. In this
#: share of configurations a doubling may make a kernel more than 5 % faster, but never beyond the limit.
DROPS, LIMIT = 0.02, 0.8
#: The pack of the VPU, whose measurements scatter most, follows some neighbours that differ.
VPU = "myriadvpu_openvino2019r2"
VPU_DROPS, VPU_LIMIT = 0.13, 0.74
#: Least ratio for a kernel four times as wide on a larger map.
VPU_WIDER = 0.75

Sizes = npt.NDArray[np.float64]


@pytest.fixture(params=DEVICES)
def predictor(request: pytest.FixtureRequest) -> LatencyPredictor:
    """The newest predictor of each device."""
    return load_latency_predictor(request.param)


def of_type(kind: str, sizes: Sizes) -> Configurations:
    """Kernels of a type that has a formula, by their sizes ``[n, COLUMNS]``."""
    return Configurations(np.full(len(sizes), kind), sizes, np.zeros((len(sizes), 4)))


def configurations(kind: str, span: str, count: int = 2000, align: int = 8) -> Configurations:
    """Random kernels of one type, channels in multiples of ``align``."""
    rng = np.random.default_rng(FORMULA_TYPES.index(kind))
    channels, sizes = RANGES[span]

    def widths() -> Sizes:
        return np.ceil(np.exp2(rng.uniform(*channels, count)) / align) * align

    values: dict[str, Any] = dict.fromkeys(COLUMNS, 1.0)
    values.update(groups=1, squeezed=0, joined_relu=0, joined_add=0, joined_other=0)
    values["cin"] = values["cout"] = widths()
    if kind in ("conv", "fc"):
        values["cout"] = widths()
    size = np.rint(np.exp2(rng.uniform(*sizes, count))) if kind != "fc" else 1.0
    values.update(dict.fromkeys(MAP, size))
    if kind in WINDOWED:
        stride = rng.choice([1, 2], count)
        values["kh"] = values["kw"] = rng.choice([1, 3, 5, 7], count)
        values["sh"] = values["sw"] = stride
        values["hout"] = values["wout"] = np.ceil(size / stride)
    if kind in ("conv", "dwconv", "add"):
        values["joined_relu"] = rng.integers(0, 2, count)
    if kind in ("add", "concat"):
        values["operands"] = rng.integers(2, 5, count)
    if kind == "se":
        values["squeezed"] = np.ceil(values["cin"] / 4)
    if kind == "globalavgpool":
        values.update(kh=size, kw=size, hout=1.0, wout=1.0)
    sizes = np.stack([np.broadcast_to(values[name], count) for name in COLUMNS], axis=1)
    return of_type(kind, sizes.astype(float))


def doubled(rows: Configurations, *columns: str) -> Configurations:
    larger = rows.sizes.copy()
    for name in columns:
        larger[:, COLUMN[name]] *= 2
    return Configurations(rows.types, larger, rows.declared)


def growths(kind: str, rows: Configurations) -> dict[str, Configurations]:
    """``rows`` grown in each way that makes sense for the kernel type."""
    found = {"channels": doubled(rows, "cin", "cout", "squeezed")}
    if kind == "globalavgpool":
        found["map"] = doubled(rows, "hin", "win", "kh", "kw")
    elif kind != "fc":
        found["map"] = doubled(rows, *MAP)
    if kind in ("conv", "fc"):
        found["input channels"] = doubled(rows, "cin")
        found["output channels"] = doubled(rows, "cout")
    if kind in WINDOWED:
        larger = rows.sizes.copy()
        larger[:, [COLUMN["kh"], COLUMN["kw"]]] += 2
        found["kernel"] = of_type(kind, larger)
    return found


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("kind", FORMULA_TYPES)
def test_larger_kernels_do_not_get_faster(predictor: LatencyPredictor, kind: str, span: str) -> None:
    rows = configurations(kind, span)
    before = predictor.pack.predictors.predict(rows)
    drops, limit = (VPU_DROPS, VPU_LIMIT) if predictor.device == VPU else (DROPS, LIMIT)
    for what, larger in growths(kind, rows).items():
        ratio = predictor.pack.predictors.predict(larger) / before
        assert np.mean(ratio < 0.95) <= drops, f"more {what} lose more than 5 % too often"
        worst = rows.sizes[ratio.argmin()]
        assert ratio.min() >= limit, (
            f"more {what} of {dict(zip(COLUMNS, worst, strict=True))}: x{ratio.min():.2f}"
        )


@pytest.mark.parametrize("kind", FORMULA_TYPES)
def test_kernel_four_times_as_wide_on_a_larger_map_takes_no_less(
    predictor: LatencyPredictor, kind: str
) -> None:
    for span, least in (("usual", 0.85), ("far outside", 0.95)):
        # Any number of channels: runtimes lose less than a factor of four on odd numbers. Thin kernels on the
        # smallest maps cost little more than a launch, at any width.
        rows = configurations(kind, span, align=1)
        wide = growths(kind, growths(kind, rows)["channels"])["channels"]
        larger = growths(kind, wide).get("map", wide)
        ratio = predictor.pack.predictors.predict(larger) / predictor.pack.predictors.predict(rows)
        assert ratio.min() > (VPU_WIDER if predictor.device == VPU else least)
        assert np.mean(ratio < 0.95) <= 0.03


@pytest.mark.parametrize("kind", FORMULA_TYPES)
def test_latency_grows_with_the_work_far_outside_the_range(predictor: LatencyPredictor, kind: str) -> None:
    rows = configurations(kind, "far outside")
    if kind == "fc":
        rows, way = rows[rows.size("cin") * rows.size("cout") > 2**25], "channels"
    else:
        rows, way = rows[(rows.size("cin") > 1024) & (rows.size("hin") > 512)], "map"
    network = predictor.pack.predictors
    ratio = network.predict(growths(kind, rows)[way]) / network.predict(rows)
    order = np.log(ratio) / np.log(4)
    assert len(rows) > 50
    assert 0.8 < np.median(order) < 1.2, "four times the work"
    assert np.mean((order > 0.6) & (order < 1.4)) > 0.95


@cache
def network_of(device: str) -> KernelNetwork:
    return load_latency_predictor(device).pack.predictors


@settings(max_examples=200)
@given(
    device=st.sampled_from(DEVICES),
    kind=st.sampled_from(FORMULA_TYPES),
    sizes=st.lists(st.integers(1, 2**16), min_size=6, max_size=6),
    windows=st.lists(st.integers(1, 64), min_size=4, max_size=4),
    rest=st.lists(st.integers(1, 64), min_size=3, max_size=3),
    joined=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    squeezed=st.integers(0, 2**14),
)
def test_no_configuration_has_a_negative_or_undefined_latency(
    device: str,
    kind: str,
    sizes: list[int],
    windows: list[int],
    rest: list[int],
    joined: list[int],
    squeezed: int,
) -> None:
    row = np.array([[*sizes, *windows, *rest, *joined, squeezed]], dtype=float)
    with np.errstate(all="raise", under="ignore"):
        [latency] = network_of(device).predict(of_type(kind, row))
    assert np.isfinite(latency)
    assert latency > 0


def test_configurations_predicted_together_and_alone_are_the_same(predictor: LatencyPredictor) -> None:
    by_type = [configurations(kind, "usual", 5) for kind in FORMULA_TYPES]
    rows = Configurations(
        *(np.concatenate([getattr(row, name) for row in by_type]) for name in ("types", "sizes", "declared"))
    )
    alone = [predictor.pack.predictors.predict(rows[np.array([i])])[0] for i in range(len(rows))]
    np.testing.assert_allclose(predictor.pack.predictors.predict(rows), alone, rtol=1e-6)


def test_measured_range_is_known(predictor: LatencyPredictor) -> None:
    network = predictor.pack.predictors
    usual, far = configurations("conv", "usual", 500), configurations("conv", "far outside", 500)
    far = far[far.size("cin") > 8192]
    assert network.outside_range(far).all()
    assert not network.outside_range(usual).all()


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
@pytest.mark.parametrize("build", [small_cnn, inception])
def test_wider_networks_and_larger_inputs_take_longer(predictor: LatencyPredictor, build: Any) -> None:
    for kernel in (1, 3, 5):
        by_width = [predictor.predict(build(width, kernel, 64)) for width in (8, 16, 32, 64, 128, 256)]
        by_input = [predictor.predict(build(32, kernel, size)) for size in (32, 48, 64, 96, 128, 224, 448)]
        for latencies in (by_width, by_input):
            assert all(after > 0.95 * before for before, after in pairwise(latencies))
            assert latencies[-1] > 2 * latencies[0]
