"""Tables of NNI spaces, including spaces that choose values and build architectures one by one."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import networkx as nx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from nnmeter_nas import load_latency_predictor, read_model  # noqa: E402
from nnmeter_nas.costs import build_table  # noqa: E402
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn  # noqa: E402
from nnmeter_nas.search_spaces import spos  # noqa: E402
from nnmeter_nas.supernet import Space  # noqa: E402
from nnmeter_nas.supernet.choices import select  # noqa: E402
from nnmeter_nas.supernet.tracing import read_supernet  # noqa: E402

pytestmark = pytest.mark.nni3

DEVICE = "adreno640gpu_tflite21"
CANDIDATES = {"width": ("8", "32"), "kernel": ("k1", "k5")}


@model_space
class Widths(ModelSpace):  # type: ignore[misc]
    """Chooses the width of the first convolution and the kernel size of the second."""

    def __init__(self) -> None:
        super().__init__()
        width = importlib.import_module("nni.nas.nn.pytorch").ValueChoice([8, 32], label="width")
        self.first = nn.Conv2d(3, width, 3, padding=1)
        blocks = {f"k{k}": nn.Conv2d(width, 16, k, padding=k // 2) for k in (1, 5)}
        self.second = LayerChoice(blocks, label="kernel")

    def forward(self, x: Any) -> Any:
        """Map (1, 3, h, w) to (1, 16, h, w)."""
        return self.second(self.first(x))


def widths(architecture: Any) -> nx.DiGraph:
    """The model graph of an architecture of ``Widths``."""
    sample = {"width": int(architecture["width"]), "kernel": architecture["kernel"]}
    space = Widths()
    if hasattr(space, "freeze"):
        return read_model(space.freeze(sample), input_shape=(1, 3, 32, 32))
    with importlib.import_module("nni.retiarii").fixed_arch(sample, verbose=False):
        return read_model(Widths(), input_shape=(1, 3, 32, 32))


def test_chosen_width_is_priced_with_the_layer_that_reads_it() -> None:
    predictor = load_latency_predictor(DEVICE)
    table = build_table(Space.of_function("widths", CANDIDATES, widths), predictor)
    assert (table.header.input_shape, list(table.interactions())) == ((1, 3, 32, 32), [("width", "kernel")])
    for chosen in itertools.product(*CANDIDATES.values()):
        architecture = dict(zip(CANDIDATES, chosen, strict=True))
        (full,) = predictor.explain_many([widths(architecture)])
        assert table.latency(architecture) == pytest.approx(full.latency_ms, rel=1e-9)


def test_table_of_a_space_matches_the_prediction_of_any_architecture() -> None:
    space, predictor = spos("small"), load_latency_predictor(DEVICE)
    supernet = read_supernet(space, space.input_shape)
    table = build_table(supernet, predictor)
    assert table.labels == tuple(f"layer_{i}" for i in range(1, 7))
    for blocks in (["k3"] * 6, ["k7", "xception"] * 3):
        architecture = dict(zip(table.labels, blocks, strict=True))
        (full,) = predictor.explain_many([select(supernet, architecture)])
        assert table.latency(architecture) == pytest.approx(full.latency_ms, rel=1e-9)
