"""The hard swish: x times its hard sigmoid. The product may come before the division.

The nn-Meter benchmark dataset writes ReLU for the ReLU6 in it.
"""

from ._expressions import formulas

SPELLINGS = {
    "hswish": (
        "x * hsigmoid(x)",
        "x * relu6(x + 3) / 6",
        "x * relu(x + 3) / 6",
        "x * clip(x + 3) / 6",
    ),
}
RULES = formulas(SPELLINGS)
