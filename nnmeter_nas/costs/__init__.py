"""Factor tables: numbers of an architecture as sums over few choices each."""

from .build import build_table, build_tables
from .cache import cached_table
from .table import LatencyTable, load_table
from .terms import Terms

__all__ = ["LatencyTable", "Terms", "build_table", "build_tables", "cached_table", "load_table"]
