"""Deliberate differences between version 1.0 and nn-Meter: our behaviour, and the documented one of nn-Meter.

``docs/parity.md`` gives the reasons. The last tests run nn-Meter itself, if ``make parity`` has set it up.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from graphs import graph_of
from ir import IrBuilder
from layout import REPOSITORY
from nnmeter_nas import read_model
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.parity.comparison import Model, compare, import_forests, run_nnmeter
from nnmeter_nas.benchmarks.parity.predictors import nnmeter_rules, write_predictor
from nnmeter_nas.kernels.fusion import fuse
from nnmeter_nas.packs.nnmeter1.predictors import FEATURES, forest_name
from nnmeter_nas.packs.nnmeter1.rules import parse_nnmeter_rules
from nnmeter_nas.packs.registry import devices

CPU = "cortexA76cpu_tflite21"
RULES = parse_nnmeter_rules(nnmeter_rules(devices()[CPU]["fusion_rules"]))
#: An interpreter that imports nn-Meter 2.0.
NNMETER = Path(os.environ.get("NNMETER_PYTHON", REPOSITORY / ".venv-nnmeter/bin/python"))

#: A kernel that a forest predicts: type and features.
Predicted = tuple[str, list[float]]


@dataclass(frozen=True)
class Case:
    """A model and its kernels that a forest predicts, ours and nn-Meter's."""

    ir: dict[str, Any]
    ours: list[Predicted]
    theirs: list[Predicted]


def predicted(graph: nx.DiGraph) -> list[Predicted]:
    """Our kernels that a forest predicts."""
    kernels = [kernel for _, kernel in fuse(graph, RULES).nodes(data="kernel")]
    return [(k.type, FEATURES[name](k)) for k in kernels if (name := forest_name(k)) in FEATURES]


def convolution(
    shape: tuple[int, ...],
    window: tuple[int, int],
    groups: int = 1,
    strides: tuple[int, int] = (1, 1),
    declared: tuple[int, ...] = (),
) -> dict[str, Any]:
    """A SAME convolution from 16 to 16 channels, which may declare a wrong shape."""
    b = IrBuilder(shape)
    weights = [*window, 16 // groups, 16]
    attrs = {"weight_shape": weights, "strides": list(strides), "padding": "SAME", "group": groups}
    batch, height, width, channels = shape
    b.add("c", "Conv2D", ["input"], (batch, height // strides[0], width // strides[1], channels), attrs)
    if declared:
        b.nodes["c"]["attr"].update(input_shape=[list(declared)], output_shape=[list(declared)])
    return b.nodes


def after_convolution(*kinds: str) -> dict[str, Any]:
    """A 1x1 convolution followed by a chain of operators."""
    b = IrBuilder((1, 8, 8, 16))
    last = b.conv("c", "input", 16, 1)
    for i, kind in enumerate(kinds):
        last = b.unary(f"{kind}{i}", kind, last)
    return b.nodes


def hswish_by_hsigmoid() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.unary("m", "Mul", "input", b.unary("gate", "HardSigmoid", "input"))
    return b.nodes


def hsigmoid_alone() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.const("three", [], [3.0])
    b.const("sixth", [], [1 / 6])
    b.unary("shift", "Add", b.conv("c", "input", 16, 1), "three")
    b.unary("scale", "Mul", b.unary("clip", "Relu6", "shift"), "sixth")
    return b.nodes


def squeeze_excite_without_bias() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.pool("p", "input", "AvgPool", 8)
    b.unary("r", "Relu", b.conv("squeeze", "p", 4, 1))
    b.const("three", [], [3.0])
    b.const("sixth", [], [1 / 6])
    b.unary("shift", "Add", b.conv("expand", "r", 16, 1), "three")
    b.unary("scale", "Mul", b.unary("clip", "Relu6", "shift"), "sixth")
    b.unary("m", "Mul", "input", "scale")
    return b.nodes


def chain_read_in_the_middle() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.unary("b", "FusedBatchNorm", b.conv("c", "input", 16, 1))
    b.unary("r", "Relu", "b")
    b.add("p", "MaxPool", ["b"], (1, 4, 4, 16), {"ksize": [2, 2], "strides": [2, 2], "padding": "SAME"})
    return b.nodes


def branch_of_zeros() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.const("zero", [], [0.0])
    pool = {"ksize": [2, 2], "strides": [1, 1], "padding": "SAME"}
    b.unary("none", "Mul", b.add("p", "MaxPool", ["input"], (1, 8, 8, 16), pool), "zero")
    b.unary("a", "Add", b.conv("c", "input", 16, 1), "none")
    return b.nodes


def broadcast_sum() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.pool("p", "input", "AvgPool", 8)
    b.add("a", "Add", ["p", "input"], (1, 8, 8, 16), {})
    return b.nodes


def nested_concatenation() -> dict[str, Any]:
    b = IrBuilder((1, 8, 8, 16))
    b.unary("r", "Relu", "input")
    b.add("inner", "ConcatV2", ["input", "r"], (1, 8, 8, 32), {"axis": 3})
    b.add("outer", "ConcatV2", ["inner", "r"], (1, 8, 8, 48), {"axis": 3})
    return b.nodes


def dense_layer_over_positions() -> dict[str, Any]:
    b = IrBuilder((1, 64, 16))
    b.add("f", "MatMul", ["input"], (1, 64, 4), {})
    return b.nodes


#: A 1x1 convolution of 16 channels into 16 on a map of 8x8: 16 * 17 = 272 weights, 2 * 64 * 272 operations.
POINTWISE = [8, 16, 16, 1, 1, 0.017408, 0.000272]
#: The same with a 3x3 window: 16 * 145 = 2320 weights.
DENSE_3X3 = [8, 16, 16, 3, 1, 0.14848, 0.00232]

CASES = {
    # 16 * (9 * 4 + 1) = 592 weights
    "groups": Case(
        convolution((1, 8, 8, 16), (3, 3), groups=4),
        [("conv", [8, 4, 16, 3, 1, 0.037888, 0.000592])],
        [("conv", DENSE_3X3)],
    ),
    # 4 * 16 positions have the area of 8 * 8; nn-Meter takes 4 * 4.
    "map that is no square": Case(
        convolution((1, 4, 16, 16), (1, 1)),
        [("conv", POINTWISE)],
        [("conv", [4, 16, 16, 1, 1, 0.004352, 0.000272])],
    ),
    # 16 * (7 * 16 + 1) = 1808 weights; nn-Meter takes a window of 7 * 7, thus 12560.
    "window that is no square": Case(
        convolution((1, 8, 8, 16), (1, 7)),
        [("conv", [8, 16, 16, math.sqrt(7), 1, 0.115712, 0.001808])],
        [("conv", [8, 16, 16, 7, 1, 0.80384, 0.01256])],
    ),
    # 2 * 8 * 4 * 272 operations; nn-Meter takes 2 * 4 * 4 * 272.
    "stride that is no square": Case(
        convolution((1, 8, 8, 16), (1, 1), strides=(1, 2)),
        [("conv", [8, 16, 16, 1, math.sqrt(2), 0.008704, 0.000272])],
        [("conv", [8, 16, 16, 1, 2, 0.004352, 0.000272])],
    ),
    "shapes that the file has wrong": Case(
        convolution((1, 8, 8, 16), (3, 3), declared=(1, 4, 4, 16)),
        [("conv", DENSE_3X3)],
        [("conv", [4, 16, 16, 3, 1, 0.03712, 0.00232])],
    ),
    "bias as an operator": Case(
        after_convolution("BiasAdd", "Relu"),
        [("conv-relu", POINTWISE)],
        [("conv", POINTWISE), ("relu", [8, 16])],
    ),
    "operator that does nothing": Case(
        after_convolution("Dropout", "Relu"),
        [("conv-relu", POINTWISE)],
        [("conv", POINTWISE), ("relu", [8, 16])],
    ),
    "h-swish as one operator": Case(
        after_convolution("Sigmoid", "HardSwish"),
        [("conv", POINTWISE), ("hswish", [8, 16])],
        [("conv", POINTWISE)],
    ),
    "h-swish by h-sigmoid": Case(hswish_by_hsigmoid(), [("hswish", [8, 16])], []),
    "h-sigmoid by itself": Case(
        hsigmoid_alone(),
        [("conv", POINTWISE)],
        [("conv", POINTWISE), ("add-relu", [8, 16, 16])],
    ),
    "squeeze-excite without bias": Case(
        squeeze_excite_without_bias(),
        [("se", [8, 16])],
        [
            ("avgpool", [8, 16, 16, 8, 8]),
            ("conv-relu", [1, 16, 4, 1, 1, 0.000068, 0.000068]),
            ("conv-hswish", [1, 4, 16, 1, 1, 0.00008, 0.00008]),
        ],
    ),
    "chain that is read in the middle": Case(
        chain_read_in_the_middle(),
        [("conv-bn", POINTWISE), ("relu", [8, 16]), ("maxpool", [8, 16, 16, 2, 2])],
        [("conv-bn-relu", POINTWISE), ("maxpool", [8, 16, 16, 2, 2])],
    ),
    "branch of zeros": Case(
        branch_of_zeros(),
        [("conv", POINTWISE)],
        [("maxpool", [8, 16, 16, 2, 1]), ("conv", POINTWISE), ("add", [8, 16, 16])],
    ),
    "sum that is broadcast": Case(
        broadcast_sum(),
        [("avgpool", [8, 16, 16, 8, 8]), ("add", [8, 16, 16])],
        [("avgpool", [8, 16, 16, 8, 8]), ("add", [1, 16, 16])],
    ),
    "nested concatenation": Case(
        nested_concatenation(),
        [("concat", [8, 3, 16, 16, 16, 0]), ("relu", [8, 16])],
        [("concat", [8, 2, 16, 16, 0, 0]), ("concat", [8, 2, 32, 16, 0, 0]), ("relu", [8, 16])],
    ),
    # A 1x1 convolution with 4 * 17 = 68 weights; nn-Meter takes one position, (2 * 16 + 1) * 4 = 132.
    "dense layer over positions": Case(
        dense_layer_over_positions(),
        [("fc", [8, 16, 4, 1, 1, 0.004352, 0.000068])],
        [("fc", [16, 4, 0.000066, 0.000132])],
    ),
}


def same(found: list[Predicted], expected: list[Predicted]) -> None:
    found, expected = (sorted(kernels, key=lambda kernel: kernel[0]) for kernels in (found, expected))
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, row), (_, wanted) in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted)


@pytest.mark.parametrize("name", CASES)
def test_documented_difference_holds(name: str) -> None:
    same(predicted(read_model(CASES[name].ir)), CASES[name].ours)


def test_model_output_ends_its_kernel() -> None:
    convolution = ("c", "conv", ["x"], {"kernel": (3, 3), "out_channels": 8})
    both = graph_of(convolution, ("r", "relu", ["c"]), outputs=["c", "r"])
    assert [name for name, _ in predicted(both)] == ["conv", "relu"]
    assert [name for name, _ in predicted(graph_of(convolution, ("r", "relu", ["c"])))] == ["conv-relu"]


def test_one_dimensional_convolution_is_read_as_a_map_of_width_1() -> None:
    graph = graph_of(
        ("c", "conv", ["x"], {"kernel": (9,), "padding": "same", "out_channels": 4}), shape=(1, 2, 64)
    )
    # 4 * (9 * 2 + 1) = 76 weights, 2 * 64 * 76 operations
    assert predicted(graph) == [("conv", [8, 2, 4, 3, 1, 0.004864, 0.000076])]


def test_sum_with_a_constant_has_one_operand() -> None:
    for constant in ({"const": 2.0}, {"const_shape": (1, 8, 1, 1)}):
        assert predicted(graph_of(("a", "add", ["x"], constant))) == [("add", [8, 8, 8])]


def test_squeeze_excite_with_a_sigmoid_gate_is_recognised() -> None:
    graph = graph_of(
        ("p", "globalavgpool", ["x"]),
        ("s", "conv", ["p"], {"kernel": (1, 1), "out_channels": 2}),
        ("a", "swish", ["s"]),
        ("e", "conv", ["a"], {"kernel": (1, 1), "out_channels": 8}),
        ("g", "sigmoid", ["e"]),
        ("m", "mul", ["x", "g"]),
    )
    assert predicted(graph) == [("se", [8, 8])]


# nn-Meter itself


@pytest.fixture(scope="module")
def nnmeter() -> Path:
    """The interpreter that can import nn-Meter."""
    if not NNMETER.exists():
        pytest.skip(f"nn-Meter is not set up: no {NNMETER}; `make parity` sets it up")
    return NNMETER


@pytest.fixture(scope="module")
def predictor_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_predictor(tmp_path_factory.mktemp("forests"), CPU)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nnmeter_behaves_as_documented(
    name: str, nnmeter: Path, predictor_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(CASES[name].ir))
    found = run_nnmeter(nnmeter, {CPU: predictor_folder}, path, tmp_path)[CPU]
    same([(k["type"], k["row"]) for k in found["kernels"] if k["predicted"]], CASES[name].theirs)


@pytest.mark.slow
def test_official_file_with_squeeze_excite_is_read_like_nnmeter(
    nnmeter: Path, predictor_folder: Path, shared_dir: Path, tmp_path: Path
) -> None:
    path = shared_dir / "data" / "samples" / "mobilenetv3small_0.json"
    theirs = run_nnmeter(nnmeter, {CPU: predictor_folder}, path, tmp_path)[CPU]
    [predictor] = import_forests({CPU: predictor_folder}, tmp_path)
    found = compare(Model("mobilenetv3small", "nnmeter-ir", path), read_model(path), predictor, theirs)
    assert (found.kernels, found.reasons, found.unexplained) == (60, (), "")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_and_totals_of_reference_networks_match_nnmeter(
    nnmeter: Path, bench_dir: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("<!-- parity: begin --><!-- parity: end -->")
    networks = ["mobilenetv2_0", "mobilenetv3large_0", "squeezenet1_1", "resnext50_32x4d"]
    arguments = ["parity", "--nnmeter", str(nnmeter), "--bench", str(bench_dir), "--output", str(report)]
    assert main([*arguments, "--network", *networks]) == 0
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in report.read_text().splitlines()[3:-1]
    ]
    assert {(name, how): reasons for name, how, *_, reasons in cells} == {
        ("mobilenetv2_0", "nnmeter-ir"): "",
        ("mobilenetv3large_0", "nnmeter-ir"): "squeeze-excite",
        ("squeezenet1_1", "onnx"): "",
        ("squeezenet1_1", "torch"): "",
        ("resnext50_32x4d", "onnx"): "groups",
        ("resnext50_32x4d", "torch"): "groups",
    }
