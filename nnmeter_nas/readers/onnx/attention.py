"""Attention that is one operator, of ONNX itself and of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...graph.editing import Operand
from ...ops import Shape
from ..attention import attend
from ..products import Factor
from .operators import NoCanonicalFormError, OnnxNode, onnx_op
from .products import adder, value_of
from .values import Value


@dataclass(frozen=True)
class _Attention:
    """Adds the operators of an attention.

    Attributes:
        node: the ONNX operator.
    """

    node: OnnxNode

    def add(self, op: str, *inputs: Operand, **attrs: Any) -> Operand:
        """Add an operator, and return its first output."""
        return adder(self.node)(op, inputs, attrs)

    def shape(self, operand: Operand) -> Shape:
        """Shape of ``operand``."""
        return value_of(self.node, operand).shape or ()

    def input(self, index: int) -> Operand | None:
        """Input ``index``; None if it is absent or constant."""
        value = self.node.input(index)
        return None if value is None else value.operand

    def computed(self, index: int) -> Operand:
        """Input ``index``, which must be computed."""
        operand = self.input(index)
        if operand is None:
            raise NoCanonicalFormError
        return operand

    def heads(self, tensor: Operand, number: int) -> Operand:
        """``(batch, positions, features)`` as ``(batch, heads, positions, features of one)``."""
        shape = self.shape(tensor)
        if len(shape) == 4:
            return tensor
        batch, positions, features = shape
        split = self.add("reshape", tensor, shape=(batch, positions, number, features // number))
        return self.add("transpose", split, perm=(0, 2, 1, 3))

    def after(self, tensor: Operand, past: int) -> Operand:
        """``tensor`` behind that of earlier positions, which is input ``past``."""
        earlier = self.input(past)
        return tensor if earlier is None else self.add("concat", earlier, tensor, axis=2)

    def attend(self, query: Operand, key: Operand, value: Operand, mask: Operand | bool) -> Operand:
        """The attention itself, with the scale and the limit that the operator says."""
        add, attrs = adder(self.node), self.node.attrs
        first, second, third = (Factor(operand, self.shape(operand)) for operand in (query, key, value))
        return attend(add, first, second, third, attrs.get("scale"), mask, attrs.get("softcap"))

    def joined(self, tensor: Operand) -> Operand:
        """``(batch, heads, positions, features of one)`` as ``(batch, positions, features)``."""
        tensor = self.add("transpose", tensor, perm=(0, 2, 1, 3))
        batch, positions, heads, features = self.shape(tensor)
        return self.add("reshape", tensor, shape=(batch, positions, heads * features))

    def mask(self, index: int) -> Operand | bool:
        """The summand at input ``index``, or whether there is a constant one."""
        return self.input(index) or self.node.input(index) is not None

    def values(self, *operands: Operand) -> list[Value]:
        """The outputs of the operator."""
        return [value_of(self.node, operand) for operand in operands]


@onnx_op("Attention")
def _attention(node: OnnxNode) -> list[Value]:
    """Its inputs have an axis for the heads, or none, as then its result."""
    build, attrs = _Attention(node), node.attrs
    numbers = (attrs.get(f"{name}_num_heads", 0) for name in ("q", "kv", "kv"))
    query, key, value = (build.heads(build.computed(i), number) for i, number in enumerate(numbers))
    key, value = build.after(key, 4), build.after(value, 5)
    result = build.attend(query, key, value, build.mask(3) or bool(attrs.get("is_causal")))
    return build.values(result if len(node.shape) == 4 else build.joined(result), key, value)


@onnx_op("com.microsoft.MultiHeadAttention", "com.microsoft.GroupQueryAttention")
def _heads_attention(node: OnnxNode) -> list[Value]:
    """Three inputs without an axis for the heads; keys and values may have fewer heads."""
    build, number = _Attention(node), node.attrs["num_heads"]
    grouped = "kv_num_heads" in node.attrs
    parts = [build.computed(index) for index in range(3)]
    if any(len(build.shape(part)) not in (3, 4) for part in parts):
        raise NoCanonicalFormError
    if not grouped and node.input(3) is not None:
        parts = [build.add("add", part, const_shape=build.shape(part)[-1:]) for part in parts]
    numbers = [number, *[node.attrs["kv_num_heads"] if grouped else number] * 2]
    query, key, value = (build.heads(*pair) for pair in zip(parts, numbers, strict=True))
    past = 3 if grouped else 6
    key, value = build.after(key, past), build.after(value, past + 1)
    masked = (build.mask(5) or build.mask(4)) if not grouped else True
    result = build.attend(query, key, value, masked or bool(node.attrs.get("unidirectional")))
    return build.values(build.joined(result), key, value)


@onnx_op("com.microsoft.Attention")
def _whole_attention(node: OnnxNode) -> list[Value]:
    """One dense layer makes queries, keys and values."""
    build, number = _Attention(node), node.attrs["num_heads"]
    if build.input(4) is not None:  # keys and values of earlier positions, in one tensor
        raise NoCanonicalFormError
    in_features, out_features = node.weights(1)
    sizes = node.attrs.get("qkv_hidden_sizes") or [out_features // 3] * 3
    dense = build.add("fc", build.computed(0), in_features=in_features, out_features=out_features)
    split, _ = build.add("split", dense, axis=2, sections=list(sizes))
    query, key, value = (build.heads((split, slot), number) for slot in range(3))
    masked = build.mask(5) or build.mask(3) or bool(node.attrs.get("unidirectional"))
    return build.values(build.joined(build.attend(query, key, value, masked)))
