"""What XNNPACK ran, as TFLite's profiler tells it, becomes kernels of the model graph."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")

from litert_profile import litert_profile
from nnmeter_nas.backends.adb.benchmark import Row, rows
from nnmeter_nas.backends.adb.kernels import kernels_of
from nnmeter_nas.backends.adb.xnnpack import operators_of_rows
from nnmeter_nas.backends.base import KernelTime
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.readers.tflite.file import Operator, read_operators
from nnmeter_nas.readers.tflite.writer import to_tflite

#: What XNNPACK calls kernels of convolutions that look at one position, and at several.
POINT, WINDOW = "Fully Connected", ("IGEMM", "DWConv")


@pytest.mark.parametrize("seed", [0, 3, 7, 11])
def test_rows_of_the_real_xnnpack_are_laid_beside_the_operators(seed: int, tmp_path: Path) -> None:
    graph = random_network(seed)
    path = tmp_path / "network.tflite"
    path.write_bytes(to_tflite(graph))
    table = rows(litert_profile(path))
    assert all(row.inside for row in table)
    kernels = kernels_of(table, lambda: read_operators(path))
    assert kernels is not None
    assert sum(kernel.ms for kernel in kernels) == pytest.approx(sum(row.ms for row in table))
    kind_of = {name: kernel.kind for kernel in kernels for name in kernel.operators}
    assert kind_of.keys() <= graph.nodes.keys()
    convolutions = 0
    for name, data in graph.nodes(data=True):
        owner = name
        while owner not in kind_of and graph.out_degree(owner) == 1:
            [owner] = graph.successors(owner)  # a batch norm or an activation gives the kernel its name
        if data["op"] in ("conv", "dwconv") and data["attrs"]["kernel"] != (1, 1):
            convolutions += 1
            assert any(word in kind_of[owner] for word in WINDOW)
        elif data["op"] == "fc":
            assert POINT in kind_of[owner]
    assert convolutions


#: A padding and a convolution; a convolution and its activation; a concatenation of both; a layer of neurons.
FILE = [
    Operator("PAD", ("x", "conv_1/1"), ("conv_1/2",)),
    Operator("CONV_2D", ("conv_1/2",), ("conv_1",)),
    Operator("CONV_2D", ("x",), ("conv_2",)),
    Operator("RELU", ("conv_2",), ("relu_3",)),
    Operator("CONCATENATION", ("conv_1", "relu_3"), ("concat_4",)),
    Operator("FULLY_CONNECTED", ("concat_4",), ("fc_5",)),
]


def inside(*kinds: str) -> list[Row]:
    """Rows of these kinds, each of 1 ms."""
    return [Row(kind, 1.0, "Delegate", True) for kind in kinds]


def test_what_joins_a_neighbour_needs_no_row() -> None:
    conv, fc = "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM"
    assert kernels_of(inside(conv, conv, fc), lambda: FILE) == [
        KernelTime(("conv_1",), conv, 1.0),
        KernelTime(("conv_2", "relu_3"), conv, 1.0),
        KernelTime(("fc_5",), fc, 1.0),
    ]
    pad, clamp, copy, view = "Constant Pad (ND, X32)", "Clamp (NC)", "Copy (NC, X32)", "Static Reshape (NC)"
    rows = inside(pad, conv, conv, clamp, copy, copy, view, fc)
    assert operators_of_rows(rows, FILE) == [0, 1, 2, 3, 4, 4, 5, 5]
    assert kernels_of(rows, lambda: FILE) == [
        KernelTime(("conv_1",), f"{pad} + {conv}", 2.0),
        KernelTime(("conv_2",), conv, 1.0),
        KernelTime(("relu_3",), clamp, 1.0),
        KernelTime(("concat_4",), copy, 2.0),
        KernelTime(("fc_5",), f"{view} + {fc}", 2.0),
    ]


def test_operators_that_the_delegate_left_have_names_of_their_own() -> None:
    conv, fc = "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM"
    rows = [
        Row("TfLiteXNNPackDelegate", 2.0, "conv_2", False),
        Row("RELU", 0.5, "relu_3", False),
        *inside(conv, conv, fc),
    ]
    kernels = kernels_of(rows, lambda: FILE)
    assert kernels is not None
    assert kernels[0] == KernelTime(("relu_3",), "RELU", 0.5)
    assert [kernel.operators for kernel in kernels[1:]] == [("conv_1",), ("conv_2",), ("fc_5",)]


@pytest.mark.parametrize(
    "kinds", [["Convolution (NHWC, F32) GEMM"] * 2, ["Convolution (NHWC, F32) GEMM"] * 3, ["Copy (NC, X32)"]]
)
def test_sequences_that_do_not_fit_tell_nothing(kinds: list[str]) -> None:
    assert kernels_of(inside(*kinds), lambda: FILE) is None
