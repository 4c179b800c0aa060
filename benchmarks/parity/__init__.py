"""Parity with nn-Meter 2.0, run side by side."""
