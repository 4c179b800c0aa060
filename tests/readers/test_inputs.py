"""Inputs of any rank, several at once, in each format and in the command; open sizes come with an example."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnmeter_nas import LatencyWarning
from nnmeter_nas.cli import main
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.readers import read_model
from onnx_models import model, node
from tf_graphs import TfBuilder

pytestmark = pytest.mark.filterwarnings(f"ignore::{LatencyWarning.__module__}.{LatencyWarning.__name__}")

NAMES = ("a", "b", "c", "d", "e")
#: One shape of each rank, NCHW.
SHAPES: list[tuple[int, ...]] = [(4,), (1, 5), (1, 6, 7), (1, 3, 8, 10), (1, 3, 4, 8, 10)]
OPEN: list[tuple[Any, ...]] = [(4,), ("N", 5), ("N", "length", 7), ("N", 3, "h", "w"), ("N", 3, "t", 8, 10)]


class Sum(nn.Module):
    def forward(self, a: Any, b: Any, c: Any, d: Any, e: Any) -> torch.Tensor:
        return a.sum() + b.sum() + c.sum() + d.sum() + e.sum()


def in_onnx(shapes: Sequence[Sequence[Any]]) -> Any:
    sums = [node("ReduceSum", name, f"sum_{name}", keepdims=0) for name in NAMES]
    total = node("Sum", " ".join(f"sum_{name}" for name in NAMES), "y")
    return model([*sums, total], None, dict(zip(NAMES, shapes, strict=True)))


def in_tensorflow(shapes: Sequence[Sequence[Any]]) -> Any:
    """The same network in NHWC; names are open sizes."""
    b = TfBuilder(None)
    for name, shape in zip(NAMES, shapes, strict=True):
        sizes = [-1 if isinstance(size, str) else size for size in shape]
        if len(sizes) > 3:
            sizes.append(sizes.pop(1))
        b.placeholder(name, sizes)
    for name, shape in zip(NAMES, shapes, strict=True):
        b.with_const(f"sum_{name}", "Sum", name, list(range(len(shape))))
    b.add("y", "AddN", [f"sum_{name}" for name in NAMES])
    return b.graph_def


FORMATS: dict[str, Callable[[Sequence[Sequence[Any]]], Any]] = {
    "torch": lambda shapes: Sum(), "onnx": in_onnx, "pb": in_tensorflow,
}  # fmt: skip


def inputs(graph: Any) -> list[tuple[int, ...]]:
    return [data["out_shapes"][0] for _, data in graph.nodes(data=True) if data["op"] == "input"]


@pytest.mark.parametrize("kind", FORMATS)
def test_several_inputs_of_different_rank(kind: str) -> None:
    source = FORMATS[kind](OPEN)
    for given in (
        SHAPES,
        tuple(SHAPES),
        [list(shape) for shape in SHAPES],
        [torch.Size(shape) for shape in SHAPES],
        [tuple(np.array(shape)) for shape in SHAPES],
        dict(zip(NAMES, SHAPES, strict=True)),
    ):
        assert inputs(read_model(source, kind, given)) == SHAPES
    if kind != "torch":
        assert inputs(read_model(FORMATS[kind](SHAPES))) == SHAPES


def test_an_input_may_be_a_number() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            return x * factor

    assert inputs(read_model(Scaled(), "torch", [(1, 3, 8, 8), ()])) == [(1, 3, 8, 8), ()]
    proto = model([node("Mul", "x f", "y")], None, {"x": (1, 3, 8, 8), "f": ()})
    assert inputs(read_model(proto)) == [(1, 3, 8, 8), ()]
    for given in ((), [], {"x": 3}, [(1, True)], [(1, 0)]):
        with pytest.raises(ReaderError, match="is not a shape"):
            read_model(Scaled(), "torch", given)


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        (("length",), "(128,)"),
        (("N", "features"), "(1, 128)"),
        (("N", "length", 768), "(1, 128, 768)"),
        (("N", "c", "h", "w"), "(1, 3, 224, 224)"),
        (("N", 3, "t", "h", "w"), "(1, 3, 16, 112, 112)"),
    ],
)
def test_an_open_size_comes_with_an_example_that_fits(
    shape: tuple[Any, ...], example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = model([node("Relu", "x", "y")], None, {"x": shape})
    way_out = f"pass input_shape, for example input_shape={{'x': {example}}}"
    with pytest.raises(ReaderError, match=re.escape(way_out)):
        read_model(proto)
    path = tmp_path / "open.onnx"
    path.write_bytes(proto.SerializeToString())
    assert main(["predict", str(path)]) == 1
    flags = re.search(r"for example (--input-shape [\d ]+)\n", capsys.readouterr().err)
    assert flags is not None
    assert main(["predict", str(path), *flags[1].split()]) == 0


@pytest.mark.parametrize(("kind", "suffix"), [("onnx", ".onnx"), ("pb", ".pb")])
def test_the_command_gives_and_takes_a_shape_for_each_input(
    kind: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"open{suffix}"
    path.write_bytes(FORMATS[kind](OPEN).SerializeToString())
    assert main(["predict", str(path)]) == 1
    complaint = capsys.readouterr().err
    flags = re.search(r"for example ((?:--input-shape[\d ]+)+)", complaint)
    assert flags is not None
    assert flags[1].count("--input-shape") == len(NAMES)
    assert "input_shape" not in complaint
    assert main(["predict", str(path), *flags[1].split()]) == 0
    capsys.readouterr()
    assert main(["predict", str(path), "--input-shape", "1", "5", "--input-shape", "4"]) == 1
    assert "--input-shape 1 5 --input-shape 4 gives 2 shape(s)" in capsys.readouterr().err


def test_a_vector_has_no_batch_unless_another_input_shares_its_symbol() -> None:
    nodes = [node("ReduceSum", "t", "s", keepdims=0), node("Add", "x s", "y")]
    for symbol, works in (("N", True), ("steps", False)):
        proto = model(nodes, None, {"t": (symbol,), "x": ("N", 8)})
        if works:
            assert inputs(read_model(proto, input_shape={"x": (1, 8)})) == [(1,), (1, 8)]
        else:
            with pytest.raises(ReaderError, match=r"'t' leaves dimension 0 open \(steps\)"):
                read_model(proto)
    b = TfBuilder((-1,))
    b.add("relu", "Relu", ["input"])
    with pytest.raises(ReaderError, match=r"unknown sizes.*\(128,\)"):
        read_model(b.graph_def)


def test_a_volume_in_tensorflow_takes_its_shape_in_ncdhw() -> None:
    b = TfBuilder((-1, -1, -1, -1, 3))
    b.add("conv", "Conv3D", ["input", b.weights("w", 3, 3, 3, 3, 8)], strides=[1, 1, 2, 2, 1], padding="SAME")
    with pytest.raises(ReaderError, match=r"\(1, 3, 16, 112, 112\)"):
        read_model(b.graph_def)
    graph = read_model(b.graph_def, input_shape=(1, 3, 5, 16, 20))
    assert [data["op"] for _, data in graph.nodes(data=True)] == ["input", "conv"]
    assert graph.nodes["conv"]["out_shapes"] == [(1, 8, 5, 8, 10)]
