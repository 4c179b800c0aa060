"""The logistic function, by an exponential or by a hyperbolic tangent."""

from ._expressions import formulas

SPELLINGS = {
    "sigmoid": (
        "1 / (1 + exp(-x))",
        "0.5 * (tanh(0.5 * x) + 1)",
        "0.5 * tanh(x / 2) + 0.5",
    ),
}
RULES = formulas(SPELLINGS)
