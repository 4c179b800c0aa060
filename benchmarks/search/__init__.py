"""Measure how good searches are: strategies, lookup tables, reference latencies."""
