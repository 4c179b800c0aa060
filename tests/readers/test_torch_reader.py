"""The torch reader puts all operators of a module into the model graph and does not change the module."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnmeter_nas.errors import GraphError, ReaderError, ShapeError
from nnmeter_nas.readers.torch.module import read_torch_module
from torch_graphs import of, ops, read

torch.set_num_threads(1)


def conv_bn(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]


class InvertedResidual(nn.Module):
    def __init__(self, inp: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inp * expand
        self.skip = stride == 1 and inp == out
        expansion = [] if expand == 1 else [*conv_bn(inp, wide, 1), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expansion, *conv_bn(wide, wide, 3, stride, wide), nn.ReLU6(inplace=True),
                                  *conv_bn(wide, out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    """The standard network for 224x224 images."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True)]
        inp = 32
        for expand, out, repeats, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                             (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
            for i in range(repeats):
                layers.append(InvertedResidual(inp, out, stride if i == 0 else 1, expand))
                inp = out
        self.features = nn.Sequential(*layers, *conv_bn(inp, 1280, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class ResNeXtBlock(nn.Module):
    """A bottleneck with a grouped convolution and a downsampling shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(64, 128, 1)
        self.conv2 = nn.Conv2d(128, 128, 3, 2, 1, groups=32)
        self.conv3 = nn.Conv2d(128, 256, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(128), nn.BatchNorm2d(128), nn.BatchNorm2d(256)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(nn.Conv2d(64, 256, 1, 2), nn.BatchNorm2d(256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


class ShuffleBlock(nn.Module):
    """A channel split, a branch, a concatenation and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(*conv_bn(8, 8, 1), nn.ReLU(), *conv_bn(8, 8, 3, groups=8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, _, _ = x.size()
        scale = F.adaptive_avg_pool2d(x, 1).view(batch, channels)
        scale = F.hardsigmoid(self.fc2(F.relu(self.fc1(scale)))).view(batch, channels, 1, 1)
        return x * scale.expand_as(x)


def test_mobilenet_v2_has_the_expected_operators() -> None:
    graph = read_torch_module(MobileNetV2(), (1, 3, 224, 224))
    assert ops(graph) == {"conv": 35, "dwconv": 17, "bn": 52, "relu6": 35, "add": 10, "globalavgpool": 1,
                          "flatten": 1, "fc": 1}
    assert graph.graph["shape_mismatches"] == []
    [output] = graph.graph["outputs"]
    assert (output, graph.nodes[output]["out_shapes"]) == ("classifier.1", [(1, 1000)])
    assert graph.nodes["features.4.conv.3"]["attrs"]["kernel"] == (3, 3)


def test_operators_are_named_after_their_submodules() -> None:
    graph = read_torch_module(MobileNetV2(), (1, 3, 64, 64))
    assert {"features.0", "features.1", "features.2", "features.5.conv.0", "features.5.add"} <= set(graph)


def test_submodule_called_twice_gives_two_operators() -> None:
    graph = read_torch_module(ResNeXtBlock(), (1, 64, 16, 16))
    relus = [name for name, op in graph.nodes(data="op") if op == "relu"]
    assert relus == ["relu", "relu.relu", "relu.relu_2"]


def test_grouped_residual_block_keeps_its_groups_and_its_shortcut() -> None:
    graph = read_torch_module(ResNeXtBlock(), (1, 64, 56, 56))
    assert ops(graph) == {"conv": 4, "bn": 4, "relu": 3, "add": 1}
    assert graph.nodes["conv2"]["attrs"]["groups"] == 32
    [add] = of(graph, "add")
    assert [p for p, _ in add["inputs"]] == ["bn3", "downsample.1"]
    assert add["out_shapes"] == [(1, 256, 28, 28)]


def test_channel_split_and_shuffle_are_read() -> None:
    graph = read_torch_module(ShuffleBlock(), (1, 16, 28, 28))
    assert ops(graph) == {"split": 1, "conv": 1, "dwconv": 1, "bn": 2, "relu": 1, "concat": 1,
                          "channelshuffle": 1}
    [concat] = of(graph, "concat")
    assert concat["inputs"][0] == ("split", 0)
    assert graph.nodes["branch.0"]["inputs"] == [("split", 1)]
    assert of(graph, "channelshuffle")[0]["out_shapes"] == [(1, 16, 28, 28)]


def test_squeeze_excite_multiplies_without_an_operator_for_the_expansion() -> None:
    graph = read_torch_module(SqueezeExcite(16), (1, 16, 14, 14))
    assert ops(graph) == {"globalavgpool": 1, "reshape": 2, "fc": 2, "relu": 1, "hsigmoid": 1, "mul": 1}
    [mul] = of(graph, "mul")
    assert mul["in_shapes"] == [(1, 16, 14, 14), (1, 16, 1, 1)]


@pytest.mark.parametrize(
    "spelling",
    [
        nn.Hardswish(),
        F.hardswish,
        lambda x: x * F.relu6(x + 3.0) / 6.0,
        lambda x: x * (F.relu6(x + 3, inplace=True) / 6),
        lambda x: x * F.hardsigmoid(x),
        lambda x: x * (x + 3).clamp(0, 6) * (1 / 6),
        lambda x: x * F.hardtanh(x + 3, 0.0, 6.0).div(6),
    ],
)
def test_every_form_of_hswish_is_read(spelling: Any) -> None:
    assert ops(read(spelling, (1, 8, 4, 4))) == {"hswish": 1}


def test_one_dimensional_network_is_read() -> None:
    net = nn.Sequential(nn.Conv1d(2, 8, 9, 4, 4), nn.BatchNorm1d(8), nn.ReLU(),
                        nn.MaxPool1d(3, ceil_mode=True), nn.Conv1d(8, 8, 3, dilation=2, groups=8),
                        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
    graph = read_torch_module(net, (1, 2, 129))
    assert graph.graph["shape_mismatches"] == []
    assert ops(graph) == {"conv": 1, "bn": 1, "relu": 1, "maxpool": 1, "dwconv": 1, "globalavgpool": 1,
                          "flatten": 1, "fc": 1}


def test_decoder_with_transposed_convolution_and_resizing_is_read() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(8, 6, (2, 3), 2, 1, output_padding=1, groups=2), nn.LeakyReLU(),
                        nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReflectionPad2d(1),
                        nn.ConvTranspose2d(6, 3, 4, 2, 1))
    graph = read_torch_module(net, (1, 8, 7, 9))
    assert graph.graph["shape_mismatches"] == []
    assert ops(graph) == {"convtranspose": 2, "leakyrelu": 1, "upsample": 1, "pad": 1}
    assert graph.nodes["0"]["attrs"]["groups"] == 2
    assert graph.nodes["4"]["out_shapes"] == [tuple(net(torch.zeros(1, 8, 7, 9)).shape)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_same_padding_matches_torch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)))
    graph = read_torch_module(net, (1, 3, 9, 8))
    assert graph.nodes["0"]["attrs"]["padding"] == [(1, 2), (2, 2)]
    assert graph.graph["shape_mismatches"] == []


def test_dropout_and_copies_cost_nothing() -> None:
    assert ops(read(lambda x: F.relu(F.dropout(x.clone().contiguous(), 0.5, False)), (1, 4))) == {"relu": 1}
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(), nn.Identity(), nn.ReLU())
    assert ops(read_torch_module(net, (1, 3, 8, 8))) == {"conv": 1, "relu": 1}


@pytest.mark.parametrize(
    "zero",
    [
        lambda x: x * 0,
        lambda x: x.mul(0.0),
        lambda x: x * torch.tensor(0.0),
        torch.zeros_like,
        lambda x: x.new_zeros(x.shape),
        lambda x: torch.zeros(x.shape, device=x.device),
        lambda x: torch.zeros(x.size()),
    ],
)
def test_zero_candidate_costs_nothing(zero: Any) -> None:
    weight = torch.ones(4, 4, 1, 1)
    graph = read(lambda x: F.relu(x) + F.max_pool2d(zero(F.conv2d(x, weight)), 1), (1, 4, 8, 8))
    assert ops(graph) == {"relu": 1}


def test_several_inputs_are_in_the_order_of_forward() -> None:
    def merge(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat([a, F.interpolate(b, size=a.shape[2:])], 1)

    graph = read(merge, (1, 2, 8, 6), (1, 3, 4, 3))
    assert graph.nodes["input_1"]["out_shapes"] == [(1, 3, 4, 3)]
    assert graph.nodes["concat"]["in_shapes"] == [(1, 2, 8, 6), (1, 3, 8, 6)]


def test_all_outputs_in_dicts_and_tuples_are_kept() -> None:
    graph = read(lambda x: {"a": F.relu(x), "b": (torch.sigmoid(x), [x.tanh()])}, (1, 4, 2, 2))
    assert graph.graph["outputs"] == ["relu", "sigmoid", "tanh"]


def test_matrix_products_are_dense_layers_only_with_constant_weights() -> None:
    weights = torch.ones(6, 5)
    graph = read(lambda x: (x @ weights) @ (x @ weights).transpose(-1, -2), (1, 4, 6))
    assert ops(graph) == {"fc": 2, "transpose": 1, "matmul": 1}
    assert of(graph, "fc")[0]["attrs"] == {"in_features": 6, "out_features": 5, "bias": False}


def test_attention_is_read_as_its_products() -> None:
    graph = read_torch_module(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (1, 5, 16))
    counts = ops(graph)
    assert (counts["fc"], counts["matmul"], counts["softmax"], counts["norm"]) == (4, 2, 1, 2)
    assert graph.graph["shape_mismatches"] == []


def test_indexing_and_stacking_become_slices_and_concats() -> None:
    graph = read(lambda x: torch.stack([x[:, 0], *x[:, 1:3].unbind(1)], dim=-1)[..., ::2], (1, 4, 6, 5))
    assert ops(graph) == {"slice": 3, "reshape": 3, "split": 1, "concat": 1}
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 6, 5, 2)]


class Limits(nn.Module):
    """A clip to limits that are weights, computed, or missing."""

    def __init__(self, clip: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.clip = clip
        self.low, self.high = nn.Parameter(torch.zeros(4, 1, 1)), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.clip(self, torch.exp(x))


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (lambda m, x: torch.clamp(x, m.low, m.high), {"maximum": 1, "minimum": 1}),
        (lambda m, x: x.clamp(max=m.high), {"minimum": 1}),
        (lambda m, x: x.clone().clamp_(min=m.low), {"maximum": 1}),
        (lambda m, x: torch.clamp(x, min=x.mean(1, True)), {"mean": 1, "maximum": 1}),
        (lambda m, x: torch.clamp_min(x, m.low), {"maximum": 1}),
    ],
)
def test_limits_in_tensors_are_a_maximum_and_a_minimum(clip: Any, expected: dict[str, int]) -> None:
    assert ops(read(Limits(clip), (1, 4, 8, 8))) == {"exp": 1, **expected}


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda x: torch.cat([x[:, :0], x.exp()], 1), {"exp": 1}),
        (lambda x: torch.cat([x.exp(), x[:, 4:].tanh()], 1), {"exp": 1}),
        (lambda x: x.tensor_split([0, 1, 4], 1)[2].exp(), {"split": 1, "exp": 1}),
        (lambda x: torch.cat(x.split([0, 3, 1], 1), 1).exp(), {"exp": 1}),
    ],
)
def test_empty_parts_are_nothing(forward: Any, expected: dict[str, int]) -> None:
    assert ops(read(forward, (1, 4, 8, 8))) == expected


def test_in_place_writes_to_a_slice_are_kept() -> None:
    def shift(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        out[:, :2] = F.relu(x[:, 2:])
        out[:, 2:] = torch.sigmoid(x[:, :2])
        return out

    graph = read(shift, (1, 4, 8, 8))
    assert ops(graph) == {"split": 1, "relu": 1, "sigmoid": 1, "scatter": 2}


def test_in_place_operator_on_a_view_changes_the_viewed_tensor() -> None:
    def relu_through_a_view(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.view(1, -1).relu_()
        return y

    assert ops(read(relu_through_a_view, (1, 4, 2, 2))) == {"add": 1, "reshape": 2, "relu": 1}


def test_unknown_operator_stays_a_node_with_its_traced_shape() -> None:
    graph = read(lambda x: F.unfold(F.relu(x), 2), (1, 8, 4, 4))
    assert graph.nodes["im2col"]["out_shapes"] == [(1, 32, 9)]


def test_convolution_with_computed_weights_is_not_read_as_a_convolution() -> None:
    graph = read(lambda x, w: F.conv2d(x, w), (1, 4, 8, 8), (1, 4, 3, 3))
    assert ops(graph) == {"dynamicconv": 1}


def test_branches_on_shapes_and_constants_are_followed() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        repeats = int(torch.arange(4, device=x.device).sum().item()) if x.shape[-1] > 4 else 1
        for _ in range(repeats):
            x = torch.tanh(x)
        return x

    assert ops(read(forward, (1, 2, 8, 8))) == {"tanh": 6}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_scripted_module_is_read() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    assert ops(read_torch_module(scripted, (1, 3, 8, 8))) == {"conv": 1, "bn": 1, "relu": 1}
    assert scripted.training


@pytest.mark.parametrize("wrap", [torch.compile, torch.fx.symbolic_trace, nn.DataParallel])
def test_wrapped_module_is_read(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert ops(read_torch_module(wrap(net), (1, 3, 8, 8))) == {"conv": 1, "relu": 1}


def test_parametrised_weights_are_not_operators() -> None:
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)))
    assert ops(read_torch_module(net, (1, 3, 8, 8))) == {"conv": 1}


def test_half_precision_module_is_read() -> None:
    assert ops(read_torch_module(nn.Sequential(nn.Conv2d(3, 4, 3)).half(), (1, 3, 8, 8))) == {"conv": 1}


def test_module_on_the_meta_device_is_read() -> None:
    with torch.device("meta"):
        net = MobileNetV2()
    assert ops(read_torch_module(net, [1, 3, 32, 32]))["conv"] == 35


class Forgetful(nn.Module):
    """Counts its calls and stores its results. A trace must leave neither behind."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.bn.eval()
        self.kept: Any = None
        self.cache: dict[str, torch.Tensor] = {}
        self.history: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.calls_made = True
        with torch.no_grad():
            self.conv.weight.mul_(2)
        x = self.bn(self.conv(x))
        self.kept = self.cache["x"] = x
        self.history.append(x)
        return x


@pytest.mark.parametrize("broken", [False, True])
def test_reading_does_not_change_the_module(broken: bool) -> None:
    module = Forgetful()
    state = copy.deepcopy(module.state_dict())
    weight = module.conv.weight
    if broken:
        with pytest.raises(ReaderError):
            read_torch_module(module, (1, 5, 8, 8))
    else:
        assert ops(read_torch_module(module, (1, 3, 8, 8))) == {"conv": 1, "bn": 1}
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert (module.training, module.bn.training) == (True, False)
    assert module.conv.weight is weight
    assert (module.kept, module.cache, module.history, hasattr(module, "calls_made")) == (None, {}, [], False)
    module(torch.zeros(1, 3, 8, 8)).sum().backward()


def test_reading_does_not_change_batch_statistics() -> None:
    norm = nn.BatchNorm2d(3)
    read_torch_module(nn.Sequential(norm, nn.ReLU()), (1, 3, 8, 8))
    assert norm.num_batches_tracked == 0
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


def test_reading_never_computes_with_weights() -> None:
    """A weight-standardised convolution of 4 TB would not fit in memory if its weights were read."""

    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.ones(1).expand(1024, 2**20, 32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) * 2
            return F.conv2d(x, weight[:, :3])

    assert ops(read_torch_module(Standardised(), (1, 3, 32, 32))) == {"conv": 1}


class NeedsTwo(nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * mask


class BranchesOnValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.stem(x).sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.Conv2d(3, 4, 3), 8, "input_shape=8 is not a shape: pass a tuple"),
        (nn.Conv2d(3, 4, 3), (), r"input_shape=\(\)"),
        (nn.Conv2d(3, 4, 3), (1, 3, -8, 8), "input_shape"),
        (nn.Conv2d(3, 4, 3), "1,3,8,8", "input_shape"),
        (nn.Conv2d(3, 4, 3), [(1, 3, 8, 8), None], "input_shape"),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)), (1, 5, 8, 8), r"Sequential .*'1' at aten.conv2d"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), (1, 3, 8, 8), r"'1' at aten.batch_norm"),
        (NeedsTwo(), (1, 3, 8, 8), r"NeedsTwo .*missing 1 required positional argument: 'mask'"),
        (BranchesOnValues(), (1, 3, 8, 8), r"BranchesOnValues: .*no branch and no shape in it depends on"),
        (nn.LazyConv2d(4, 3), (1, 3, 8, 8), "lazy parameters; run it on data first"),
        (lambda x: x, (1, 3, 8, 8), r"expected a torch\.nn\.Module or .*, got function"),
    ],
)
def test_error_names_an_unreadable_module_and_the_way_out(module: Any, shape: Any, message: str) -> None:
    with pytest.raises(ReaderError, match=message):
        read_torch_module(module, shape)


def test_module_that_returns_no_computed_tensor_is_rejected() -> None:
    with pytest.raises(ReaderError, match="returned int without a tensor computed from its input"):
        read(lambda x: x.dim(), (1, 3, 8, 8))


def test_module_without_operators_is_rejected() -> None:
    with pytest.raises(GraphError, match="empty"):
        read_torch_module(nn.Identity(), (1, 3, 8, 8))


def test_batch_other_than_one_is_rejected() -> None:
    with pytest.raises(ShapeError, match="batch is 8"):
        read_torch_module(nn.Conv2d(3, 4, 3), (8, 3, 8, 8))


def test_importing_the_reader_does_not_import_torch() -> None:
    code = "import sys, nnmeter_nas.readers.torch.module; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
