"""Estimates: no operator is free or cheaper than a ReLU over the same values, and all grow with work."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forests import forest
from graphs import graph_of
from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.errors import UnpredictedOperatorError
from nnmeter_nas.graph.unknown import UNKNOWN_WORK
from nnmeter_nas.kernels.fusion import Kernel, parse_rules
from nnmeter_nas.kernels.work import declared_work
from nnmeter_nas.ops import OPERATORS
from nnmeter_nas.packs import Pack
from nnmeter_nas.packs.estimates import Rate, estimate, fit_rates, rates_from_card, rates_to_card
from nnmeter_nas.packs.latency import UNPREDICTED, KernelLatency
from nnmeter_nas.packs.nnmeter1.predictors import ForestPredictors
from nnmeter_nas.packs.registry import devices

DEVICES = sorted(devices())
#: The operators of the package, without those that other tests declare.
DECLARED = {
    name: operator
    for name, operator in OPERATORS.items()
    if operator.shape.__module__.startswith("nnmeter_nas.ops.")
}
#: Operators that keep the shape of one operand and that no bundled pack has a kernel type for.
KEEPING = ("swish", "gelu", "mish", "tanh", "sigmoid", "elu", "softplus", "softmax", "logsoftmax", "norm",
           "lrn", "neg", "exp", "erf", "cast", "prelu", "fourier")  # fmt: skip


@pytest.fixture(params=DEVICES)
def predictor(request: pytest.FixtureRequest) -> LatencyPredictor:
    return load_latency_predictor(request.param)


def one(op: str, *shapes: tuple[int, ...], out: tuple[int, ...] | None = None, **attrs: Any) -> Kernel:
    """A kernel of one operator."""
    return Kernel(op, [op], attrs, list(shapes), [out or shapes[0]])


def ms(predictor: LatencyPredictor, *kernels: Kernel) -> list[float]:
    """Latencies of kernels, all of them predicted."""
    found = [latency.ms for latency in predictor.kernel_latencies(kernels)]
    assert None not in found
    return [float(value) for value in found if value is not None]


@pytest.mark.parametrize("op", KEEPING)
@pytest.mark.parametrize("shape", [(1, 16), (1, 197, 192), (1, 8, 7, 7), (1, 64, 56, 56), (1, 960, 14, 14)])
def test_no_operator_is_cheaper_than_a_relu_over_the_same_values(
    predictor: LatencyPredictor, op: str, shape: tuple[int, ...]
) -> None:
    estimated, relu = ms(predictor, one(op, shape), one("relu", shape))
    assert estimated >= relu > 0


@settings(max_examples=60, deadline=None)
@given(
    device=st.sampled_from(DEVICES),
    op=st.sampled_from([op for op in KEEPING if OPERATORS.get(op) is None or OPERATORS[op].like != "relu"]),
    channels=st.integers(1, 600),
    side=st.integers(1, 60),
    factor=st.integers(2, 5),
)
def test_more_values_take_longer(device: str, op: str, channels: int, side: int, factor: int) -> None:
    rates = load_latency_predictor(device).pack.rates
    wide = factor * channels
    shapes = [(1, channels, side, side), (1, wide, side, side), (1, wide, side, 2 * side)]
    found = [estimate(one(op, shape), rates) for shape in shapes]
    assert all(small < large for small, large in pairwise(found))


def test_a_product_of_matrices_costs_about_what_the_pointwise_convolution_of_its_work_costs(
    predictor: LatencyPredictor,
) -> None:
    for tokens, inner, outer in ((196, 64, 196), (49, 256, 256), (400, 128, 64)):
        product = one("matmul", (1, tokens, inner), (1, inner, outer), out=(1, tokens, outer))
        conv = one("conv", (1, inner, tokens, 1), out=(1, outer, tokens, 1), kernel=(1, 1), stride=(1, 1),
                   out_channels=outer)  # fmt: skip
        estimated, measured = ms(predictor, product, conv)
        assert measured / 3 < estimated < 3 * measured


def block(activation: nn.Module) -> nn.Module:
    """A network with the activation behind a convolution that it cannot join."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), activation, nn.Conv2d(32, 64, 1), activation, nn.AdaptiveAvgPool2d(1)
    )


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.Mish(), nn.Softplus(), nn.ELU(), nn.Tanh()])
def test_a_network_gets_no_faster_by_an_activation_that_was_not_measured(
    predictor: LatencyPredictor, activation: nn.Module
) -> None:
    other, relu = (predictor.explain(block(a), input_shape=(1, 3, 96, 96)) for a in (activation, nn.ReLU()))
    assert other.latency_ms > relu.latency_ms
    assert len(other.estimated) == 2
    assert not other.unpredicted


def test_every_declared_operator_that_makes_a_kernel_has_a_price(predictor: LatencyPredictor) -> None:
    window = {"kernel": (2, 2), "stride": (2, 2), "out_channels": 8, "output_size": (1, 1), "out_features": 4,
              "axes": (1,), "perm": (0, 1, 2, 3), "size": (8, 8), "hidden": 4}  # fmt: skip
    for name, operator in DECLARED.items():
        if operator.kernel is None or operator.operands == 0:
            continue
        shape = (8, 1, 16) if "hidden" in (operator.attrs or ()) else (1, 8, 16, 16)
        shapes = [shape] * (operator.operands or 2)
        [latency] = predictor.kernel_latencies([one(name, *shapes, **window)])
        assert latency.ms, name


@pytest.mark.parametrize("rate", [Rate(0.02, 0.5, 0.0), Rate(0.0, 0.1, 0.7)])
def test_the_fit_finds_the_rate_that_made_the_latencies(rate: Rate) -> None:
    class Linear:
        def covers(self, kernel: Kernel) -> bool:
            return kernel.op == "conv"

        def latencies(self, kernels: list[Kernel]) -> list[Any]:
            found = []
            for kernel in kernels:
                work = declared_work(kernel)
                value = rate.latency(1, work.read + work.written + work.weights, work.macs)
                found.append(KernelLatency(value, "measured") if self.covers(kernel) else UNPREDICTED)
            return found

    [(name, found)] = fit_rates(Linear()).items()
    assert name == "conv"
    assert found == pytest.approx(rate)


def attention() -> nx.DiGraph:
    """A model with operators that nn-Meter has no forest for, and others that a pack here lacks."""
    return graph_of(
        ("conv", "conv", ["x"], {"kernel": (3, 3), "padding": "same", "out_channels": 64}),
        ("silu", "swish", ["conv"]),
        ("norm", "softmax", ["silu"]),
        ("up", "convtranspose", ["norm"], {"kernel": (2, 2), "stride": (2, 2), "out_channels": 8}),
        shape=(1, 16, 14, 14),
    )


def test_packs_of_forests_estimate_what_no_forest_predicts() -> None:
    forests = {"conv-bn-relu": forest(7), "hswish": forest(2), "relu": forest(2)}
    old = LatencyPredictor(Pack({"name": "old", "version": 1.0}, parse_rules([]), ForestPredictors(forests)))
    found = old.explain(attention())
    assert found.estimated == {"silu": "swish", "norm": "softmax", "up": "convtranspose"}
    assert all(ms > 0 for _, ms in found.kernel_graph.nodes(data="latency_ms"))
    with pytest.raises(UnpredictedOperatorError, match=r"silu \(swish\)"):
        old.predict(attention(), strict=True)


def test_a_pack_of_one_kernel_type_estimates_everything_by_it() -> None:
    pack = Pack({"name": "old", "version": 1.0}, parse_rules([]), ForestPredictors({"relu": forest(2)}))
    assert set(pack.rates) == {"relu"}
    found = LatencyPredictor(pack).explain(attention())
    assert len(found.estimated) == len(found.kernel_graph) == 4


def test_rates_on_the_card_count(predictor: LatencyPredictor) -> None:
    pack = predictor.pack
    card = {**pack.card, "rates": rates_to_card({"hswish": Rate(100.0, 0.0, 0.0)})}
    [latency] = LatencyPredictor(replace(pack, card=card)).kernel_latencies([one("tanh", (1, 8, 8, 8))])
    assert latency == KernelLatency(100.0, "estimated")


@pytest.mark.parametrize("entry", [[], {"a": [1, 2]}, {"a": [1, -2, 0]}, {"a": [1, "x", 0]}, {"a": 3}])
def test_unusable_rates_are_refused(entry: Any) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        rates_from_card(entry)


def test_a_kernel_of_unknown_size_has_no_estimate(predictor: LatencyPredictor) -> None:
    kernel = Kernel("onnx_odd", ["odd"], {UNKNOWN_WORK: "batch"}, [(1, 8, 8, 8)], [()])
    assert predictor.kernel_latencies([kernel]) == [UNPREDICTED]
