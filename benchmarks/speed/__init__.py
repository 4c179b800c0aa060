"""Speed and size, each measured beside its rival on the same machine in the same run: ``make bench``."""
