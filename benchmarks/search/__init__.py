"""How good searches are: strategies compared, lookup tables, reference latencies."""
