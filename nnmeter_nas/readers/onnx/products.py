"""Sums of products in ONNX's spellings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.editing import Operand
from ..products import Add, Factor, NoProductError, einsum, is_dense, product
from .operators import NoCanonicalFormError, OnnxNode, onnx_op
from .values import Value


def adder(node: OnnxNode) -> Add:
    """What adds operators for ``node``."""

    def add(op: str, inputs: Sequence[Operand], attrs: Mapping[str, Any]) -> Operand:
        [value, *_] = node.emit(op, inputs, dict(attrs))
        assert value.operand is not None
        return value.operand

    return add


def value_of(node: OnnxNode, operand: Operand) -> Value:
    """The value that ``operand`` of the model graph is."""
    producer, slot = operand
    return Value(node.graph.nodes[producer]["out_shapes"][slot], node.x.elem_type, operand)


def _factor(node: OnnxNode, index: int, transposed: bool = False) -> Factor:
    """Input ``index``; its rows and columns may be swapped, which costs nothing if it is constant."""
    value = node.required(index)
    shape, operand = value.shape or (), value.operand
    if not transposed:
        return Factor(operand, shape)
    *lead, rows, columns = shape
    if operand is not None:
        last = len(lead)
        operand = adder(node)("transpose", [operand], {"perm": (*range(last), last + 1, last)})
    return Factor(operand, (*lead, columns, rows))


@onnx_op("Gemm")
def gemm(node: OnnxNode) -> list[Value]:
    """A product and a sum; a dense layer, of which a constant summand is the bias, if a factor is weights."""
    left, right = (_factor(node, i, bool(node.attrs.get(key))) for i, key in enumerate(("transA", "transB")))
    summand, add = node.input(2), adder(node)
    if left.operand is None and right.operand is None:
        raise NoCanonicalFormError
    is_bias = summand is not None and summand.operand is None and is_dense(left, right)
    result = product(add, left, right, is_bias)
    if summand is not None and summand.operand is not None:
        result = add("add", [result, summand.operand], {})
    elif summand is not None and not is_bias:
        result = add("add", [result], {"const_shape": summand.shape})
    return [value_of(node, result)]


@onnx_op("MatMul")
def _matmul(node: OnnxNode) -> list[Value]:
    """A dense layer if the second factor is a matrix of weights, else a product."""
    return [value_of(node, product(adder(node), _factor(node, 0), _factor(node, 1)))]


@onnx_op("Einsum")
def _einsum(node: OnnxNode) -> list[Value]:
    factors = [_factor(node, index) for index in range(len(node.inputs))]
    try:
        return [value_of(node, einsum(adder(node), node.attrs["equation"], factors))]
    except NoProductError:
        raise NoCanonicalFormError from None
