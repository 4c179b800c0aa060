"""One network, one latency: in every format, and however its blocks are spelled."""

from __future__ import annotations

import io
import random
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costs_of_graphs import cost
from nnmeter_nas import read_model
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from recorded import nni_ir_of
from spelt_in_tensorflow import BLOCKS as TF_BLOCKS
from spelt_in_tensorflow import tf_network
from spelt_networks import BLOCKS, network

SHAPE = (1, 8, 8, 8)
#: Blocks, each with the number of a spelling.
Chosen = tuple[tuple[str, int], ...]
#: What spellings contain that the older exporter does not know.
UNEXPORTABLE = "F.channel_shuffle"
#: What spellings contain that NNI's graph IR does not tell the shape of. NNI cannot run such models: the
#: code that it generates from the IR lacks these parameters.
OF_UNKNOWN_SHAPE = "self."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the networks are written."""
    return tmp_path_factory.mktemp("networks")


def onnx_of(module: torch.nn.Module, **options: Any) -> onnx.ModelProto:
    """The module as ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.get("dynamo"):
            return torch.onnx.export(module, (torch.zeros(SHAPE),), verbose=False, **options).model_proto
        buffer = io.BytesIO()
        torch.onnx.export(module, (torch.zeros(SHAPE),), buffer, do_constant_folding=False, **options)
    return onnx.load_from_string(buffer.getvalue())


@cache
def wanted(blocks: tuple[str, ...], folder: Path) -> Any:
    """What a network of ``blocks`` costs, each as it is spelled first, read from torch."""
    return of_torch(tuple((block, 0) for block in blocks), folder)


def of_torch(chosen: Chosen, folder: Path) -> Any:
    """What a network costs, read from torch."""
    return cost(read_model(network(chosen, folder), input_shape=SHAPE))


def of_onnx(chosen: Chosen, folder: Path, opset: int) -> Any:
    """What a network costs, read from the older exporter's ONNX."""
    return cost(read_model(onnx_of(network(chosen, folder), opset_version=opset, dynamo=False)))


def of_nni_ir(chosen: Chosen, folder: Path) -> Any:
    """What a network costs, read from NNI's graph IR."""
    return cost(read_model(nni_ir_of(network(chosen, folder, nni=True), SHAPE), "nni-ir", SHAPE))


def latencies(costs: dict[str, Any]) -> dict[str, float]:
    """The latency in ms by device, of what a network costs."""
    return {device: latency for device, (latency, _) in costs.items()}


def plain(chosen: Chosen, folder: Path) -> Any:
    """What a network of the same blocks costs, all of them as they are spelled first."""
    return wanted(tuple(block for block, _ in chosen), folder)


def every(blocks: dict[str, list[str]]) -> Chosen:
    """All spellings of all ``blocks``."""
    return tuple((block, number) for block, texts in blocks.items() for number in range(len(texts)))


def without(text: str, chosen: Chosen) -> Chosen:
    """The blocks of a network whose spellings do not contain ``text``."""
    return tuple((block, number) for block, number in chosen if text not in BLOCKS[block][number])


def dealt(size: int, chosen: Chosen) -> list[Chosen]:
    """The blocks in any order, dealt to networks of ``size`` blocks."""
    shuffled = random.Random(0).sample(chosen, len(chosen))
    return [tuple(shuffled[start : start + size]) for start in range(0, len(shuffled), size)]


def named(one: tuple[str, int]) -> str:
    """The name of a test of a spelling."""
    return f"{one[0]} {one[1]}"


@pytest.mark.parametrize("one", [one for one in every(BLOCKS) if one[1]], ids=named)
def test_a_spelling_costs_what_the_plain_one_does(one: tuple[str, int], folder: Path) -> None:
    assert of_torch((one,), folder) == plain((one,), folder)


@pytest.mark.parametrize("one", every(TF_BLOCKS), ids=named)
def test_a_spelling_of_tensorflow_costs_what_the_plain_one_does(one: tuple[str, int], folder: Path) -> None:
    assert cost(read_model(tf_network([one]), "pb")) == plain((one,), folder)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("chosen", dealt(12, without(UNEXPORTABLE, every(BLOCKS))))
def test_an_export_costs_what_the_plain_network_does(chosen: Chosen, opset: int, folder: Path) -> None:
    assert of_onnx(chosen, folder, opset) == plain(chosen, folder)


@pytest.mark.parametrize("chosen", dealt(12, without(OF_UNKNOWN_SHAPE, every(BLOCKS))))
def test_graph_ir_costs_what_the_plain_network_does(chosen: Chosen, folder: Path) -> None:
    assert of_nni_ir(chosen, folder) == plain(chosen, folder)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", dealt(16, every(BLOCKS)))
def test_an_export_of_the_newer_exporter_takes_as_long(chosen: Chosen, folder: Path) -> None:
    exported = onnx_of(network(chosen, folder), opset_version=20, dynamo=True)
    # It folds batch norms away, which only changes what kernels are called.
    assert latencies(cost(read_model(exported))) == latencies(plain(chosen, folder))


@settings(max_examples=8, derandomize=True)
@given(st.lists(st.sampled_from(every(BLOCKS)), min_size=3, max_size=8), st.sampled_from([11, 13, 17]))
def test_a_random_network_costs_the_same_in_every_format(
    folder: Path, spelled: list[tuple[str, int]], opset: int
) -> None:
    chosen = tuple(spelled)
    graph = read_model(network(chosen, folder), input_shape=SHAPE)
    assert cost(graph) == plain(chosen, folder)
    assert cost(read_model(to_nnmeter_ir(graph), "nnmeter-ir")) == plain(chosen, folder)
    in_tensorflow = tuple((block, number % len(TF_BLOCKS[block])) for block, number in chosen)
    assert cost(read_model(tf_network(in_tensorflow), "pb")) == plain(chosen, folder)
    exportable = without(UNEXPORTABLE, chosen)
    assert of_onnx(exportable, folder, opset) == plain(exportable, folder)
    known = without(OF_UNKNOWN_SHAPE, chosen)
    assert of_nni_ir(known, folder) == plain(known, folder)
