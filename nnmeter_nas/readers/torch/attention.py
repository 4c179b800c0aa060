"""Attention that torch has chosen an implementation for, as in an exported program with decompositions."""

from __future__ import annotations

from functools import partial

from ...graph.editing import Operand
from ..attention import attend
from .operators import AtenCall, aten
from .products import add_to, factor


@aten("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
      "_scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def _chosen_attention(call: AtenCall) -> list[Operand] | None:
    """Its further outputs are for training."""
    args = call.args
    query, key, value = (factor(call, args[name]) for name in ("query", "key", "value"))
    if query.operand is None or key.operand is None or value.operand is None:
        return None
    mask = args.get("attn_mask", args.get("attn_bias"))
    masked = call.operand(mask) or bool(mask is not None or args.get("is_causal"))
    return [attend(partial(add_to, call), query, key, value, args.get("scale"), masked)]
