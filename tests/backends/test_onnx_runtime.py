"""onnxruntime: it runs our networks, and what it tells of its kernels leads back to their operators."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")
pytest.importorskip("onnx")

from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.ops import VIEW_OPS


@pytest.mark.parametrize("seed", range(12))
def test_every_operator_is_in_a_kernel(seed: int, tmp_path: Path) -> None:
    backend, graph = load_backend("onnxruntime"), random_network(seed)
    backend.write(graph, tmp_path / "network.onnx")
    session = backend.load(tmp_path / "network.onnx")
    assert 0 < session.run() < math.inf
    kernels = session.kernels(2)  # type: ignore[attr-defined]
    found = [name for kernel in kernels for name in kernel.operators]
    computed = {name for name, op in graph.nodes(data="op") if op not in VIEW_OPS and op != "input"}
    assert computed <= set(found)
    assert all(kernel.ms >= 0 for kernel in kernels)


@pytest.mark.parametrize(
    ("after", "fused"),
    [("relu", True), ("hswish", True), ("relu6", True), ("gelu", False), ("avgpool", False)],
)
def test_what_follows_a_convolution_is_where_the_runtime_runs_it(
    after: str, fused: bool, tmp_path: Path
) -> None:
    graph = new_graph()
    conv = {"out_channels": 32, "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "bias": True}
    add_op(graph, "conv", "conv", [add_input(graph, "x", (1, 16, 32, 32))], conv)
    add_op(graph, "bn", "bn", ["conv"])
    attrs = {"kernel": (2, 2), "stride": (2, 2)} if after == "avgpool" else {}
    add_op(graph, "after", after, ["bn"], attrs)
    add_op(graph, "last", "conv", ["after"], conv)
    backend = load_backend("onnxruntime")
    backend.write(finish(graph), tmp_path / "network.onnx")
    kernels = backend.load(tmp_path / "network.onnx").kernels(2)  # type: ignore[attr-defined]
    groups = sorted(kernel.operators for kernel in kernels)
    assert groups == [*([("after", "bn", "conv")] if fused else [("after",), ("bn", "conv")]), ("last",)]


@pytest.mark.parametrize("operands", [("bn2", "relu1"), ("relu1", "bn2")])
def test_a_sum_is_in_the_kernel_of_the_convolution_that_takes_it_in(
    operands: tuple[str, str], tmp_path: Path
) -> None:
    """Not in that of the other operand, which is computed before."""
    graph = new_graph()
    conv = {"out_channels": 32, "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "bias": True}
    add_op(graph, "conv1", "conv", [add_input(graph, "x", (1, 32, 16, 16))], conv)
    add_op(graph, "relu1", "relu", ["conv1"])
    add_op(graph, "conv2", "conv", ["relu1"], conv)
    add_op(graph, "bn2", "bn", ["conv2"])
    add_op(graph, "add", "add", list(operands))
    add_op(graph, "relu2", "relu", ["add"])
    add_op(graph, "last", "conv", ["relu2"], conv)
    backend = load_backend("onnxruntime")
    backend.write(finish(graph), tmp_path / "network.onnx")
    kernels = backend.load(tmp_path / "network.onnx").kernels(2)  # type: ignore[attr-defined]
    assert sorted(kernel.operators for kernel in kernels) == [
        ("add", "bn2", "conv2", "relu2"), ("conv1", "relu1"), ("last",),
    ]  # fmt: skip
