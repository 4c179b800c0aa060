"""Attention as every reader builds it: the scales, products and softmax that torch makes of it."""

from __future__ import annotations

from typing import Any

from ..graph.editing import Operand
from .products import Add, Factor


def attend(
    add: Add,
    query: Factor,
    key: Factor,
    value: Factor,
    scale: float | None = None,
    mask: Operand | bool = False,
    cap: float | None = None,
) -> Operand:
    """``softmax(scale * query x key) x value`` over computed tensors ``(batch, heads, positions, features)``.

    Args:
        add: adds an operator.
        query, key, value: the tensors; keys and values may have fewer heads, which the query's share.
        scale: by default 1 / √features.
        mask: a computed summand of the products, or whether a constant one is added.
        cap: a limit that a tanh sets to the products.
    """
    heads, positions, features = query.shape[1:]
    # As torch does, it scales both factors by the root of the scale.
    root = {"const": (scale or features**-0.5) ** 0.5}
    key, value = _repeated(add, key, heads), _repeated(add, value, heads)
    turned = _one(add, "transpose", key.operand, perm=(0, 1, 3, 2))
    weights = add("matmul", [_one(add, "mul", x, **root) for x in (query.operand, turned)], {})
    if cap:
        limited = _one(add, "tanh", _one(add, "div", weights, const=cap))
        weights = _one(add, "mul", limited, const=cap)
    if isinstance(mask, tuple):
        weights = add("add", [weights, mask], {})
    elif mask:
        weights = _one(add, "add", weights, const_shape=(positions, key.shape[2]))
    assert value.operand is not None
    return add("matmul", [_one(add, "softmax", weights), value.operand], {})


def _repeated(add: Add, tensor: Factor, heads: int) -> Factor:
    """``tensor`` with a copy of its heads for each of the query's that share them."""
    batch, shared, *rest = tensor.shape
    if shared == heads:
        return tensor
    operand = _one(add, "unsqueeze", tensor.operand, axes=(2,))
    operand = _one(add, "expand", operand, shape=(batch, shared, heads // shared, *rest))
    shape = (batch, heads, *rest)
    return Factor(_one(add, "reshape", operand, shape=shape), shape)


def _one(add: Add, op: str, operand: Operand | None, **attrs: Any) -> Operand:
    """An operator over one computed tensor."""
    assert operand is not None
    return add(op, [operand], attrs)
