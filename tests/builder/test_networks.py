"""Random networks: their seed decides them, and a file of one is the same network to a reader."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.onnx.writer import operator_of, to_onnx

pytest.importorskip("onnx")
DEVICE = "cortexA76cpu_tflite21"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_written_network_reads_as_it_was(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    graph = random_network(seed)
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    path.write_bytes(to_onnx(graph))
    predictor = load_latency_predictor(DEVICE)
    assert predictor.predict(read_model(path)) == pytest.approx(predictor.predict(graph), rel=1e-9)


def test_a_seed_decides_the_network_and_its_file() -> None:
    graph = random_network(5)
    random_network.cache_clear()
    assert to_onnx(random_network(5)) == to_onnx(graph)
    assert to_onnx(random_network(6)) != to_onnx(graph)


def test_networks_have_every_kernel_type_that_people_search() -> None:
    found: Counter[str] = Counter()
    predictor = load_latency_predictor(DEVICE)
    for seed in range(60):
        kernels = predictor.pack.kernel_graph(random_network(seed)).nodes(data="kernel")
        found.update({kernel_type(kernel) for _, kernel in kernels})
    wanted = {
        "conv", "dwconv", "fc", "bn", "relu", "hswish", "se", "add", "concat", "split", "channelshuffle",
        "maxpool", "avgpool", "globalavgpool", "matmul", "softmax", "norm", "gelu", "swish", "upsample",
        "convtranspose", "pixelshuffle", "transpose",
    }  # fmt: skip
    assert wanted <= set(found), f"missing: {wanted - set(found)}"


def test_nodes_of_the_file_lead_back_to_operators() -> None:
    onnx = pytest.importorskip("onnx")
    for seed in range(5):
        graph = random_network(seed)
        nodes = onnx.load_from_string(to_onnx(graph)).graph.node
        assert {operator_of(node.name) for node in nodes} == set(graph) - {"input"}


def test_what_cannot_be_written_is_named() -> None:
    graph = new_graph()
    add_op(graph, "odd", "lrn", [add_input(graph, "x", (1, 8, 4, 4))], {"size": 5})
    with pytest.raises(ReaderError, match="'odd': an operator 'lrn' cannot be written to ONNX"):
        to_onnx(finish(graph))


def test_a_runtime_computes_the_shapes_that_we_infer(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")
    for seed in range(8):
        graph = random_network(seed)
        session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
        [given] = session.get_inputs()
        [result] = session.get_outputs()
        assert tuple(given.shape) == graph.nodes["input"]["out_shapes"][0]
        assert tuple(result.shape) == graph.nodes[graph.graph["outputs"][0]]["out_shapes"][0]
