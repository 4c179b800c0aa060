"""The float calls that torch's calls on integers stand for.

Torch runs these on real integer tensors only, so the recorder makes the float call in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ...ops import NAMES

if TYPE_CHECKING:
    import torch

_NAMESPACE = "quantized::"
#: Integer operator -> the float function of ``torch.nn.functional`` or ``torch``, and the arguments it takes.
_FORMS: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(("quantized::add", "quantized::add_scalar"), ("add", (0, 1))),
    **dict.fromkeys(("quantized::mul", "quantized::mul_scalar"), ("mul", (0, 1))),
    "quantized::matmul": ("matmul", (0, 1)),
    "quantized::cat": ("cat", (0, 1)),
    "quantized::sigmoid": ("sigmoid", (0,)),
    "quantized::hardswish": ("hardswish", (0,)),
    "quantized::relu6": ("relu6", (0,)),
    "quantized::elu": ("elu", (0,)),
    "quantized::celu": ("celu", (0,)),
    "quantized::dropout": ("clone", (0,)),
    "quantized::leaky_relu": ("leaky_relu", (0, 1)),
    "quantized::prelu": ("prelu", (0, 1)),
    "quantized::softmax": ("softmax", (0, 1)),
    "quantized::clamp": ("clamp", (0, 1, 2)),
    "quantized::threshold": ("threshold", (0, 1, 2)),
    "quantized::layer_norm": ("layer_norm", (0, 1, 2, 3)),
    "quantized::group_norm": ("group_norm", (0, 1, 2, 3)),
    "quantized::max_pool1d": ("max_pool1d", (0, 1, 2, 3, 4, 5)),
    "quantized::max_pool2d": ("max_pool2d", (0, 1, 2, 3, 4, 5)),
    **{f"quantized::batch_norm{rank}": ("batch_norm", (0, 3, 4, 1, 2)) for rank in ("", "1d", "2d", "3d")},
    "_int_mm": ("mm", (0, 1)),
    "_weight_int8pack_mm": ("linear", (0, 1)),
}
#: Integer operators of ATen whose float form is not known.
_OTHERS = frozenset({"_weight_int4pack_mm", "quantized_lstm", "quantized_gru"})


@cache
def is_quantised(op: str) -> bool:
    """Whether ATen's ``op`` changes to or from integers, or computes with them."""
    declared = NAMES["torch"].get(op)
    return (declared is not None and declared.quantized) or (
        op.startswith(_NAMESPACE) or op in _FORMS or op in _OTHERS
    )


def float_form(op: str, args: Mapping[str, Any]) -> Callable[[], Any] | None:
    """Return a function that makes the float call that ``op`` stands for; None if it is not known.

    Args:
        op: name of an integer operator.
        args: its arguments, in the order of its schema.
    """
    import torch
    import torch.nn.functional as F

    name = op.removesuffix("_dynamic")
    base = name if name in _FORMS else name.removesuffix("_relu")
    given = list(args.values())
    call: Callable[[], Any]
    if base in _FORMS:
        function, places = _FORMS[base]
        call = partial(getattr(F, function, None) or getattr(torch, function), *(given[i] for i in places))
    elif base == "quantized::linear":
        weight, bias = given[1].unpack()
        call = partial(F.linear, given[0], _shaped(weight), _shaped(bias))
    elif base.startswith("quantized::conv") and base.endswith(("1d", "2d", "3d")):
        call = _convolution(base.removeprefix(_NAMESPACE), given[0], given[1])
    else:
        return None
    return call if base == name else lambda: F.relu(call())


def _convolution(name: str, x: torch.Tensor, packed: Any) -> Callable[[], Any]:
    """A convolution; the weights of one dimension are packed as those of two."""
    import torch.nn.functional as F

    weight, bias = packed.unpack()
    rank = int(name[-2])
    sizes = {key: getattr(packed, key)()[-rank:] for key in ("stride", "padding", "dilation")}
    if "transpose" in name:
        sizes["output_padding"] = packed.output_padding()[-rank:]
    shaped = _shaped(weight).reshape(*weight.shape[:2], *weight.shape[-rank:])
    return partial(getattr(F, name), x, shaped, _shaped(bias), groups=packed.groups(), **sizes)


def _shaped(weight: torch.Tensor | None) -> Any:
    """A float tensor with the shape of ``weight`` and without values."""
    import torch

    return None if weight is None else torch.empty(weight.shape, device="meta")
