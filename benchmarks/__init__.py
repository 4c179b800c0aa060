"""Read the bench dataset, train packs from it, and report results: ``python -m nnmeter_nas.benchmarks``."""

from nnmeter_nas.readers.nnmeter_ir.dataset import BenchModel, iter_models
from nnmeter_nas.training.accuracy import accuracy, accuracy_by

__all__ = ["BenchModel", "accuracy", "accuracy_by", "iter_models"]
