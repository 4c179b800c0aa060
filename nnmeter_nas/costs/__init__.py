"""Factor tables, which give a number of an architecture as a sum over few choices each, and measures."""

from .build import build_table, build_tables
from .cache import cached_table
from .files import load_table, save_table
from .measures import (
    Measure,
    flops,
    latencies,
    latency,
    latency_by_block,
    memory,
    of_function,
    params,
    size,
)
from .table import FactorTable

__all__ = [
    "FactorTable",
    "Measure",
    "build_table",
    "build_tables",
    "cached_table",
    "flops",
    "latencies",
    "latency",
    "latency_by_block",
    "load_table",
    "memory",
    "of_function",
    "params",
    "save_table",
    "size",
]
