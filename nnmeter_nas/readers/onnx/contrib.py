"""Translate the operators that onnxruntime adds to ONNX, in its domain ``com.microsoft``.

Most of them are several operators of ONNX in one, made when onnxruntime saves an optimised model. They become
these again, so that a network has one latency whether or not it was optimised. The file rarely declares their
shapes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .operators import TRANSLATIONS, NoCanonicalFormError, OnnxNode, as_declared, conv, onnx_op
from .products import gemm
from .values import Value


def _microsoft(*ops: str) -> Any:
    return onnx_op(*(f"com.microsoft.{op}" for op in ops))


def _activated(node: OnnxNode, value: Value) -> list[Value]:
    """``value`` after the activation that the operator names."""
    name = node.attrs.get("activation")
    if not name:
        return [value]
    after = replace(node, op=name, inputs=[value])
    if name == "Clip":
        after.attrs = dict(zip(("min", "max"), node.attrs["activation_params"], strict=True))
    return TRANSLATIONS.get(name, as_declared)(after)


def _plus(node: OnnxNode, value: Value, summand: Value | None) -> Value:
    """``value`` plus a computed or constant tensor, or itself if there is none."""
    if summand is None:
        return value
    if summand.operand is not None:
        return node.emit("add", [value.operand, summand.operand])[0]
    return node.emit("add", [value.operand], {"const_shape": summand.shape or ()})[0]


def _swapped(node: OnnxNode, value: Value) -> Value:
    """``value`` with its last two dimensions exchanged."""
    perm = [*range(value.rank - 2), value.rank - 1, value.rank - 2]
    return node.emit("transpose", [value.operand], {"perm": tuple(perm)})[0]


@_microsoft("FusedConv")
def _fused_conv(node: OnnxNode) -> list[Value]:
    """A convolution, the addition of a computed tensor if there is one, and an activation."""
    [value] = conv(replace(node, inputs=node.inputs[:3]))
    return _activated(node, _plus(node, value, node.input(3)))


@_microsoft("NhwcConv", "NhwcFusedConv")
def _nhwc_conv(node: OnnxNode) -> list[Value]:
    """A fused convolution of a map whose channels come last; so may those of its weights."""
    weights, channels = node.weights(1), node.shape[-1] // node.attrs.get("group", 1)
    bias = node.input(2)
    if len(weights) != len(node.shape) or (bias is not None and bias.operand is not None):
        raise NoCanonicalFormError
    rank = len(weights)
    if weights[1] != channels or list(node.attrs.get("kernel_shape", weights[2:])) != list(weights[2:]):
        weights = (weights[0], weights[-1], *weights[1:-1])
    first = (0, rank - 1, *range(1, rank - 1))
    [x] = node.emit("transpose", [node.x.operand], {"perm": first})
    [value] = conv(replace(node, inputs=[x, Value(weights, 0), bias]))
    [value] = node.emit("transpose", [value.operand], {"perm": tuple(np.argsort(first).tolist())})
    return _activated(node, _plus(node, value, node.input(3)))


@_microsoft("FusedGemm")
def _fused_gemm(node: OnnxNode) -> list[Value]:
    [value] = gemm(node)
    return _activated(node, value)


@_microsoft("FusedMatMul", "TransposeMatMul")
def _fused_matmul(node: OnnxNode) -> list[Value]:
    """A product of matrices, each of which may be transposed first; then a factor."""
    if node.attrs.get("transBatchA") or node.attrs.get("transBatchB"):
        raise NoCanonicalFormError
    left, right = node.required(0), node.required(1)
    if min(left.rank, right.rank) < 2 or left.operand is None:
        raise NoCanonicalFormError
    if node.attrs.get("transA"):
        left = _swapped(node, left)
    if right.operand is None:  # the factor is one of the weights
        if right.rank != 2:
            raise NoCanonicalFormError
        inner, outer = reversed(node.weights(1)) if node.attrs.get("transB") else node.weights(1)
        attrs = {"in_features": inner, "out_features": outer, "bias": False}
        return node.emit("fc", [left.operand], attrs)
    if node.attrs.get("transB"):
        right = _swapped(node, right)
    [value] = node.emit("matmul", [left.operand, right.operand])
    alpha = node.attrs.get("alpha", 1.0)
    return [value] if alpha == 1 else node.emit("mul", [value.operand], {"const": alpha})


@onnx_op("SimplifiedLayerNormalization")
def _simplified_layer_norm(node: OnnxNode) -> list[Value]:
    """A norm that onnxruntime writes into ONNX's own domain."""
    return node.layer("norm")


@_microsoft("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layer_norm(node: OnnxNode) -> list[Value]:
    """A sum with the skip connection, a bias if there is one, and a norm; the last output is the sum."""
    bias = node.input(4 if node.op.endswith(".SkipLayerNormalization") else 3)
    total = _plus(node, _plus(node, node.x, node.required(1)), bias)
    [value] = node.emit("norm", [total.operand])
    by_product = Value(None, 0, value.operand)  # statistics
    return [value, by_product, by_product, total]


@_microsoft("GroupNorm", "SkipGroupNorm")
def _group_norm(node: OnnxNode) -> list[Value]:
    """A group norm, before it sums if it skips, and SiLU after it if the attribute says so."""
    total = _plus(node, _plus(node, node.x, node.input(3)), node.input(4))
    [value] = node.emit("norm", [total.operand])
    if node.attrs.get("activation"):
        [value] = node.emit("swish", [value.operand])
    return [value, total]


@_microsoft("EmbedLayerNormalization")
def _embed_layer_norm(node: OnnxNode) -> list[Value]:
    """Rows of two or three tables, their sum, and a norm."""
    words, segments = node.required(0), node.input(1)
    shape = (*(words.shape or ()), node.weights(2)[-1])
    [total] = node.emit("gather", [words.operand], {}, shape)
    total = _plus(node, total, Value(shape[1:], 0))  # one row for each position
    if segments is not None:
        [rows] = node.emit("gather", [segments.operand], {}, shape)
        total = _plus(node, total, rows)
    [value] = node.emit("norm", [total.operand])
    return [value, Value(None, 0, value.operand), total]


@_microsoft("BiasAdd", "BiasDropout")
def _bias_add(node: OnnxNode) -> list[Value]:
    """The sum of a tensor, a bias and a skip connection. A dropout does nothing."""
    return [_plus(node, _plus(node, node.x, node.input(1)), node.input(2))]


@_microsoft("BiasSoftmax")
def _bias_softmax(node: OnnxNode) -> list[Value]:
    return node.emit("softmax", [_plus(node, node.x, node.required(1)).operand])


@_microsoft("BiasSplitGelu")
def _bias_split_gelu(node: OnnxNode) -> list[Value]:
    """A bias, and one half times the GELU of the other."""
    total = _plus(node, node.x, node.required(1))
    half = node.shape[-1] // 2
    attrs = {"axis": len(node.shape) - 1, "sections": [half, half]}
    one, other = node.emit("split", [total.operand], attrs)
    [gate] = node.emit("gelu", [other.operand])
    return node.emit("mul", [one.operand, gate.operand])
