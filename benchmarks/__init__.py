"""The bench dataset, pack training from it, and reports: ``python -m nnmeter_nas.benchmarks``."""

from .dataset import BenchModel, iter_models
from .metrics import accuracy, accuracy_by

__all__ = ["BenchModel", "accuracy", "accuracy_by", "iter_models"]
