"""The hard swish, x times its hard sigmoid; it may be multiplied before it is divided."""

from ._expressions import formulas

SPELLINGS = {
    "hswish": (
        "x * hsigmoid(x)",
        "x * relu6(x + 3) / 6",
        "x * clip(x + 3) / 6",
    ),
}
RULES = formulas(SPELLINGS)
