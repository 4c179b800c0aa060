"""Networks of blocks, each of which can be spelled in several ways."""

# ruff: noqa: E501 - a spelling stands on one line, however long it is

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnmeter_nas.graph.rewrites import gelu, hswish, mish, sigmoid, swish

#: Layers that a ``$name`` in a block makes, each its own.
LAYERS = {
    "conv": "nn.Conv2d(8, 8, 3, padding=1)",
    "valid": "nn.Conv2d(8, 8, 3)",
    "plain": "nn.Conv2d(8, 8, 3, padding=1, bias=False)",
    "wide": "nn.Conv2d(24, 8, 1)",
    "down": "nn.Conv2d(8, 4, 1)",
    "up": "nn.Conv2d(4, 8, 1)",
    "narrow": "nn.Linear(8, 4)",
    "widen": "nn.Linear(4, 8)",
    "bn": "nn.BatchNorm2d(8)",
    "bn4": "nn.BatchNorm2d(4)",
    "shrink": "nn.Conv2d(2, 8, 2, 2)",
    "keep": "nn.Conv2d(32, 32, 1)",
}
_CALLS = {
    "relu6": "F.relu6", "relu": "torch.relu", "exp": "torch.exp", "tanh": "torch.tanh", "erfc": "torch.erfc",
    "erf": "torch.erf", "log": "torch.log", "log1p": "torch.log1p", "sigmoid": "torch.sigmoid", "hsigmoid": "F.hardsigmoid", "softplus": "F.softplus",
}  # fmt: skip
#: What the formulas of an operator are, in torch.
_PLAIN = {
    "gelu": "F.gelu(x)", "hswish": "F.hardswish(x)", "mish": "F.mish(x)", "sigmoid": "torch.sigmoid(x)",
    "softplus": "F.softplus(x)", "swish": "F.silu(x)",
}  # fmt: skip


def _in_torch(formula: str) -> str:
    return re.sub(r"\b([a-z]\w*)\(", lambda call: f"{_CALLS[call[1]]}(", formula)


#: By block, all its spellings, of ``x`` with 8 channels on a map of 8 x 8; the first is the plain one.
BLOCKS: dict[str, list[str]] = {
    op: [_PLAIN[op], *(_in_torch(f) for f in formulas if "clip" not in f and "erfc" not in f)]
    for module in (gelu, hswish, mish, sigmoid, swish)
    for op, formulas in module.SPELLINGS.items()
} | {
    "hsigmoid": ["F.hardsigmoid(x)", "F.relu6(x + 3) / 6", "(x / 6 + 0.5).clamp(0, 1)", "(3 + x).clamp(0., 6.) * (1 / 6)"],
    "relu6": ["F.relu6(x)", "torch.relu(x).clamp(max=6)", "x.clamp(0, 6)", "F.hardtanh(x, 0., 6.)"],
    "leaky relu": ["F.leaky_relu(x, 0.1)", "torch.maximum(x, 0.1 * x)", "torch.max(x / 10, x)"],
    "square": ["x * x + torch.exp(x)", "x ** 2 + torch.exp(x)", "torch.square(x) + torch.exp(x)"],
    "gate": ["x * x.amax([2, 3], keepdim=True)", "x.amax([2, 3], keepdim=True) * x",
             "x * x.amax(3, True).amax(2, True)", "x * x.amax([2, 3]).view(1, 8, 1, 1)",
             "x * F.adaptive_max_pool2d(x, 1)"],
    "nothing": ["$conv(x)", "$conv(x) + 0", "$conv(x * 1)", "$conv(0 + x)", "$conv(x) / 1.0", "$conv(x - 0.0)",
                "$conv(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2))", "$conv(x.reshape(1, 8, 64).view(1, 8, 8, 8))"],
    "scaled": ["x * 0.25 + torch.exp(x)", "x / 4 + torch.exp(x)"],
    "sum": ["x + torch.exp(x)", "0 + x + torch.exp(x)", "(x + 0) + torch.exp(x) * 1", "torch.stack([x, torch.exp(x)]).sum(0)"],
    "sum of three": ["x + torch.exp(x) + torch.tanh(x)", "x + (torch.exp(x) + torch.tanh(x))",
                     "torch.stack([x, torch.exp(x), torch.tanh(x)], 1).sum(1)",
                     "torch.stack([x, torch.exp(x), torch.tanh(x)], -1).sum(-1)"],
    "average of two": ["(x + torch.exp(x)) / 2", "(x + torch.exp(x)) * 0.5", "torch.stack([x, torch.exp(x)]).mean(0)"],
    "bias": ["$conv(x)", "$conv(x) + self.shift"],
    "batch norm": ["$bn($plain(x))", "$plain(x) * self.scale + self.shift",
                   "($plain(x) - self.shift) * self.scale + self.shift", "$bn($plain(x)) * self.scale"],
    "scale": ["$bn(torch.relu(x))", "torch.relu(x) * self.scale + self.shift"],
    "padding": ["$conv(x)", "$valid(F.pad(x, [1, 1, 1, 1]))"],
    "average": ["F.avg_pool2d(x, 3, 1, 1)", "F.avg_pool2d(F.pad(x, [1, 1, 1, 1]), 3, 1)"],
    "largest": ["F.max_pool2d(torch.relu(x), 3, 1, 1)", "F.max_pool2d(F.pad(torch.relu(x), [1, 1, 1, 1]), 3, 1)"],
    "pool": ["x * x.mean([2, 3], keepdim=True)", "x * x.mean(3, keepdim=True).mean(2, keepdim=True)",
             "x * x.mean(2).mean(2).view(1, 8, 1, 1)", "x * F.adaptive_avg_pool2d(x, 1)",
             "x * F.avg_pool2d(x, [8, 8])", "x * x.flatten(2).mean(2).view(1, 8, 1, 1)",
             "x * x.mean([2, 3])[:, :, None, None]", "x * (x.sum([2, 3], keepdim=True) / (x.size(2) * x.size(3)))",
             "x * (x.sum([2, 3]) * (1 / 64)).view(1, 8, 1, 1)", "x * (x.sum(3).sum(2).unsqueeze(2).unsqueeze(3) / 64)"],
    "shuffle": ["F.channel_shuffle(x, 2)", "x.view(1, 2, 4, 8, 8).transpose(1, 2).reshape(1, 8, 8, 8)",
                "x.view(1, 2, 4, 64).permute(0, 2, 1, 3).reshape(1, 8, 8, 8)",
                "torch.cat([x[:, 0::4], x[:, 1::4], x[:, 2::4], x[:, 3::4]], 1)"],
    "pixel shuffle": ["$shrink(F.pixel_shuffle(x, 2))",
                      "$shrink(x.view(1, 2, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(1, 2, 16, 16))"],
    "pixel unshuffle": ["F.pixel_shuffle($keep(F.pixel_unshuffle(x, 2)), 2)",
                        "F.pixel_shuffle($keep(x.view(1, 8, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 32, 4, 4)), 2)"],
    "join": ["$wide(torch.cat([x, torch.exp(x), x], 1))", "$wide(torch.cat([torch.cat([x, torch.exp(x)], 1), x], 1))"],
    "se": ["x * torch.sigmoid($up(torch.relu($down(x.mean([2, 3], keepdim=True)))))"] + [
        gate.format(f'$up({act})').replace('{pool}', pool)
        for (gate, act, pool) in [
            ("x * torch.sigmoid({})", "F.relu6($down({pool}))", "F.adaptive_avg_pool2d(x, 1)"),
            ("x * F.hardsigmoid({})", "F.hardswish($down({pool}))", "x.mean(3, keepdim=True).mean(2, keepdim=True)"),
            ("x * (F.relu6({} + 3) / 6)", "F.leaky_relu($down({pool}))", "x.mean([2, 3], keepdim=True)"),
            ("x * (({} / 6 + 0.5).clamp(0, 1))", "torch.relu($bn4($down({pool})))", "x.mean([2, 3], keepdim=True)"),
            ("x * ((torch.tanh({}) + 1) / 2)", "F.gelu($down({pool}))", "x.mean([2, 3], keepdim=True)"),
            ("x * torch.sigmoid($bn({}))", "$down({pool})", "x.mean([2, 3], keepdim=True)"),
            ("x * torch.sigmoid({})", "F.silu($down({pool}))", "x.mean([2, 3], keepdim=True)"),
            ("x * torch.sigmoid({})", "F.elu($down({pool}))", "F.avg_pool2d(x, [8, 8])"),
            ("x * F.relu6({} + 3) / 6", "torch.relu($down({pool}))", "x.mean([2, 3], keepdim=True)"),
            ("({} + 3).clamp(0, 6) * x / 6", "F.relu6($down({pool}))", "x.sum([2, 3], keepdim=True) / 64"),
            ("x * (torch.tanh({}) + 1) * 0.5", "F.mish($down({pool}))", "x.mean([2, 3]).view(1, 8, 1, 1)"),
            ("x / (1 + torch.exp(-{}))", "torch.relu($bn4($down({pool})))", "F.adaptive_avg_pool2d(x, 1)"),
        ]
    ] + ["x * torch.sigmoid($widen(torch.relu($narrow(x.mean([2, 3]))))).view(1, 8, 1, 1)",
         "x * torch.sigmoid($widen(torch.relu($narrow(x.mean(3).mean(2))))).view(1, 8, 1, 1).expand_as(x)",
         "x * F.relu6($widen(torch.relu($narrow(x.sum(3).sum(2) / 64))) + 3).view(1, 8, 1, 1) / 6"],
}  # fmt: skip

_TEMPLATE = """import torch
import torch.nn.functional as F
{package}

class Spelt(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1, 8, 1, 1))
        self.shift = torch.nn.Parameter(torch.ones(1, 8, 1, 1))
{layers}

    def forward(self, x):
{steps}
        return x
"""
_NUMBER = itertools.count()


def network(chosen: Sequence[tuple[str, int]], folder: Path, nni: bool = False) -> Any:
    """A network of ``(block, spelling)``, one after the other, with a convolution and a relu before each.

    It is written as a module into ``folder``, since TorchScript reads its source; of NNI's layers if ``nni``.
    """
    layers, steps = [], []

    def layer(match: re.Match[str]) -> str:
        layers.append(f"        self.l{len(layers)} = {LAYERS[match[1]]}")
        return f"self.l{len(layers) - 1}"

    for block, spelling in chosen:
        for line in ("torch.relu($conv(x))", BLOCKS[block][spelling]):
            steps.append("        x = " + re.sub(r"[$](\w+)", layer, line))
    name = f"spelt_{next(_NUMBER)}"
    package = "import nni.retiarii.nn.pytorch as nn" if nni else "from torch import nn"
    source = _TEMPLATE.format(package=package, layers="\n".join(layers), steps="\n".join(steps))
    (folder / f"{name}.py").write_text(source)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name).Spelt().eval()
    finally:
        sys.path.remove(str(folder))
