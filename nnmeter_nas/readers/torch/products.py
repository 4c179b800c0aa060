"""Sums of products in ATen's spellings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...graph.editing import Operand
from ..products import Factor, NoProductError, einsum, is_dense, product
from .operators import AtenCall, aten, joined, reads


def add_to(call: AtenCall, op: str, inputs: Sequence[Operand], attrs: Mapping[str, Any]) -> Operand:
    """Add an operator with one output for ``call``."""
    return call.add(op, inputs, attrs, []), 0


def _checked(call: AtenCall, value: Operand) -> list[Operand]:
    """The result ``value``, the shape of which is checked against that of torch."""
    if value not in call.inputs:  # an einsum may do nothing
        call.graph.nodes[value[0]]["declared"] = call.out_shapes[:1]
    return [value]


def factor(call: AtenCall, tensor: Any) -> Factor:
    """``tensor`` as a factor of a product."""
    return Factor(call.operand(tensor), tuple(tensor.shape))


@reads("fc")
def _linear(call: AtenCall) -> list[Operand] | None:
    """Weights are ``(out, in)``; computed ones make it a product."""
    x, (weights, (outer, inner)) = factor(call, call.args["input"]), factor(call, call.args["weight"])
    if weights is not None:
        weights = add_to(call, "transpose", [weights], {"perm": (1, 0)})
    return _with_summand(call, x, Factor(weights, (inner, outer)), call.args["bias"])


@reads("matmul")
def _matmul(call: AtenCall) -> list[Operand] | None:
    left, right, *_ = call.args.values()  # their names differ
    return _with_summand(call, factor(call, left), factor(call, right), None)


@aten("addmm", "addmv", "baddbmm", "addbmm")
def _summed_product(call: AtenCall) -> list[Operand] | None:
    """A product of matrices and a summand; both may be scaled."""
    summand, left, right, *_ = call.args.values()  # their names differ
    return _with_summand(
        call, factor(call, left), factor(call, right), summand if call.args["beta"] else None
    )


def _with_summand(call: AtenCall, left: Factor, right: Factor, summand: Any) -> list[Operand] | None:
    """A product and the sum with ``summand``, if any; a constant one is the bias of a dense layer."""
    if left.operand is None and right.operand is None:
        return None
    alpha, add = call.args.get("alpha", 1), partial(add_to, call)
    has_bias = summand is not None and call.operand(summand) is None and is_dense(left, right)
    value = product(add, left, right, has_bias)
    if call.op == "addbmm":
        value = add("sum", [value], {"axes": (0,), "keepdims": False})
    if alpha != 1:
        value = add("mul", [value], {"const": float(alpha)})
    if has_bias or summand is None:
        return _checked(call, value)
    return [joined(call, "add", [value], [summand], {})]


@aten("einsum")
def _einsum(call: AtenCall) -> list[Operand] | None:
    flat = call.args.get("path") or ()
    path = list(zip(flat[::2], flat[1::2], strict=True))
    try:
        factors = [factor(call, tensor) for tensor in call.args["tensors"]]
        return _checked(call, einsum(partial(add_to, call), call.args["equation"], factors, path))
    except NoProductError:
        return None


@aten("bilinear")
def _bilinear(call: AtenCall) -> list[Operand] | None:
    """For each output, a product of both inputs with a matrix of weights between them."""
    factors = [factor(call, call.args[name]) for name in ("input1", "weight", "input2")]
    value = einsum(partial(add_to, call), "...i,oij,...j->...o", factors)
    bias = call.args["bias"]
    return _checked(call, value) if bias is None else [joined(call, "add", [value], [bias], {})]
