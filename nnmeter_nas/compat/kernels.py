"""nn-Meter's kernel detector and the features of kernels, with its names and in its form.

A kernel is a dict: ``op`` such as "conv-bn-relu", ``name``, ``input_tensors`` (shapes, NHWC), ``inbounds``
and ``outbounds`` (names of kernels), and where they apply ``ks``, ``strides``, ``inputh``, ``inputw``,
``cin``, and ``cout`` or ``output_tensors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from ..graph.shapes import Shape
from ..kernels.fusion import FusionRules, Kernel, fuse
from ..packs.nnmeter1.rules import NNMETER_NAMES
from ..packs.pack import parse_rule_file
from ..readers import read_model
from .helpers import get_conv_flop_params, get_dwconv_flop_params, get_fc_flop_params

__all__ = [
    "KernelDetector",
    "get_flops_params",
    "get_kernel_name",
    "get_predict_features",
    "merge_conv_kernels",
]

#: Kernel predictor of a kernel, where their names differ.
_PREDICTORS = {
    **dict.fromkeys(("global-pool", "gap"), "global-avgpool"),
    **dict.fromkeys(("SE", "SE-relu", "se", "se-relu"), "se"),
    "add-relu": "addrelu",
    "avg-pool": "avgpool",
    "bn-relu": "bnrelu",
    "channel_shuffle": "channelshuffle",
    "fc-relu": "fc",
    "max-pool": "maxpool",
}
#: Kernel predictors that see only the map.
_BY_MAP = {"bn", "bnrelu", "channelshuffle", "hswish", "relu", "se", "split"}
#: Number of tensors of a concatenation that its predictor sees.
_CONCATENATED = 4


class KernelDetector:
    """Splits a graph in nn-Meter IR into the kernels that a device runs.

    Args:
        rule_file: nn-Meter's ``fusion_rules.json`` of the device, or fusion rules of this package.

    Raises:
        PackError: the file holds no fusion rules.
    """

    def __init__(self, rule_file: str | Path | FusionRules) -> None:
        if isinstance(rule_file, FusionRules):
            self._rules: FusionRules = rule_file
        else:
            self._rules = parse_rule_file(Path(rule_file).read_bytes(), str(rule_file))
        self._kernel_graph = nx.DiGraph()

    def load_graph(self, graph: Mapping[str, Any]) -> None:
        """Find the kernels of ``graph``.

        Raises:
            ReaderError, GraphError, ShapeError: the graph cannot be read.
        """
        self._kernel_graph = fuse(read_model(graph, "nnmeter-ir"), self._rules)

    def get_kernels(self) -> list[dict[str, Any]]:
        """Return the kernels of the graph that was loaded."""
        kernels = [data["kernel"] for _, data in self._kernel_graph.nodes(data=True)]
        ops = {node: nn_meter_op(kernel) for node, kernel in zip(self._kernel_graph, kernels, strict=True)}
        names = {node: f"{op}#{i}" for i, (node, op) in enumerate(ops.items())}
        return [
            {
                "op": ops[node],
                "name": names[node],
                **_description(kernel, ops[node]),
                "inbounds": [names[other] for other in self._kernel_graph.predecessors(node)],
                "outbounds": [names[other] for other in self._kernel_graph.successors(node)],
            }
            for node, kernel in zip(self._kernel_graph, kernels, strict=True)
        ]


def nn_meter_op(kernel: Kernel) -> str:
    """Name of a kernel such as "conv-bn-relu"."""
    return "-".join(NNMETER_NAMES.get(part, part) for part in (kernel.op, *kernel.joined))


def _description(kernel: Kernel, op: str) -> dict[str, Any]:
    """Describe the sizes of a kernel in nn-Meter's words."""
    inputs, outputs = map(_nhwc, kernel.in_shapes), list(map(_nhwc, kernel.out_shapes))
    found: dict[str, Any] = {"input_tensors": list(inputs)[: 1 if op == "hswish" else None]}
    for key, attr in (("ks", "kernel"), ("strides", "stride")):
        if kernel.attrs.get(attr) is not None:
            found[key] = list(kernel.attrs[attr])
    if found["input_tensors"]:
        first = found["input_tensors"][0]
        if len(first) == 4:
            found |= {"inputh": first[1], "inputw": first[2]}
        found["cin"] = first[-1]
    return found | ({"cout": outputs[0][-1]} if len(outputs) == 1 else {"output_tensors": outputs})


def _nhwc(shape: Shape) -> list[int]:
    return [*shape[:1], *shape[2:], *shape[1:2]]


def get_kernel_name(optype: str) -> str:
    """Return the name of the kernel predictor for a kernel such as "conv-relu".

    >>> get_kernel_name("conv-relu"), get_kernel_name("gap"), get_kernel_name("concat")
    ('conv-bn-relu', 'global-avgpool', 'concat')
    """
    merged = merge_conv_kernels(optype)
    return _PREDICTORS.get(merged, merged)


def merge_conv_kernels(kernelname: str) -> str:
    """Return the one name of all kernels of convolutions, and of depthwise convolutions; others stay."""
    if "dwconv" in kernelname:
        return "dwconv-bn-relu"
    return "conv-bn-relu" if "conv" in kernelname else kernelname


def get_flops_params(
    kernel_type: str, hw: float, cin: float, cout: float, kernelsize: float, stride: float
) -> tuple[float, float] | None:
    """Return flops and weights of a kernel of a convolution or a dense layer, else None."""
    if "dwconv" in kernel_type:
        return get_dwconv_flop_params(hw, cout, kernelsize, stride)
    if "conv" in kernel_type:
        return get_conv_flop_params(hw, cin, cout, kernelsize, stride)
    return get_fc_flop_params(cin, cout) if "fc" in kernel_type else None


def get_predict_features(config: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, list[float]]]:
    """Return what nn-Meter's kernel predictors see of kernels: number -> op -> features.

    Kernels that nn-Meter has no predictor for are left out.

    >>> get_predict_features([{"op": "fc", "cin": 4, "cout": 10, "input_tensors": [[1, 4]]}])
    {0: {'fc': [4, 10, 4.5e-05, 9e-05]}}
    """
    rows = [(item["op"], _features(item)) for item in config]
    known = [(op, row) for op, row in rows if row is not None]
    return {i: {op: row} for i, (op, row) in enumerate(known)}


def _features(kernel: Mapping[str, Any]) -> list[float] | None:
    name = get_kernel_name(kernel["op"])
    first: list[int] = kernel["input_tensors"][0]
    side, channels = (first[1], first[3]) if len(first) == 4 else (first[0], first[-1])
    if name in ("conv-bn-relu", "dwconv-bn-relu", "maxpool", "avgpool"):
        window, stride = kernel["ks"][1], kernel["strides"][1] if "strides" in kernel else 1
        sizes = [kernel["inputh"], kernel["cin"], kernel["cout"], window, stride]
        if name.endswith("pool"):
            return sizes
        flops, params = get_flops_params(name, *sizes) or (0.0, 0.0)
        return [*sizes, flops / 2e6, params / 1e6]
    if name == "fc":
        flops, _ = get_fc_flop_params(kernel["cin"], kernel["cout"])
        return [kernel["cin"], kernel["cout"], flops / 2e6, flops / 1e6]
    if name == "global-avgpool":
        return [1, kernel["cin"]]
    if name in ("addrelu", "add"):
        return [side, channels, kernel["input_tensors"][1][3]]
    if name == "concat":
        joined = [shape[-1] for shape in kernel["input_tensors"]]
        count = len(joined) if len(joined) <= _CONCATENATED else _CONCATENATED + 2  # nn-Meter's number
        return [side, count, *[*joined, *[0] * _CONCATENATED][:_CONCATENATED]]
    return [side, channels] if name in _BY_MAP else None
