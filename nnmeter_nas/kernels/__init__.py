"""Kernels: groups of operators that a device runs as one, and what a kernel predictor sees of them."""

from .fusion import FusionRules, Kernel, fuse, parse_rules

__all__ = ["FusionRules", "Kernel", "fuse", "parse_rules"]
