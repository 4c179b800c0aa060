"""Networks exported by torch to ONNX have the same kernels as with the torch reader."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import networkx as nx
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnmeter_nas.errors import ReaderError
from nnmeter_nas.kernels.configuration import configuration, kernel_type
from nnmeter_nas.kernels.fusion import Kernel
from nnmeter_nas.packs import find_pack
from nnmeter_nas.readers.onnx.model import read_onnx
from nnmeter_nas.readers.torch.module import read_torch_module

torch.set_num_threads(1)

DEVICES = ("cortexA76cpu_tflite21", "adreno640gpu_tflite21", "myriadvpu_openvino2019r2")
IMAGE = (1, 3, 32, 32)


def exported(
    module: nn.Module,
    opset: int | None,
    shape: Sequence[int] = IMAGE,
    dynamic: Mapping[int, str] | None = None,
) -> onnx.ModelProto:
    """Export with torch: through TorchScript if ``opset`` is given, else through ``torch.export``."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        image = (torch.zeros(shape),)
        if opset is None:
            program = torch.onnx.export(module.eval(), image, dynamo=True, verbose=False)
            assert program is not None
            return program.model_proto
        file = io.BytesIO()
        axes = {"x": dict(dynamic)} if dynamic else None
        torch.onnx.export(module.eval(), image, file, dynamo=False, opset_version=opset, input_names=["x"],
                          dynamic_axes=axes)  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def kernels(graph: nx.DiGraph) -> list[Counter[Any]]:
    """Count each kernel, per device."""
    graphs = [find_pack(device, None).kernel_graph(graph) for device in DEVICES]
    return [Counter(_seen(kernel) for _, kernel in found.nodes(data="kernel")) for found in graphs]


def _seen(kernel: Kernel) -> Any:
    """The features of a kernel that predictors see; operator and shapes if it is not predicted."""
    if kernel_type(kernel) is not None:
        return configuration(kernel)
    return kernel.op, tuple(kernel.in_shapes), tuple(kernel.out_shapes)


class MobileBlock(nn.Module):
    """An inverted bottleneck with every hard activation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.expand(x))
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        x = x * F.hardsigmoid(self.excite(gate))
        return x + F.silu(self.project(x))


class ShuffleUnit(nn.Module):
    """A convolution on half of the channels, then a shuffle of all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 12, 3), nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = self.stem(x).chunk(2, dim=1)
        x = torch.cat((kept, F.relu(self.conv(changed))), dim=1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return x.view(batch, -1, height, width)


class ShapeArithmetic(nn.Module):
    """Sizes computed from the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classify = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 9 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.conv(x), size=(x.shape[2] * 2, x.shape[3] * 2))
        y = F.interpolate(y, scale_factor=0.25)
        y = F.pad(y, (1, 1, 1, 1))
        y = F.max_pool2d(F.avg_pool2d(y, 3, 1, padding=1), 2)
        return F.softmax(self.classify(y.view(y.size(0), -1)), dim=1)


class Attention(nn.Module):
    """One layer of a transformer over the positions of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.out = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).split(8, dim=-1)
        weights = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1)
        return F.gelu(self.out(weights @ v)).mean(1)


@pytest.mark.parametrize(
    "dynamic", [None, {0: "N"}, {0: "N", 2: "H", 3: "W"}], ids=["static", "batch", "map"]
)
@pytest.mark.parametrize("opset", [9, 11, 13, 17])
@pytest.mark.parametrize("module", [MobileBlock, ShuffleUnit, ShapeArithmetic])
def test_torchscript_exports_have_the_kernels_of_their_modules(
    module: type[nn.Module], opset: int, dynamic: Mapping[int, str] | None
) -> None:
    proto = exported(module(), opset, dynamic=dynamic)
    if dynamic and 2 in dynamic:
        with pytest.raises(ReaderError, match=r"input 'x' leaves dimension 2 open \(H\).*input_shape"):
            read_onnx(proto)
    assert kernels(read_onnx(proto, IMAGE)) == kernels(read_torch_module(module(), IMAGE))


class GroupNorms(nn.Module):
    """Norms over groups of channels, as after some training, at the end and before an activation."""

    def __init__(self) -> None:
        super().__init__()
        groups = [nn.GroupNorm(count, 16) for count in (4, 1, 16)]
        layers = [*groups, nn.GroupNorm(4, 16, affine=False)]
        self.stem, self.norms = nn.Conv2d(3, 16, 3), nn.ModuleList(layers)
        for parameter in self.norms.parameters():
            nn.init.uniform_(parameter, 0.5, 2.0)

    def forward(self, image: Tensor) -> Tensor:
        """Each behind another."""
        x = self.stem(image)
        for norm in self.norms:
            x = norm(F.silu(x))
        return x


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_group_norms_are_norms_however_they_are_exported(opset: int) -> None:
    module = GroupNorms().eval()
    found = read_onnx(exported(module, opset))
    assert Counter(op for _, op in found.nodes(data="op"))["norm"] == 4
    assert kernels(found) == kernels(read_torch_module(module, IMAGE))


def test_model_exported_at_fixed_batch_8_is_read_at_batch_1() -> None:
    for module in (ShuffleUnit, ShapeArithmetic):
        proto = exported(module(), 13, (8, *IMAGE[1:]))
        assert kernels(read_onnx(proto, IMAGE)) == kernels(read_torch_module(module(), IMAGE))


class SqueezesHeight(nn.Module):
    """A squeeze that is exported as an ``If``, because the height may not be 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x).squeeze(2))


@pytest.mark.parametrize(("height", "shape"), [(1, (1, 4, 32)), (5, (1, 4, 5, 32))])
def test_shapes_decide_the_branch_of_an_exported_squeeze(height: int, shape: Sequence[int]) -> None:
    proto = exported(SqueezesHeight(), 13, (1, 3, 1, 32), {2: "H"})
    assert "If" in {node.op_type for node in proto.graph.node}
    graph = read_onnx(proto, (1, 3, height, 32))
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [shape]


class DetectionHead(nn.Module):
    """Keeps the boxes with a good score; their number depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        boxes = self.boxes(features).flatten(2).transpose(1, 2)[0]
        best, _ = self.scores(features).flatten(2).transpose(1, 2)[0].softmax(-1).max(-1)
        keep = torch.where(best > 0.1)[0]
        top, order = best[keep].topk(3)
        return boxes[keep][order] * top[:, None], boxes[keep].squeeze(0)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_a_detection_head_with_data_dependent_shapes_is_read(opset: int) -> None:
    proto = exported(DetectionHead(), opset)
    assert {"NonZero", "If"} <= {node.op_type for node in proto.graph.node}
    ops = Counter(op for _, op in read_onnx(proto).nodes(data="op"))
    assert ops["conv"] == 3
    assert {"nonzero", "topk", "gather", "if"} <= set(ops)


def repeated(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.relu(x) + 1
    return x


class Loops(nn.Module):
    """A scripted loop with one iteration per row of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated = torch.jit.script(repeated)

    def forward(self, x: Tensor) -> Tensor:
        return self.repeated(x, x.shape[2])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_an_exported_loop_over_a_size_is_read_step_by_step() -> None:
    proto = exported(Loops(), 13, dynamic={2: "H"})
    assert "Loop" in {node.op_type for node in proto.graph.node}
    operators = Counter(op for _, op in read_onnx(proto, IMAGE).nodes(data="op"))
    assert operators == {"input": 1, "relu": IMAGE[2], "add": IMAGE[2]}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 20, None])
def test_exported_transformer_has_the_kernels_of_its_module(opset: int | None) -> None:
    proto = exported(Attention(), opset)
    assert kernels(read_onnx(proto)) == kernels(read_torch_module(Attention(), IMAGE))


@pytest.mark.slow
@pytest.mark.parametrize("module", [MobileBlock, ShuffleUnit, ShapeArithmetic])
def test_torch_exports_have_the_kernels_of_their_modules(module: type[nn.Module]) -> None:
    assert kernels(read_onnx(exported(module(), None))) == kernels(read_torch_module(module(), IMAGE))
