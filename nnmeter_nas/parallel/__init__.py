"""Spread bulk work over processes and machines."""
