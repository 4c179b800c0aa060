"""The operators: each is declared once, in the file of its family.

A declaration holds the operator's names here and in every format, its shape rule, its work, and the type of
its kernel. Importing this package declares all of them. To declare your own operator, see
``docs/adding_an_operator.md``.
"""

from . import (
    activations,
    convolutions,
    dense,
    elementwise,
    joining,
    layout,
    normalisation,
    pooling,
    quantisation,
    recurrent,
    reductions,
    sources,
)
from ._registry import (
    FORMATS,
    NAMES,
    OPERATORS,
    QUANTIZED_OPS,
    ROLES,
    RULE_NAMES,
    VIEW_OPS,
    Count,
    Node,
    Operator,
    Role,
    Shape,
    ShapeRule,
    Work,
    kernel_of,
    operator,
)
from ._shapes import Padding, are_sizes, axis_of, broadcast, only, spatial_attrs, window_out

__all__ = [
    "FORMATS",
    "NAMES",
    "OPERATORS",
    "QUANTIZED_OPS",
    "ROLES",
    "RULE_NAMES",
    "VIEW_OPS",
    "Count",
    "Node",
    "Operator",
    "Padding",
    "Role",
    "Shape",
    "ShapeRule",
    "Work",
    "activations",
    "are_sizes",
    "axis_of",
    "broadcast",
    "convolutions",
    "dense",
    "elementwise",
    "joining",
    "kernel_of",
    "layout",
    "normalisation",
    "only",
    "operator",
    "pooling",
    "quantisation",
    "recurrent",
    "reductions",
    "sources",
    "spatial_attrs",
    "window_out",
]
