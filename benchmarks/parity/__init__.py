"""Run nn-Meter 2.0 and this package side by side and compare them."""
