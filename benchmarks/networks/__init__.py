"""Reference networks under torchvision's names: typical models that users predict.

They follow the papers, with the layer widths and layer order of torchvision's versions. So their parameters,
multiply-adds and kernels match the published ones. Their weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from nnmeter_nas.errors import ReaderError, nearest
from nnmeter_nas.graph.shapes import Shape

from .classic import (
    VGG_STAGES,
    AlexNet,
    BasicBlock,
    Bottleneck,
    DenseNet,
    GoogLeNet,
    InceptionV3,
    ResNet,
    SqueezeNet,
    Vgg,
)
from .mobile import (
    EfficientNetB0,
    MnasNet,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    ProxylessNas,
    ShuffleNetV2,
)

#: Constructor of each reference network, by torchvision's name or one in its style. None takes arguments.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": AlexNet,
    **{name: partial(Vgg, stages) for name, stages in VGG_STAGES.items()},
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnext50_32x4d": partial(ResNet, partial(Bottleneck, groups=32, group_width=4), (3, 4, 6, 3)),
    "wide_resnet50_2": partial(ResNet, partial(Bottleneck, group_width=128), (3, 4, 6, 3)),
    "squeezenet1_0": partial(SqueezeNet, "1_0"),
    "squeezenet1_1": partial(SqueezeNet, "1_1"),
    "densenet121": partial(DenseNet, 64, 32, (6, 12, 24, 16)),
    "densenet161": partial(DenseNet, 96, 48, (6, 12, 36, 24)),
    "googlenet": GoogLeNet,
    "inception_v3": InceptionV3,
    "mnasnet1_0": MnasNet,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": partial(MobileNetV3, "small"),
    "mobilenet_v3_large": partial(MobileNetV3, "large"),
    "shufflenet_v2_x1_0": ShuffleNetV2,
    "efficientnet_b0": EfficientNetB0,
    "proxylessnas": ProxylessNas,
}


def build_network(name: str) -> nn.Module:
    """Build the reference network ``name``, in eval mode.

    Under ``with torch.device("meta"):`` it is built in milliseconds, without weights; readers need none.

    Raises:
        ReaderError: no reference network has this name; the message suggests the nearest.

    >>> sum(p.numel() for p in build_network("squeezenet1_0").parameters())
    1248424
    """
    return NETWORKS[_known(name)]().eval()


def input_shape(name: str) -> Shape:
    """Return the input shape that the network was published for, NCHW with batch 1.

    Raises:
        ReaderError: no reference network has this name; the message suggests the nearest.

    >>> input_shape("inception_v3")
    (1, 3, 299, 299)
    """
    size = 299 if _known(name) == "inception_v3" else 224
    return (1, 3, size, size)


def _known(name: str) -> str:
    if name not in NETWORKS:
        raise ReaderError(f"no reference network is called {name!r}; {nearest(name, NETWORKS)}")
    return name
