"""A stand-in for torchvision, whose builds need another torch than the tests have.

Its registry has torchvision's interface and its layout of modules. The models are small ones of their kind.
"""

from __future__ import annotations

from pathlib import Path

_MODELS = '''
"""Registry and classification."""
import math
import warnings

import torch
from torch import nn

from nnmeter_nas.benchmarks.networks import build_network

_BUILDERS = {}


def register(name):
    def put(build):
        _BUILDERS[name] = build
        return build
    return put


def list_models():
    return sorted(_BUILDERS)


def get_model_builder(name):
    return _BUILDERS[name]


from . import classification, detection, optical_flow, quantization, segmentation, video
'''
_CLASSIFICATION = '''
import math
import warnings

import torch
from torch import nn

from nnmeter_nas.benchmarks.networks import build_network

from . import register


def _named(name):
    def build(*, weights="DEFAULT", progress=True, **kwargs):
        assert weights is None and not kwargs
        assert torch.empty(1).is_meta
        warnings.warn("initial weights will change")
        return build_network(name)
    build.__module__ = "torchvision.models.resnet"
    return build


register("resnet18")(_named("resnet18"))
register("squeezenet1_0")(_named("squeezenet1_0"))
register("inception_v3")(_named("squeezenet1_0"))  # for its input shape


@register("regnet_y_400mf")
def regnet(*, weights="DEFAULT", progress=True, **kwargs):
    """Its widths are computed with tensors, as RegNet's are."""
    assert weights is None
    blocks = torch.round(torch.log(torch.arange(1, 4) * 24.0) / math.log(2))
    widths = (8 * blocks).int().tolist()
    layers, before = [], 3
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.ReLU()]
        before = width
    assert layers[0].weight.is_meta
    return nn.Sequential(*layers)


@register("reads_its_weights")
def reading(*, weights="DEFAULT", progress=True):
    layer = nn.Conv2d(3, 8, 3)
    assert layer.weight.abs().max().item() < 10
    return layer


for build in (regnet, reading):
    build.__module__ = "torchvision.models.regnet"
'''
_SEGMENTATION = '''
import torch.nn.functional as F
from torch import nn

from .. import register


class Segmentation(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.classifier = nn.Conv2d(3, 16, 3, stride=8, padding=1), nn.Conv2d(16, 21, 1)

    def forward(self, x):
        found = self.classifier(self.backbone(x))
        return {"out": F.interpolate(found, size=x.shape[-2:], mode="bilinear", align_corners=False)}


@register("deeplabv3_resnet50")
def deeplabv3_resnet50(*, weights=None, progress=True, num_classes=None, aux_loss=None,
                       weights_backbone="DEFAULT", **kwargs):
    assert weights_backbone is None, "it would be downloaded"
    return Segmentation()
'''
_VIDEO = '''
from torch import nn

from .. import register


def _build(*, weights=None, progress=True, **kwargs):
    return nn.Sequential(nn.Conv3d(3, 8, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3)), nn.ReLU(),
                         nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 400))


register("r3d_18")(_build)
register("mvit_v2_s")(_build)
'''
_FLOW = '''
import torch
import torch.nn.functional as F
from torch import nn

from .. import register


class Raft(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Conv2d(3, 16, 8, stride=8), nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image1, image2, num_flow_updates=2):
        first, second = torch.chunk(self.encoder(torch.cat([image1, image2])), 2)
        batch, channels, height, width = first.shape
        seen = torch.matmul(first.flatten(2).transpose(1, 2), second.flatten(2)).mean(2)
        seen = seen.view(batch, 1, height, width)
        ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([xs, ys], dim=-1).float()[None]
        flows = []
        for _ in range(num_flow_updates):
            flow = self.head(F.grid_sample(seen, grid, align_corners=True))
            grid = grid + flow.permute(0, 2, 3, 1)
            flows.append(F.interpolate(flow, scale_factor=8))
        return flows


@register("raft_small")
def raft_small(*, weights=None, progress=True, **kwargs):
    return Raft()
'''
_QUANTISATION = '''
from nnmeter_nas.benchmarks.networks import build_network

from .. import register


@register("quantized_resnet18")
def resnet18(*, weights=None, progress=True, quantize=False, **kwargs):
    assert not quantize, "quantising runs the network"
    return build_network("resnet18")
'''
_DETECTION = '''
from .. import register


@register("fasterrcnn_resnet50_fpn")
def fasterrcnn_resnet50_fpn(*, weights=None, progress=True, weights_backbone="DEFAULT", **kwargs):
    raise AssertionError("it is not built")
'''


def write_torchvision(folder: Path) -> None:
    """Write the stand-in as a package in ``folder``, to be put on the path."""
    models = folder / "torchvision" / "models"
    files = {
        folder / "torchvision" / "__init__.py": "",
        models / "__init__.py": _MODELS,
        models / "classification.py": _CLASSIFICATION,
        models / "segmentation" / "__init__.py": "from . import deeplabv3",
        models / "segmentation" / "deeplabv3.py": _SEGMENTATION,
        models / "video" / "__init__.py": "from . import resnet",
        models / "video" / "resnet.py": _VIDEO,
        models / "optical_flow" / "__init__.py": "from . import raft",
        models / "optical_flow" / "raft.py": _FLOW,
        models / "quantization" / "__init__.py": "from . import resnet",
        models / "quantization" / "resnet.py": _QUANTISATION,
        models / "detection" / "__init__.py": "from . import faster_rcnn",
        models / "detection" / "faster_rcnn.py": _DETECTION,
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
