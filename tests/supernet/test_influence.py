"""Influences are learned from few samples, and the tables sum to the evaluated values."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import random
from collections.abc import Hashable, Mapping

import pytest

from nnmeter_nas.errors import MissingPackageError, SpaceError
from nnmeter_nas.supernet.influence import InfluenceTable, Place, learn_influences

VALUES: dict[str, list[Hashable]] = {f"label_{i}": [0, 1, 2] for i in range(12)}


class Network:
    """A network whose kernels depend on one or more layers; counts its evaluations."""

    def __init__(
        self, decided_by: Mapping[str, tuple[str, ...]], conditions: Mapping[str, str], seed: int
    ) -> None:
        self.decided_by = decided_by
        self.conditions = conditions
        self.seed = seed
        self.evaluations = 0

    def __call__(self, sample: Mapping[str, Hashable]) -> dict[str, float]:
        self.evaluations += 1
        return {
            name: random.Random(str((self.seed, name, [sample[label] for label in labels]))).random()
            for name, labels in self.decided_by.items()
            if name not in self.conditions or sample[self.conditions[name]] == 1
        }

    def places(self) -> dict[str, Place]:
        """Places that say where a kernel runs, but not what else decides it."""
        met = {name: Place({label: frozenset([1])}) for name, label in self.conditions.items()}
        return {"": Place({}), **met}


def total(tables: list[InfluenceTable], sample: Mapping[str, Hashable]) -> float:
    return sum(table.latencies[tuple(sample[label] for label in table.labels)] for table in tables)


@pytest.mark.parametrize("seed", range(5))
def test_influences_that_places_do_not_show_are_found(seed: int) -> None:
    """The first label acts far away, some kernels depend on three labels, and one runs under a condition."""
    labels = list(VALUES)
    decided_by = {f"block_{i}": (labels[i], labels[i + 1]) for i in range(10)}
    decided_by |= {"far": (labels[0], labels[11]), "deep": (labels[2], labels[5], labels[8]), "fixed": ()}
    network = Network(decided_by, {"block_4": labels[9], "deep": labels[3]}, seed)
    tables = learn_influences(network, VALUES, network.places(), seed)
    evaluations = network.evaluations
    generator = random.Random(seed)
    for _ in range(200):
        sample = {label: generator.choice(values) for label, values in VALUES.items()}
        assert total(tables, sample) == pytest.approx(sum(network(sample).values()))
    assert evaluations < 150  # of 531,441 samples


def test_tables_have_exactly_the_labels_that_decide_a_kernel() -> None:
    network = Network({"a": ("label_0", "label_4"), "b": ("label_4",), "c": ("label_7",)}, {}, 0)
    tables = learn_influences(network, VALUES, network.places())
    assert sorted(table.labels for table in tables) == [("label_0", "label_4"), ("label_7",)]
    for table in tables:
        combinations = set(itertools.product(*(VALUES[label] for label in table.labels)))
        assert set(table.latencies) == combinations


def test_effects_of_rare_choices_are_learned_from_samples_that_have_them() -> None:
    labels = list(VALUES)
    rare: dict[str, Hashable] = dict.fromkeys(labels, 0)
    near = {**rare, labels[5]: 1}

    def evaluate(sample: Mapping[str, Hashable]) -> dict[str, float]:
        return {"a": 1.0 + (all(sample[label] == 0 for label in labels[:6]))}

    without, learned = (
        learn_influences(evaluate, VALUES, {"": Place({})}, samples=samples) for samples in ([], [rare, near])
    )
    assert total(without, rare) == 1.0
    assert total(learned, rare) == 2.0
    assert total(learned, near) == 1.0


def test_error_for_a_kernel_that_all_labels_decide_names_them() -> None:
    network = Network({"everything": tuple(VALUES)}, {}, 0)
    with pytest.raises(SpaceError, match=r"everything depends on 6561 combinations of label_.*, label_"):
        learn_influences(network, VALUES, network.places())


@pytest.mark.skipif(importlib.util.find_spec("nni.mutable") is not None, reason="NNI 3.0 has profilers")
def test_latency_profiler_error_names_the_required_nni() -> None:
    with pytest.raises(MissingPackageError, match=r"install nni>=3\.0, or use HardwareLatencyEstimator"):
        importlib.import_module("nnmeter_nas.estimators.latency_profiler")
