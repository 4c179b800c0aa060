"""Tell which operators of a TFLite file XNNPACK ran in each row of its table.

XNNPACK names its rows after what they compute, not after tensors. It keeps the order of the file, though, and
each operator that computes anything is one row: so the two sequences are laid side by side. Paddings,
activations and changes of layout have a row or none, as they join a neighbour where XNNPACK can; their rows
lie between those of their neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ...readers.tflite.file import Operator
from .benchmark import Row

_BINARY = {
    "ADD": "add", "SUB": "subtract", "MUL": "multiply", "DIV": "divide", "MAXIMUM": "maximum",
    "MINIMUM": "minimum", "SQUARED_DIFFERENCE": "squared difference",
}  # fmt: skip
_UNARY = {
    "ELU": "elu", "HARD_SWISH": "hardswish", "LOGISTIC": "sigmoid", "TANH": "tanh", "NEG": "negate",
    "ABS": "abs", "SIGN": "sign", "FLOOR": "floor", "CEIL": "ceiling", "ROUND": "bankers rounding",
    "SQRT": "square root", "RSQRT": "reciprocal square root", "EXP": "exp", "LOG": "log", "SIN": "sine",
    "COS": "cosine", "LEAKY_RELU": "leaky relu",
}  # fmt: skip
#: What XNNPACK may call an operator that has a row; some versions do not tell element-wise ones apart.
_ROWS: dict[str, frozenset[str]] = {
    "CONV_2D": frozenset({"convolution", "fully connected"}),
    "DEPTHWISE_CONV_2D": frozenset({"convolution"}),
    "TRANSPOSE_CONV": frozenset({"deconvolution"}),
    "FULLY_CONNECTED": frozenset({"fully connected", "dynamic fully connected"}),
    "BATCH_MATMUL": frozenset({"batch matrix multiply", "fully connected", "dynamic fully connected"}),
    "AVERAGE_POOL_2D": frozenset({"average pooling", "global average pooling"}),
    "MAX_POOL_2D": frozenset({"max pooling"}),
    "MEAN": frozenset({"mean", "global average pooling"}),
    "SUM": frozenset({"sum", "global sum pooling"}),
    "REDUCE_MAX": frozenset({"reduce max"}),
    "REDUCE_MIN": frozenset({"reduce min"}),
    "SOFTMAX": frozenset({"softmax"}),
    "DEPTH_TO_SPACE": frozenset({"depth to space"}),
    "SPACE_TO_DEPTH": frozenset({"space to depth"}),
    "GELU": frozenset({"gelu", "approxgelu", "unary elementwise"}),
    **{kind: frozenset({word, "binary elementwise"}) for kind, word in _BINARY.items()},
    **{kind: frozenset({word, word.replace(" ", ""), "unary elementwise"}) for kind, word in _UNARY.items()},
}
#: The same of operators that may have no row, or several.
_LOOSE: dict[str, frozenset[str]] = {
    "RELU": frozenset({"clamp"}),
    "RELU6": frozenset({"clamp"}),
    "PAD": frozenset({"constant pad"}),
    "RESHAPE": frozenset({"static reshape", "copy", "fuse dims"}),
    "CONCATENATION": frozenset({"copy", "concatenate"}),
    "SPLIT": frozenset({"copy", "slice", "even split"}),
    "SPLIT_V": frozenset({"copy", "slice", "even split"}),
    "TRANSPOSE": frozenset({"transpose", "copy"}),
}
_ACTIVATIONS, _CLAMP = ("RELU", "RELU6"), "clamp"


def operators_of_rows(rows: Sequence[Row], operators: Sequence[Operator]) -> list[int] | None:
    """Return the position in ``operators`` of what each row ran; None if the two sequences do not fit."""
    words = [row.kind.partition("(")[0].strip().lower() for row in rows]
    loose = frozenset[str]().union(*_LOOSE.values())
    fixed_rows = [i for i, word in enumerate(words) if word not in loose]
    fixed = [i for i, operator in enumerate(operators) if operator.kind not in _LOOSE]
    if len(fixed_rows) != len(fixed) or not fixed:
        return None
    pairs = list(zip(fixed_rows, fixed, strict=True))
    if not all(words[row] in _ROWS.get(operators[one].kind, ()) for row, one in pairs):
        return None
    found = dict(pairs)
    edges = [(-1, -1), *pairs, (len(rows), len(operators))]
    for (row, before), (next_row, after) in pairwise(edges):
        at = before + 1
        for i in range(row + 1, next_row):
            fits = [one for one in range(at, after) if words[i] in _LOOSE[operators[one].kind]]
            if fits:
                found[i] = at = fits[0]
            else:
                first, last = max(before, 0), min(after, len(operators) - 1)
                found[i] = first if words[i] == _CLAMP or after == len(operators) else last
    return [found[i] for i in range(len(rows))]


def joined(operators: Sequence[Operator], taken: Sequence[int]) -> dict[int, int]:
    """For each activation that has no row: the operator before it, which took it in."""
    producer = {name: i for i, operator in enumerate(operators) for name in operator.outputs}
    rows = set(taken)
    return {
        i: producer[operator.inputs[0]]
        for i, operator in enumerate(operators)
        if operator.kind in _ACTIVATIONS and i not in rows and operator.inputs[0] in producer
    }
