"""The comparison with nn-Meter finds all differences and allows only the deliberate ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from graphs import graph_of
from nnmeter_nas import LatencyPredictor
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.parity.comparison import Comparison, Model, compare, import_forests
from nnmeter_nas.benchmarks.parity.predictors import write_predictor
from nnmeter_nas.packs.nnmeter1.predictors import FEATURES, forest_name

CPU = "cortexA76cpu_tflite21"
MODEL = Model("small", "nnmeter-ir", Path("small.json"))
CONV: dict[str, Any] = {"kernel": (3, 3), "padding": "same", "out_channels": 8}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> LatencyPredictor:
    folder = tmp_path_factory.mktemp("forests")
    [predictor] = import_forests({CPU: write_predictor(folder / "pickled", CPU)}, folder)
    return predictor


def small(groups: int = 1) -> nx.DiGraph:
    return graph_of(
        ("c", "conv", ["x"], {**CONV, "groups": groups}),
        ("r", "relu", ["c"]),
        ("p", "maxpool", ["r"], {"kernel": (2, 2), "stride": (2, 2)}),
        ("g", "globalavgpool", ["p"]),
    )


def as_nnmeter(predictor: LatencyPredictor, graph: nx.DiGraph) -> dict[str, Any]:
    """The result of nn-Meter if it read ``graph`` as we do."""
    nodes = predictor.explain(graph).kernel_graph.nodes
    kernels = [
        {
            "type": k.type,
            "row": FEATURES[forest_name(k)](k),
            "predicted": True,
            "ms": nodes[name]["latency_ms"],
        }
        for name, k in nodes(data="kernel")
    ]
    return {"total": sum(kernel["ms"] for kernel in kernels), "kernels": kernels}


def compared(predictor: LatencyPredictor, theirs: dict[str, Any], groups: int = 1) -> Comparison:
    return compare(MODEL, small(groups), predictor, theirs)


def test_equal_kernels_and_totals_compare_equal(predictor: LatencyPredictor) -> None:
    found = compared(predictor, as_nnmeter(predictor, small()))
    assert (found.kernels, found.reasons, found.unexplained) == (3, (), "")
    assert found.totals == f"{found.ours_ms:.3f}"


@pytest.mark.parametrize("position", range(3))
def test_different_kernel_is_found(predictor: LatencyPredictor, position: int) -> None:
    for change in ({"type": "relu"}, {"row": [1.0, 2.0]}, {"predicted": False}):
        theirs = as_nnmeter(predictor, small())
        theirs["kernels"][position].update(change)
        assert compared(predictor, theirs).verdicts == ("UNEXPLAINED",)


def test_missing_kernel_is_found(predictor: LatencyPredictor) -> None:
    theirs = as_nnmeter(predictor, small())
    theirs["kernels"].append(theirs["kernels"][0])
    assert "nn-Meter's ('conv-relu'" in compared(predictor, theirs).unexplained
    theirs["kernels"] = theirs["kernels"][1:3]
    assert "ours ('conv-relu'" in compared(predictor, theirs).unexplained


def test_total_that_differs_from_its_kernels_is_found(predictor: LatencyPredictor) -> None:
    theirs = as_nnmeter(predictor, small())
    theirs["total"] *= 1 + 1e-6
    assert "a total of" in compared(predictor, theirs).unexplained


def test_model_that_fails_in_nnmeter_is_found(predictor: LatencyPredictor) -> None:
    found = compared(predictor, {"error": "KeyError: 'type'"})
    assert found.unexplained == "KeyError: 'type'"
    assert math.isnan(found.theirs_ms)


def test_only_deliberate_differences_pass_and_they_are_named(predictor: LatencyPredictor) -> None:
    theirs = as_nnmeter(predictor, small())
    found = compared(predictor, theirs, groups=2)
    assert (found.verdicts, found.unexplained) == (("groups",), "")
    assert " / " in found.totals
    theirs["kernels"][1]["row"] = [1.0] * 5
    assert "maxpool" in compared(predictor, theirs, groups=2).unexplained


def test_command_without_nnmeter_says_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    arguments = ["--nnmeter", str(tmp_path / "python"), "--format", "onnx", "--network", "squeezenet1_1"]
    assert main(["parity", *arguments, "--predictor", CPU]) == 1
    assert "make parity" in " ".join(capsys.readouterr().err.split())
