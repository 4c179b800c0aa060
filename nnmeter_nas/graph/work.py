"""Work of a model graph, operator by operator: floating-point operations and parameters.

A multiply-add is two operations, and as :mod:`torch.utils.flop_counter` has it, only products of matrices and
convolutions are counted: an activation, pool or batch norm takes none. Parameters are weights and biases, a
batch norm's two for each channel among them; its running mean and variance are none. What belongs to a layer
that is called twice is counted twice.

A convolution has a bias if ``attrs["bias"]`` says so, a dense layer unless it says otherwise, and a batch
norm weights unless ``attrs["affine"]`` says otherwise. Other operators with weights say in
``attrs["params"]`` how many these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx

from .shapes import SHAPE_RULES

#: Data of a node of a finished model graph -> amount of work.
Count = Callable[[Mapping[str, Any]], int]

#: Operators with weights whose number their shapes do not tell.
_WEIGHTS_UNTOLD = frozenset({"norm", "prelu"})


def flops(graph: nx.DiGraph) -> int:
    """Floating-point operations of a finished model graph, as far as its operators are known.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> _ = add_op(graph, "y", "fc", [add_input(graph, "x", (1, 8))], {"out_features": 10})
    >>> flops(finish(graph)), params(graph)
    (160, 90)
    """
    return sum(flops_by_operator(graph).values())


def params(graph: nx.DiGraph) -> int:
    """Parameters of a finished model graph, as far as its operators are known."""
    return sum(params_by_operator(graph).values())


def flops_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Floating-point operations of each operator by name; an operator of an unknown kind is left out."""
    known = ((name, data) for name, data in graph.nodes(data=True) if data["op"] in SHAPE_RULES)
    return {name: _FLOPS[data["op"]](data) if data["op"] in _FLOPS else 0 for name, data in known}


def params_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Parameters of each operator by name; an operator that does not tell them is left out."""
    found = {}
    for name, data in graph.nodes(data=True):
        if "params" in data["attrs"]:
            found[name] = int(data["attrs"]["params"])
        elif data["op"] in _PARAMS:
            found[name] = _PARAMS[data["op"]](data)
        elif data["op"] in SHAPE_RULES and data["op"] not in _WEIGHTS_UNTOLD:
            found[name] = 0
    return found


def _conv_flops(data: Mapping[str, Any]) -> int:
    """Every element written takes a window of the input channels of its group."""
    window = math.prod(data["attrs"]["kernel"]) * data["in_shapes"][0][1] // data["attrs"].get("groups", 1)
    return 2 * math.prod(data["out_shapes"][0]) * window


def _convtranspose_flops(data: Mapping[str, Any]) -> int:
    """Every element read goes into a window of the output channels of its group."""
    window = math.prod(data["attrs"]["kernel"]) * data["out_shapes"][0][1] // data["attrs"].get("groups", 1)
    return 2 * math.prod(data["in_shapes"][0]) * window


def _product_flops(data: Mapping[str, Any]) -> int:
    """Every element written takes a row of the first operand."""
    return 2 * math.prod(data["out_shapes"][0]) * int(data["in_shapes"][0][-1])


def _conv_params(data: Mapping[str, Any]) -> int:
    """``in * out / groups * kernel``, transposed or not, and a bias for each output."""
    attrs, inner, outer = data["attrs"], data["in_shapes"][0][1], data["out_shapes"][0][1]
    weights = inner * outer // attrs.get("groups", 1) * math.prod(attrs["kernel"])
    return int(weights + outer * attrs.get("bias", False))


def _fc_params(data: Mapping[str, Any]) -> int:
    """``in * out``, and a bias for each output."""
    inner, outer = data["in_shapes"][0][-1], data["out_shapes"][0][-1]
    return int(inner * outer + outer * data["attrs"].get("bias", True))


def _bn_params(data: Mapping[str, Any]) -> int:
    """A factor and a summand for each channel."""
    return int(2 * data["in_shapes"][0][1] * data["attrs"].get("affine", True))


_FLOPS: dict[str, Count] = {
    "conv": _conv_flops,
    "dwconv": _conv_flops,
    "convtranspose": _convtranspose_flops,
    "fc": _product_flops,
    "matmul": _product_flops,
}
_PARAMS: dict[str, Count] = {
    "conv": _conv_params,
    "dwconv": _conv_params,
    "convtranspose": _conv_params,
    "fc": _fc_params,
    "bn": _bn_params,
}
