"""The swish or SiLU: x times its sigmoid."""

from ._expressions import formulas

SPELLINGS = {"swish": ("x * sigmoid(x)", "x / (1 + exp(-x))")}
RULES = formulas(SPELLINGS)
