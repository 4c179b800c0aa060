"""One network, one latency: the readers find the same kernels in every format."""

from __future__ import annotations

import io
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import onnx
import pytest
import torch
from torch import nn

from nnmeter_nas import list_latency_predictors, load_latency_predictor, read_model
from nnmeter_nas.benchmarks.networks import NETWORKS, build_network, input_shape
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models

torch.set_num_threads(1)

#: Small networks, which export in about a second.
FAST = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x1_0")
#: Networks that together cover all kinds of layers; few, because the newer exporter is slow.
DYNAMO = ("alexnet", "efficientnet_b0", "googlenet", "mobilenet_v3_large", "shufflenet_v2_x1_0")

#: Deeper or wider versions of tested networks.
SIBLINGS = {"vgg13", "vgg16", "vgg19", "resnet34", "wide_resnet50_2", "squeezenet1_0", "densenet161"}

SLOW = sorted({*NETWORKS} - {*FAST} - SIBLINGS)

Layers = Counter[tuple[Any, ...]]


@cache
def predictors() -> list[Any]:
    """The bundled predictor of each device."""
    return [load_latency_predictor(card["name"], card["version"]) for card in list_latency_predictors()]


def kernels(kernel_graph: nx.DiGraph) -> Layers:
    """Count kernels by type and shapes, without the batch norms that an export folds."""
    found: Layers = Counter()
    for _, kernel in kernel_graph.nodes(data="kernel"):
        kind = kernel.type
        if kernel.op in ("conv", "dwconv", "convtranspose", "fc"):
            kind = kind.replace("-bn", "")
        attrs = [kernel.attrs.get(name) for name in ("kernel", "stride", "groups")]
        found[(kind, *map(tuple, (kernel.in_shapes, kernel.out_shapes)), *attrs)] += 1
    return found


def assert_agree(one: nx.DiGraph, other: nx.DiGraph) -> None:
    """Assert that two model graphs have the same kernels, number of edges, and latency on every device."""
    assert predictors()
    for predictor in predictors():
        first, second = (predictor.explain(graph) for graph in (one, other))
        assert kernels(first.kernel_graph) == kernels(second.kernel_graph)
        assert first.kernel_graph.number_of_edges() == second.kernel_graph.number_of_edges()
        assert first.latency_ms == pytest.approx(second.latency_ms, rel=1e-9)
        assert Counter(first.unpredicted.values()) == Counter(second.unpredicted.values())


def exported(network: nn.Module, shape: tuple[int, ...], dynamo: bool) -> Any:
    """The network as an ONNX model: as an old exporter with an open batch wrote it, or from today's."""
    if dynamo:
        return torch.onnx.export(network, (torch.zeros(shape),), dynamo=True, verbose=False).model_proto
    buffer = io.BytesIO()
    torch.onnx.export(network, (torch.zeros(shape),), buffer, dynamo=False, opset_version=11,
                      input_names=["x"], dynamic_axes={"x": {0: "N"}})  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning:copyreg")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        *((name, False) for name in FAST),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in DYNAMO),
    ],
)
def test_network_is_the_same_through_torch_and_onnx(name: str, dynamo: bool) -> None:
    network, shape = build_network(name), input_shape(name)
    assert_agree(read_model(network, input_shape=shape), read_model(exported(network, shape, dynamo)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", FAST)
def test_module_script_and_exported_program_give_the_same_network(name: str) -> None:
    network, shape = build_network(name), input_shape(name)
    graph = read_model(network, input_shape=shape)
    traced = torch.jit.trace(network, torch.zeros(shape))
    program = torch.export.export(network, (torch.zeros(shape),))
    assert_agree(graph, read_model(traced, "torch", shape))
    assert_agree(graph, read_model(program, "torch"))


def layers(graph: nx.DiGraph) -> Layers:
    """Count convolutions and dense layers by operator, shapes without the batch, kernel and stride."""
    return Counter(
        (data["op"], *(data[shapes][0][1:] for shapes in ("in_shapes", "out_shapes")),
         *(data["attrs"].get(name) for name in ("kernel", "stride")))
        for _, data in graph.nodes(data=True)
        if data["op"] in ("conv", "dwconv", "fc")
    )


def bench_layers(bench_dir: Path, family: str) -> Layers:
    """The layers of a family's standard network, as measured."""
    for path in dataset_files(bench_dir):
        for model in iter_models(path):
            if model.id == f"{family}_0":
                return layers(read_model(model.graph, "nnmeter-ir"))
    raise AssertionError(f"{family}_0 is not in {bench_dir}")


def own_layers(name: str) -> Layers:
    with torch.device("meta"):
        network = build_network(name)
    return layers(read_model(network, input_shape=input_shape(name)))


#: An extra convolution of the measured MobileNetV2 and ProxylessNAS before their first depthwise one. It does
#: not expand the channels.
IDLE_EXPANSION = ("conv", (32, 112, 112), (32, 112, 112), (1, 1), (1, 1))


@pytest.mark.parametrize(
    ("name", "family", "more_measured"),
    [
        ("shufflenet_v2_x1_0", "shufflenetv2", []),
        ("mobilenet_v2", "mobilenetv2", [IDLE_EXPANSION]),
        ("proxylessnas", "proxylessnas", [IDLE_EXPANSION]),
    ],
)
def test_reference_network_has_the_layers_of_the_measured_one(
    bench_dir: Path, name: str, family: str, more_measured: list[tuple[Any, ...]]
) -> None:
    assert own_layers(name) + Counter(more_measured) == bench_layers(bench_dir, family)


def test_googlenet_differs_from_the_measured_one_only_in_its_5x5_kernels(bench_dir: Path) -> None:
    """The third branch of a module is 3x3 in the published weights, but 5x5 in the paper and as measured."""
    own, measured = own_layers("googlenet"), bench_layers(bench_dir, "googlenet")
    fewer, more = own - measured, measured - own
    assert sum(more.values()) == 9
    assert {kernel for *_, kernel, _ in more} == {(5, 5)}
    assert Counter({(*rest, (3, 3), stride): n for (*rest, _, stride), n in more.items()}) == fewer


def test_densenet_differs_from_the_measured_one_only_at_its_end(bench_dir: Path) -> None:
    """The measured network also halves its channels before the classifier."""
    own, measured = own_layers("densenet121"), bench_layers(bench_dir, "densenet")
    assert own - measured == Counter([("fc", (1024,), (1000,), None, None)])
    assert measured - own == Counter([
        ("conv", (1024, 7, 7), (512, 7, 7), (1, 1), (1, 1)), ("fc", (512,), (1000,), None, None),
    ])  # fmt: skip
