"""The hard sigmoid: a line clipped to 0 and 1. Any slope matches, since it does not change the cost.

nn-Meter IR does not store the limits of a clip, and the nn-Meter benchmark dataset writes ReLU for ReLU6.
"""

from ._expressions import formulas

SPELLINGS = {
    "hsigmoid": (
        "relu6(x + 3) / 6",
        "relu(x + 3) / 6",
        "clip(x + 3) / 6",
        "clip(x / 6 + 0.5, 0, 1)",
        "clip((x + 3) / 6, 0, 1)",
        "clip(0.2 * x + 0.5, 0, 1)",
    ),
}
RULES = formulas(SPELLINGS)
