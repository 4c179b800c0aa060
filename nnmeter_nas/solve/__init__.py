"""Solvers over factor tables: count, sample, rank and list the architectures of a space."""
