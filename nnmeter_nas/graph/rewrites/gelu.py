"""GELU: exact (error function), or approximated with tanh or a sigmoid."""

from ._expressions import formulas

SPELLINGS = {
    "gelu": (
        "x * (erf(x / 1.41421356) + 1) * 0.5",
        "x * (0.5 * erf(x / 1.41421356) + 0.5)",
        "0.5 * x * erfc(-0.70710678 * x)",
        "0.5 * x * (1 + tanh(0.79788456 * (x + 0.044715 * x ** 3)))",
        "0.5 * x * (1 + tanh(0.79788456 * x * (1 + 0.044715 * x ** 2)))",
        "x * sigmoid(1.59576912 * (x + 0.044715 * x ** 3))",
        "x * sigmoid(1.702 * x)",
    ),
}
RULES = formulas(SPELLINGS)
