"""Every kind of torch module is read, and stays usable and unchanged."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops.map import map as control_flow_map
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from nnmeter_nas import LatencyWarning, load_latency_predictor
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.readers.torch.module import read_torch_module
from torch_graphs import of, ops, read

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

IMAGE = (1, 3, 8, 8)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


class Hostile(nn.Module):
    """Control flow that torch.fx cannot trace: on shapes, attribute names, containers and exceptions."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(3):
            setattr(self, f"conv{i}", nn.Conv2d(8, 8, 3, padding=1))
        self.heads = nn.ModuleDict({"relu": nn.ReLU()})

    def forward(self, x: torch.Tensor, *rest: Any, **options: Any) -> list[Any]:
        levels = {}
        for i in range(x.shape[1] // 3):
            x = getattr(self, f"conv{i}")(x)
            if x.size(2) > 4 and not rest:
                x = F.max_pool2d(x, 2)
            levels[f"level{i}"] = self.heads["relu"](x)
        height, width = x.shape[-2:]
        assert height == width
        try:
            flat = x.view(3, -1)
        except RuntimeError:
            flat = x.view(1, -1)
        return [levels, flat, len(levels), options or None]


def test_control_flow_over_shapes_and_names_is_followed() -> None:
    graph = read_torch_module(Hostile(), (1, 8, 8, 8))
    assert ops(graph) == {"conv": 2, "maxpool": 1, "relu": 2, "reshape": 1}
    assert graph.graph["shape_mismatches"] == []


class Shuffle(nn.Module):
    """Reads sizes, which TorchScript treats as tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return x.reshape(batch, channels, height, width)


@pytest.mark.parametrize("script", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 4, 8, 8))])
def test_torchscript_that_computes_with_sizes_is_read(script: Callable[[nn.Module], nn.Module]) -> None:
    assert ops(read_torch_module(script(Shuffle()), (1, 4, 8, 8))) == {"channelshuffle": 1}


def test_frozen_torchscript_is_read() -> None:
    """Freezing folds batch norm into the convolution and removes the mode."""
    frozen = torch.jit.freeze(torch.jit.script(small().eval()))
    counts = ops(read_torch_module(frozen, IMAGE))
    assert (counts["conv"], counts["relu"]) == (1, 1)


class Mixed(nn.Module):
    """Code that torch.export turns into its own operators and submodules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, image: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x = self.conv(image).to(torch.float64).float() * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return {"scores": self.fc(x.mean((2, 3)))}


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning:copyreg")
@pytest.mark.parametrize("decomposed", [False, True])
def test_exported_program_is_read_at_its_own_shapes(decomposed: bool) -> None:
    arguments = (torch.zeros(IMAGE),), {"scale": torch.zeros(1, 4, 1, 1)}
    program = torch.export.export(Mixed().eval(), *arguments)
    if decomposed:
        program = program.run_decompositions()
    graph = read_torch_module(program)
    counts = ops(graph)
    assert (counts["conv"], counts["mul"], counts["globalavgpool"], counts["fc"]) == (1, 1, 1, 1)
    assert graph.nodes["image"]["out_shapes"] == [IMAGE]
    assert graph.nodes["scale"]["out_shapes"] == [(1, 4, 1, 1)]
    named = read_torch_module(program, {"scale": (1, 4, 1, 1), "image": IMAGE})
    assert ops(named) == counts


def test_exported_program_is_read_at_another_shape_if_it_allows_that() -> None:
    free = {"input": {2: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(small().eval(), (torch.zeros(IMAGE),), dynamic_shapes=free)
    assert of(read_torch_module(program, (1, 3, 12, 8)), "conv")[0]["out_shapes"] == [(1, 4, 10, 6)]
    with pytest.raises(ReaderError, match="Guard failed"):
        read_torch_module(program, (1, 3, 12, 12))


@pytest.mark.filterwarnings("ignore:Using `torch.compile.module.` when there are global hooks:UserWarning")
def test_compiled_submodule_is_read() -> None:
    net = nn.Sequential(torch.compile(nn.Conv2d(3, 4, 3)), nn.ReLU())
    assert ops(read_torch_module(net, IMAGE)) == {"conv": 1, "relu": 1}


@pytest.mark.parametrize("swap", [False, True])
def test_of_a_choice_on_tensor_values_the_costlier_branch_counts(swap: bool) -> None:
    cheap, dear = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.true, self.false = nn.Conv2d(3, 4, 1), *((dear, cheap) if swap else (cheap, dear))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return torch.cond(x.sum() > 0, lambda t: self.true(t), lambda t: self.false(t), (x,)).relu()

    graph = read_torch_module(Choice(), IMAGE)
    assert ops(graph) == {"conv": 2, "sum": 1, "greater": 1, "given": 1, "relu": 1}
    assert (3, 3) in [d["attrs"].get("kernel") for _, d in graph.nodes(data=True)]
    assert f"the costlier, for {swap}, is counted" in graph.graph["notes"][0]


def test_a_loop_on_tensor_values_is_of_unknown_work_and_keeps_its_shapes() -> None:
    def forward(x: torch.Tensor) -> Any:
        (y,) = while_loop(lambda t: t.sum() < 9, lambda t: (t.relu() + 1,), (x.tanh(),))
        return y.relu()

    found = load_latency_predictor("cortexA76cpu_tflite21").explain(read(forward, IMAGE))
    assert list(found.unpredicted.values()) == ["while_loop"]
    assert math.isnan(found.unpredicted_share)
    assert list(found.estimated.values()) == ["tanh"]
    assert "as often as tensor values decide" in found.notes[0]


def test_error_names_control_flow_operators() -> None:
    def forward(x: torch.Tensor) -> Any:
        return control_flow_map(lambda t: t.relu(), x)

    with pytest.raises(ReaderError, match="control flow operator map_impl, so its latency depends on tensor"):
        read(forward, IMAGE)


def test_hooks_run_and_are_kept() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    conv.register_forward_hook(lambda module, args, out: out.relu())
    assert ops(read_torch_module(nn.Sequential(conv), IMAGE)) == {"mul": 1, "conv": 1, "relu": 1}
    assert (len(conv._forward_hooks), len(conv._forward_pre_hooks)) == (1, 1)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_submodule_is_read(reentrant: bool) -> None:
    conv = nn.Conv2d(3, 4, 3)
    graph = read(lambda x: checkpoint(conv, x, use_reentrant=reentrant).relu(), IMAGE)
    assert ops(graph) == {"conv": 1, "relu": 1}


@pytest.mark.parametrize(
    "keep",
    [
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        nn.utils.spectral_norm,
        lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
        lambda conv: conv.to(memory_format=torch.channels_last),
        lambda conv: conv.bfloat16(),
        lambda conv: conv.double(),
    ],
)
def test_convolution_is_read_with_any_kind_of_weights(keep: Callable[[nn.Module], Any]) -> None:
    conv = nn.Conv2d(3, 4, 3)
    keep(conv)
    assert ops(read_torch_module(nn.Sequential(conv), IMAGE)) == {"conv": 1}


def test_layers_with_shared_weights_count_each_time() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    assert ops(read_torch_module(nn.Sequential(first, second, first), (1, 8))) == {"fc": 3}


def test_mixed_types_of_layers_do_not_matter() -> None:
    half, whole = nn.Conv2d(3, 4, 3).half(), nn.Conv2d(4, 4, 3)
    assert ops(read_torch_module(nn.Sequential(half, whole), IMAGE)) == {"conv": 2}


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.conv(x).float().relu()


def test_autocast_still_works_after_reading() -> None:
    """Autocast caches cast weights. The reader's have no data, so a later run must not use them."""
    module = Autocast()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ops(read_torch_module(module, IMAGE)) == {"conv": 1, "relu": 1}
        assert module(torch.ones(IMAGE)).device.type == "cpu"


def test_reading_does_not_change_the_users_random_state() -> None:
    state = torch.get_rng_state()
    read(lambda x: x + torch.rand(x.shape), IMAGE)
    assert torch.equal(torch.get_rng_state(), state)


@dataclasses.dataclass
class Detections:
    boxes: torch.Tensor
    levels: tuple[torch.Tensor, ...]


Pair = collections.namedtuple("Pair", "left right")


def test_all_outputs_in_dataclasses_and_named_tuples_are_kept() -> None:
    def forward(x: torch.Tensor) -> tuple[Any, ...]:
        return Detections(x.relu(), (x.tanh(),)), Pair(x.exp(), collections.OrderedDict(a=x.abs()))

    graph = read(forward, IMAGE)
    assert graph.graph["outputs"] == ["relu", "tanh", "exp", "abs"]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.fc = kind(16, 8, 2, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(
    ("module", "estimated"),
    [
        (Recurrent(nn.LSTM), "lstm"),
        (Recurrent(nn.GRU), "gru"),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2), "matmul"),
        (nn.Sequential(nn.Linear(16, 16), nn.Unflatten(1, (1, 5)), nn.PixelUnshuffle(1)), "pixelunshuffle"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*outside the range measured:nnmeter_nas.LatencyWarning")
def test_operators_that_are_estimated_are_reported(module: nn.Module, estimated: str) -> None:
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    assert estimated in predictor.explain(module, input_shape=(1, 5, 16)).estimated.values()
    with pytest.warns(LatencyWarning, match="are estimated on cortexA76cpu"):
        assert predictor.predict(module, input_shape=(1, 5, 16)) > 0


@torch.library.custom_op("nnmeter_nas_test::relu", mutates_args=())
def foreign_relu(x: torch.Tensor, times: int) -> torch.Tensor:
    return x * times


@foreign_relu.register_fake
def _(x: torch.Tensor, times: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], times)


def test_operator_of_another_library_is_not_mistaken_for_torchs() -> None:
    graph = read(lambda x: foreign_relu(x, 5), (1, 3))
    assert ops(graph) == {"nnmeter_nas_test_relu": 1}
    assert of(graph, "nnmeter_nas_test_relu")[0]["out_shapes"] == [(1, 5)]
