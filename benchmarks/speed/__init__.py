"""Measure speed and size, each figure beside its rival in the same run: ``make bench``."""
