"""An operator that the package has never heard of, declared in this one file, is known everywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

pytest.importorskip("nni.retiarii", reason="reads what NNI 2.10 makes")

import nni.retiarii.nn.pytorch as nn
from nni.retiarii import basic_unit

from nnmeter_nas import LatencyPredictor, read_model
from nnmeter_nas.benchmarks.packs.pack_training import Plan, train_packs
from nnmeter_nas.graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.work import flops_by_operator, params_by_operator
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.ops import OPERATORS, Node, Shape, Work, kernel_of, only, operator
from nnmeter_nas.packs import load_pack
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from onnx_models import model, node
from recorded import nni_ir_of
from synthetic_bench import CPU
from tf_graphs import TfBuilder

SHAPE = (1, 8, 12, 10)
#: The shape that it makes of that.
MIXED = (1, 8, 12, 5)


def macs_of_mix(mixed: Node) -> int:
    """A product for each value of a stride."""
    return mixed["attrs"]["stride"] * math.prod(mixed["out_shapes"][0])


@operator("mix", attrs="stride", torch="made_up::mix", modules=f"{__name__}.Mix", onnx="made.up.Mix",
          tensorflow="MadeUpMix", nnmeter="MadeUpMix", macs=macs_of_mix, keeps_zeros=True, kernel="mixing",
          rule="conv")
def mix(shapes: list[Shape], attrs: dict[str, Any]) -> list[Shape]:
    """Means of as many neighbours in a row as ``stride`` says."""
    *lead, width = only(shapes)
    return [(*lead, width // attrs["stride"])]


@torch.library.custom_op("made_up::mix", mutates_args=())
def mix_in_torch(x: torch.Tensor, stride: int) -> torch.Tensor:
    """What torch computes."""
    return x.unflatten(-1, (-1, stride)).mean(-1)


@mix_in_torch.register_fake
def shape_in_torch(x: torch.Tensor, stride: int) -> torch.Tensor:
    """The shape that torch sees while it traces."""
    return x.new_empty((*x.shape[:-1], x.shape[-1] // stride))


@basic_unit
class Mix(torch.nn.Module):
    """The operator as a layer, which NNI does not look into."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, [1, 2])


class Functional(torch.nn.Module):
    """A network that calls the operator, and ReLU behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``SHAPE -> MIXED``."""
        return torch.relu(torch.ops.made_up.mix(x, 2))


class Layers(nn.Module):
    """The same network of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.act = Mix(2), nn.ReLU()

    def forward(self, x):
        return self.act(self.mix(x))


def in_torch() -> Any:
    return read_model(Functional(), input_shape=SHAPE)


def in_onnx() -> Any:
    nodes = [node("Mix", "x", "m", domain="made.up", stride=2), node("Relu", "m", "y")]
    return read_model(model(nodes, inputs={"x": SHAPE}, domains=[helper.make_opsetid("made.up", 1)]))


def in_nni_ir() -> Any:
    return read_model(nni_ir_of(Layers(), SHAPE))


def in_tensorflow() -> Any:
    b = TfBuilder((1, 12, 10, 8))
    b.add("y", "Relu", [b.add("m", "MadeUpMix", ["input"], stride=2)])
    return read_model(b.graph_def)


def in_nnmeter_ir() -> Any:
    return read_model(to_nnmeter_ir(in_torch()))


@pytest.mark.parametrize("read", [in_torch, in_onnx, in_tensorflow, in_nni_ir, in_nnmeter_ir])
def test_it_is_read_fused_counted_and_typed_in_every_format(read: Callable[[], Any]) -> None:
    graph = read()
    [(name, mixed)] = [(name, data) for name, data in graph.nodes(data=True) if data["op"] == "mix"]
    assert (mixed["in_shapes"], mixed["out_shapes"], mixed["attrs"]) == ([SHAPE], [MIXED], {"stride": 2})
    assert flops_by_operator(graph)[name] == 2 * 2 * math.prod(MIXED)
    assert params_by_operator(graph)[name] == 0
    [kernel] = [data["kernel"] for _, data in fuse(graph, parse_rules(["conv->relu"])).nodes(data=True)]
    assert kernel.type == "mix-relu"


def test_its_kernel_has_the_type_and_the_work_that_it_declares() -> None:
    graph = in_torch()
    [mixed] = [data for _, data in graph.nodes(data=True) if data["op"] == "mix"]
    assert kernel_of("mix") == "mixing"
    assert OPERATORS["mix"].work(mixed) == Work(2 * math.prod(MIXED), math.prod(SHAPE), math.prod(MIXED), 0)
    [kernel] = [data["kernel"] for _, data in fuse(graph, parse_rules(["conv->relu"])).nodes(data=True)]
    assert kernel_type(kernel) == "mixing"


def test_it_is_written_to_nn_meter_ir_with_its_attributes() -> None:
    [record] = [r["attr"] for r in to_nnmeter_ir(in_torch()).values() if r["attr"]["type"] == "MadeUpMix"]
    assert record["attr"] == {"stride": 2}
    assert record["output_shape"] == [[1, 12, 5, 8]]


def test_zeros_go_through_it() -> None:
    class Zeros(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)[..., ::2] + torch.ops.made_up.mix(x * 0.0, 2)

    assert "mix" not in {data["op"] for _, data in read_model(Zeros(), input_shape=SHAPE).nodes(data=True)}


def mixing_ms(read: int) -> float:
    """Made-up latency of a kernel: a launch, and a time for each value read."""
    return 0.02 + 3 * read / 1e6


def write_bench(folder: Path, networks: int = 60) -> Path:
    """A dataset of networks of convolutions and the operator, measured on the CPU."""
    rng, lines = np.random.default_rng(0), []
    for number in range(networks):
        graph, latency = new_graph(), 0.01
        size = 8 * int(rng.integers(1, 8))
        last = add_input(graph, "x", (1, 3, size, size))
        channels = 4 * int(rng.integers(1, 12))
        last = add_op(graph, "stem", "conv", [last], {"kernel": (1, 1), "out_channels": channels})
        for layer in range(int(rng.integers(1, 4))):
            latency += mixing_ms(channels * size * size >> layer)
            last = add_op(graph, f"mix{layer}", "mix", [last], {"stride": 2})
        lines.append(json.dumps({"id": f"net_{number}", CPU: latency, "graph": to_nnmeter_ir(finish(graph))}))
    (folder / "nets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_pack_that_has_its_kernel_type_prices_it_in_every_format(tmp_path: Path) -> None:
    plan = Plan(devices=(CPU,), members=1, seed=0, epochs=150, lofo_epochs=1)
    [folder] = train_packs(write_bench(tmp_path), tmp_path / "packs", tmp_path / "work", plan)
    pack = load_pack(folder)
    assert pack.card["kernel_types"] == ["conv", "mixing"]
    predictor = LatencyPredictor(pack)
    found = {read.__name__: predictor.predict(read(), strict=True) for read in (in_torch, in_onnx, in_nni_ir)}
    assert len(set(found.values())) == 1
    assert found["in_torch"] == pytest.approx(mixing_ms(math.prod(SHAPE)), rel=0.2)
