"""Lookup tables: the latency of every block of a search space on a device."""

from .build import build_table, build_tables
from .cache import cached_table
from .space import Space
from .table import LatencyTable, load_table
from .terms import Terms

__all__ = ["LatencyTable", "Space", "Terms", "build_table", "build_tables", "cached_table", "load_table"]
