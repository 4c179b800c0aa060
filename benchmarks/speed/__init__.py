"""Measure speed and size, each figure and its rival in the same run: ``make bench``."""
