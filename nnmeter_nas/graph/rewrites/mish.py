"""Mish, x * tanh(softplus(x)), and the softplus in it."""

from ._expressions import formulas

SPELLINGS = {
    "softplus": ("log(1 + exp(x))", "log1p(exp(x))"),
    "mish": ("x * tanh(softplus(x))",),
}
RULES = formulas(SPELLINGS)
