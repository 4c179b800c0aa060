"""The logistic function, written with an exponential or a hyperbolic tangent."""

from ._expressions import formulas

SPELLINGS = {
    "sigmoid": (
        "1 / (1 + exp(-x))",
        "0.5 * (tanh(0.5 * x) + 1)",
        "0.5 * tanh(x / 2) + 0.5",
    ),
}
RULES = formulas(SPELLINGS)
