"""Random networks to measure: mixtures of the blocks that people build networks from, at all sizes.

Kernels are measured inside whole networks, where a runtime treats them as it does in the networks to be
predicted. A network is wholly decided by its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import networkx as nx
import numpy as np

from ..graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from ..graph.shapes import Shape, infer_operator
from ..ops import OPERATORS

#: Raise this when seeds decide other networks, or when what is measured of them means something else.
NETWORKS = 7
#: Sides of input images, and how often each is drawn: those of NAS spaces and of ImageNet most often.
_SIDES: dict[int, float] = {32: 3, 64: 2, 96: 1, 128: 2, 160: 2, 192: 1, 224: 6, 256: 1}
#: A network stops growing at so many multiply-adds in millions, drawn between these on a log scale.
_LEAST_MACS, _MOST_MACS = 1, 6000
#: Every so many seeds stand for a thin network, which is small enough for a core's cache: its widths are 2 to
#: the power of a number between these, times those of others, and its multiply-adds are at most so many.
_THIN_ONE_IN, _THINNEST, _THICKEST, _THIN_MACS = 7, -3.5, -1.2, 30
#: Every so many seeds stand for a network with a recurrent layer, which has at most so many steps.
_RECURRENT_ONE_IN, _MOST_STEPS = 20, 256
#: Every so many seeds stand for a network that begins with patches of a large image.
_PATCHES_ONE_IN = 11
#: A network is drawn anew if its last block made it larger than this, in millions of multiply-adds.
_TOO_MANY_MACS = 8000
#: It is drawn anew so often at most.
_ATTEMPTS = 50
_MOST_BLOCKS = 24
_ACTIVATIONS = {"relu": 6, "relu6": 3, "hswish": 2, "swish": 2, "gelu": 0.5, "sigmoid": 0.2, "leakyrelu": 0.3}
_CLASSES = (10, 100, 1000)


@lru_cache(maxsize=1024)
def random_network(seed: int) -> nx.DiGraph:
    """Return the finished model graph of the network that ``seed`` decides; it must not be changed."""
    for attempt in range(_ATTEMPTS):
        network = _Network([seed, attempt])
        graph = network.grow()
        if network.macs <= _TOO_MANY_MACS:
            break
    return graph


class _Network:
    """A network that grows block by block; ``x`` is the tensor that the next block reads."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = new_graph(f"network{seed[0]}")
        side = int(self._drawn(_SIDES))
        self.x = add_input(self.graph, "input", (1, 3, side, side))
        infer_operator(self.graph, self.x)
        self.macs = 0.0
        #: Preferred activation, as one network mostly uses one.
        self.activation = str(self._drawn(_ACTIVATIONS))
        self.has_patches = seed[0] % _PATCHES_ONE_IN == _PATCHES_ONE_IN - 1
        self.is_recurrent = seed[0] % _RECURRENT_ONE_IN == _RECURRENT_ONE_IN - 1
        thin = seed[0] % _THIN_ONE_IN == _THIN_ONE_IN - 1
        self.most_macs = _THIN_MACS if thin else _MOST_MACS
        #: Widths are of one scale within a network.
        scales = (_THINNEST, _THICKEST) if thin else (-1.2, 1.2)
        self.scale = 2.0 ** self.random.uniform(*scales)

    def grow(self) -> nx.DiGraph:
        """Add a stem, blocks and a head."""
        budget = 2.0 ** self.random.uniform(math.log2(_LEAST_MACS), math.log2(self.most_macs))
        _stem(self)
        # A network repeats few kinds of blocks.
        kinds = list(_BLOCKS)
        weights = np.array(list(_BLOCKS.values()), float)
        some = int(self.random.integers(1, 5))
        few = self.random.choice(len(kinds), some, replace=False, p=weights / weights.sum())
        stages = int(self.random.integers(2, 6))
        for stage in range(stages):
            for _ in range(self.random.integers(1, 5)):
                if self.macs > budget or len(self.graph) > 40 * _MOST_BLOCKS:
                    break
                kinds[int(self.random.choice(few))](self)
            if stage < stages - 1 and self.side > 7:
                _shrink(self)
        if self.is_recurrent:
            _recurrent(self)
        _head(self)
        set_outputs(self.graph, [self.x])
        return finish(self.graph)

    @property
    def shape(self) -> Shape:
        """Shape of ``x``, NCHW."""
        return self.shape_of(self.x)

    def shape_of(self, name: str) -> Shape:
        """Shape of a tensor."""
        found: Shape = self.graph.nodes[name]["out_shapes"][0]
        return found

    @property
    def channels(self) -> int:
        """Channels of ``x``."""
        return self.shape[1]

    @property
    def side(self) -> int:
        """Height of ``x``."""
        return self.shape[2]

    def add(self, op: str, *inputs: str | tuple[str, int], **attrs: Any) -> str:
        """Add an operator that reads ``inputs``, by default ``x``; its result becomes ``x``."""
        name = f"{op}_{len(self.graph)}"
        self.x = add_op(self.graph, name, op, inputs or [self.x], attrs)
        infer_operator(self.graph, name)
        data = self.graph.nodes[name]
        if op in ("conv", "convtranspose"):
            inner = data["in_shapes"][0][1] // attrs.get("groups", 1) * math.prod(attrs["kernel"])
            self.macs += math.prod(data["out_shapes"][0]) * inner / 1e6
        elif op in ("fc", "matmul"):
            self.macs += math.prod(data["out_shapes"][0]) * data["in_shapes"][0][-1] / 1e6
        elif op == "lstm":
            self.macs += OPERATORS[op].work(data).macs / 1e6
        return name

    def conv(self, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, bn: bool = True,
             act: str | None = "") -> str:
        """Add a convolution, and batch norm and an activation unless told not to."""
        pad = (kernel // 2, kernel // 2)
        self.add("conv", out_channels=width, kernel=(kernel, kernel), stride=(stride, stride), groups=groups,
                 padding=(pad, pad), bias=not bn)
        if bn:
            self.add("bn")
        if act is not None:
            self.act(act)
        return self.x

    def dwconv(self, kernel: int, stride: int = 1, act: str | None = "") -> str:
        """Add a depthwise convolution with batch norm."""
        return self.conv(self.channels, kernel, stride, self.channels, act=act)

    def act(self, name: str = "") -> str:
        """Add an activation, by default the network's own."""
        return self.add(name or self.activation)

    def width(self, low: int, high: int) -> int:
        """Draw a number of channels: mostly a multiple of 8 or 16, as networks have them."""
        drawn = self.scale * math.exp(self.random.uniform(math.log(low), math.log(high)))
        step = int(self._drawn({8: 6, 16: 6, 4: 1, 1: 1}))
        return max(step, 4, round(drawn / step) * step)

    def one_of(self, *choices: Any) -> Any:
        """Draw one of ``choices``, which are equally likely."""
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        """True in this ``share`` of draws."""
        return bool(self.random.random() < share)

    def typical(self) -> int:
        """Draw a width for a map of this size: small maps have more channels."""
        middle = 16 * (224 / max(self.side, 4)) ** 0.8
        return self.width(max(8, int(middle / 2)), int(middle * 3))

    def _drawn(self, weights: dict[Any, float]) -> Any:
        shares = np.array(list(weights.values()), float)
        return list(weights)[int(self.random.choice(len(shares), p=shares / shares.sum()))]


def _stem(net: _Network) -> None:
    large = net.side >= 96
    if large and net.has_patches:
        # As in vision transformers and ConvNeXt.
        side = net.one_of(4, 8, 16)
        net.add("conv", out_channels=net.width(48, 384), kernel=(side, side), stride=(side, side),
                padding="valid", bias=True)  # fmt: skip
        return
    if large:
        kernel, stride = net.one_of((3, 2), (3, 2), (3, 2), (7, 2), (7, 2), (5, 2), (11, 4), (3, 1))
    else:
        kernel, stride = 3, net.one_of(1, 1, 2)
    net.conv(net.width(8, 64), kernel, stride, bn=net.chance(0.8))
    if large and net.chance(0.4):
        net.add("maxpool", kernel=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)))


def _shrink(net: _Network) -> None:
    """Halve the map."""
    way = net.one_of("pool", "pool", "conv", "conv", "inverted", "average")
    if way == "pool":
        kernel = net.one_of(2, 3)
        padding = ((1, 1), (1, 1)) if kernel == 3 else "valid"
        net.add("maxpool", kernel=(kernel, kernel), stride=(2, 2), padding=padding)
    elif way == "average":
        net.conv(net.typical())
        net.add("avgpool", kernel=(2, 2), stride=(2, 2))
    elif way == "conv":
        net.conv(net.typical(), net.one_of(3, 3, 1), 2)
    else:
        net.conv(net.typical())
        net.dwconv(net.one_of(3, 5, 7), 2)
        net.conv(net.typical(), act=None)


def _plain(net: _Network) -> None:
    """Convolutions one after another, as in VGG."""
    width, bn = net.typical(), net.chance(0.5)
    for _ in range(net.random.integers(1, 3)):
        net.conv(width, net.one_of(3, 3, 3, 5, 1), bn=bn)


def _residual(net: _Network) -> None:
    """Two 3x3 convolutions and a skip connection, as in ResNet-18."""
    width = net.channels if net.chance(0.6) else net.typical()
    before = net.x
    net.conv(width, 3)
    after = net.conv(width, 3, act=None)
    _skip(net, before, after)


def _bottleneck(net: _Network) -> None:
    """1x1, 3x3 (maybe in groups) and 1x1, with a skip connection, as in ResNet-50."""
    before, inner = net.x, net.width(32, 192)
    groups = net.one_of(1, 1, 1, 2, 4, 8, 16, 32)
    inner = max(groups, inner // groups * groups)
    net.conv(inner)
    net.conv(inner, 3, groups=groups)
    width = net.channels * net.one_of(2, 4) if net.chance(0.5) else net.shape_of(before)[1]
    after = net.conv(width, act=None)
    _skip(net, before, after)


def _skip(net: _Network, before: str, after: str) -> None:
    """Add the input of a block to its result, through a 1x1 convolution if widths differ."""
    if net.shape_of(before) != net.shape_of(after):
        net.x = before
        before = net.conv(net.shape_of(after)[1], act=None)
    net.add("add", after, before)
    if net.chance(0.8):
        net.act()


def _grouped(net: _Network) -> None:
    """Convolutions in groups one after another, as the middle of RegNet and ResNeXt without the rest."""
    groups = net.one_of(2, 4, 8, 16, 32)
    for i in range(net.random.integers(2, 4)):
        of_group = net.typical() / groups
        step = 4 if of_group >= 4 and net.chance(0.8) else 1
        width = max(step, round(of_group / step) * step) * groups
        in_groups = i > 0 or net.channels % groups == 0
        net.conv(width, net.one_of(3, 3, 3, 5), groups=groups if in_groups else 1)


def _inverted(net: _Network) -> None:
    """Expand, depthwise, maybe squeeze-excite, and project, as in MobileNet-V2 and V3 and EfficientNet."""
    before, expansion = net.x, net.one_of(1, 2, 3, 4, 6)
    if expansion > 1:
        net.conv(net.channels * expansion)
    net.dwconv(net.one_of(3, 3, 5, 7))
    if net.chance(0.4):
        _squeeze_excite(net)
    width = net.shape_of(before)[1] if net.chance(0.7) else net.typical()
    after = net.conv(width, act=None)
    if net.shape_of(before) == net.shape_of(after):
        net.add("add", after, before)


def _squeeze_excite(net: _Network) -> None:
    x, channels = net.x, net.channels
    net.add("globalavgpool")
    net.conv(max(4, channels // net.one_of(4, 8, 16)), bn=False, act=net.one_of("relu", "relu", "swish"))
    net.conv(channels, bn=False, act=None)
    net.add("mul", x, net.act(net.one_of("sigmoid", "hsigmoid")))


def _separable(net: _Network) -> None:
    """Depthwise and 1x1, as in MobileNet-V1."""
    net.dwconv(net.one_of(3, 3, 5))
    net.conv(net.typical())


def _shuffle(net: _Network) -> None:
    """Split, convolve one half, join and shuffle, as in ShuffleNet-V2."""
    if net.channels % 4:
        net.conv(max(8, net.channels // 4 * 4))
    half = net.channels // 2
    cut = net.add("split", axis=1, sections=[half, half])
    net.add("conv", (cut, 1), out_channels=half, kernel=(1, 1), bias=False)
    net.add("bn")
    net.act()
    net.dwconv(net.one_of(3, 5, 7), act=None)
    right = net.conv(half)
    net.add("concat", (cut, 0), right, axis=1)
    net.add("channelshuffle", groups=2)


def _branches(net: _Network) -> None:
    """Branches side by side, joined, as in Inception and SqueezeNet."""
    before = net.x
    if net.chance(0.5):
        net.conv(max(8, net.channels // net.one_of(2, 4)), bn=net.chance(0.5))
        before = net.x
    ends = []
    kinds = net.random.permutation(["one", "three", "five", "pool", "tower"])
    for kind in kinds[: net.random.integers(2, 5)]:
        net.x, width = before, net.width(16, 96)
        if kind == "pool":
            net.add(net.one_of("maxpool", "avgpool"), kernel=(3, 3), stride=(1, 1), padding=((1, 1), (1, 1)))
            net.conv(width)
        elif kind == "tower":
            net.conv(max(8, width // 2))
            net.conv(width, 3)
            net.conv(width, 3)
        else:
            net.conv(width, {"one": 1, "three": 3, "five": 5}[str(kind)])
        ends.append(net.x)
    net.add("concat", *ends, axis=1)


def _dense(net: _Network) -> None:
    """Batch norm before convolutions, whose results are joined to their input, as in DenseNet."""
    for _ in range(net.random.integers(1, 4)):
        before, growth = net.x, net.width(12, 48)
        net.add("bn")
        net.act("relu")
        net.conv(4 * growth)
        net.conv(growth, 3, bn=False, act=None)
        net.add("concat", before, net.x, axis=1)


def _cell(net: _Network) -> None:
    """Sums of convolutions, pools and skips, as in NAS-Bench-201."""
    states = [net.x]
    for _ in range(2):
        parts = []
        for state in states:
            net.x = state
            kind = net.one_of("conv", "one", "pool", "skip")
            if kind == "conv":
                net.act("relu")
                net.conv(net.channels, 3, act=None)
            elif kind == "one":
                net.act("relu")
                net.conv(net.channels, act=None)
            elif kind == "pool":
                net.add("avgpool", kernel=(3, 3), stride=(1, 1), padding=((1, 1), (1, 1)))
            parts.append(net.x)
        total = parts[0]
        for part in parts[1:]:
            total = net.add("add", total, part)
        states.append(total)
        net.x = total


def _attention(net: _Network) -> None:
    """Transformer blocks over the positions of the map, as in MobileViT."""
    heads = net.one_of(1, 2, 4, 8)
    while net.side > 32:
        _shrink(net)
    width = max(16, net.width(48, 256) // (heads * 4) * heads * 4)
    net.conv(width)
    _, _, height, wide = net.shape
    tokens = height * wide
    net.add("reshape", shape=(1, width, tokens))
    net.add("transpose", perm=(0, 2, 1))
    for _ in range(net.random.integers(1, 3)):
        _transformer(net, tokens, width, heads)
    net.add("transpose", perm=(0, 2, 1))
    net.add("reshape", shape=(1, width, height, wide))


def _transformer(net: _Network, tokens: int, width: int, heads: int) -> None:
    before, deep = net.x, width // heads
    net.add("norm")
    normed = net.x
    parts = []
    for part in ("query", "key", "value"):
        net.add("fc", normed, out_features=width)
        net.add("reshape", shape=(1, tokens, heads, deep))
        parts.append(net.add("transpose", perm=(0, 2, 3, 1) if part == "key" else (0, 2, 1, 3)))
    net.add("matmul", parts[0], parts[1])
    net.add("mul", const=1 / math.sqrt(deep))
    net.add("softmax", axis=-1)
    net.add("matmul", net.x, parts[2])
    net.add("transpose", perm=(0, 2, 1, 3))
    net.add("reshape", shape=(1, tokens, width))
    net.add("fc", out_features=width)
    before = net.add("add", before, net.x)
    net.add("norm")
    net.add("fc", out_features=width * net.one_of(2, 3, 4))
    net.act(net.one_of("gelu", "gelu", "swish", "relu"))
    net.add("fc", out_features=width)
    net.add("add", before, net.x)


def _up_and_down(net: _Network) -> None:
    """Shrink, grow again and join with the input, as in U-Net."""
    if net.side < 8 or net.side % 2:
        _plain(net)
        return
    before, width = net.x, net.typical()
    net.add("maxpool", kernel=(2, 2), stride=(2, 2))
    net.conv(width, 3)
    way = net.one_of("upsample", "transposed", "shuffled")
    if way == "upsample":
        net.add("upsample", scale=(2.0, 2.0))
    elif way == "transposed":
        net.add("convtranspose", out_channels=max(8, width // 2), kernel=(2, 2), stride=(2, 2), bias=True)
    else:
        net.conv(max(8, width // 2) * 4, net.one_of(1, 3), bn=False, act=None)
        net.add("pixelshuffle", factor=2)
    net.add("concat", before, net.x, axis=1)
    net.conv(width, 3)


def _recurrent(net: _Network) -> None:
    """An LSTM and a dense layer over the positions of a map, as networks that read text have.

    See Shi et al., "An End-to-End Trainable Neural Network for Image-Based Sequence Recognition", 2017.
    """
    while net.side**2 > _MOST_STEPS:
        _shrink(net)
    _, channels, height, wide = net.shape
    net.add("reshape", shape=(1, channels, height * wide))
    net.add("transpose", perm=(2, 0, 1))
    net.add("lstm", hidden=net.width(32, 256), bias=True)
    net.add("fc", out_features=channels)
    net.add("transpose", perm=(1, 2, 0))
    net.add("reshape", shape=(1, channels, height, wide))


def _head(net: _Network) -> None:
    classes = net.one_of(*_CLASSES)
    if net.chance(0.3):
        net.conv(net.width(128, 1280))
    if net.chance(0.15) and net.side > 4:
        # Dense layers over the whole map, as in AlexNet and VGG.
        while net.side > 7:
            net.add("maxpool", kernel=(2, 2), stride=(2, 2))
        net.add("flatten")
        net.add("fc", out_features=net.width(256, 4096))
        net.act("relu")
    else:
        net.add("globalavgpool")
        net.add("flatten")
    for _ in range(net.one_of(0, 0, 1)):
        net.add("fc", out_features=net.width(128, 2048))
        net.act("relu")
    net.add("fc", out_features=classes)


#: Blocks, and how often each is drawn.
_BLOCKS: dict[Callable[[_Network], None], float] = {
    _plain: 2,
    _residual: 2,
    _bottleneck: 2,
    _grouped: 1.5,
    _inverted: 4,
    _separable: 2,
    _shuffle: 2,
    _branches: 2,
    _dense: 1.5,
    _cell: 2,
    _attention: 2,
    _up_and_down: 1.5,
}
