"""Influences are learned from few samples: the tables sum up to what is evaluated, whatever decides it."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Mapping

import pytest

from nnmeter_nas.costs.influence import learn_influences
from nnmeter_nas.errors import MissingPackageError, SpaceError
from nnmeter_nas.supernet.place import Place

CANDIDATES: dict[str, tuple[str, ...]] = {f"label_{i}": ("0", "1", "2") for i in range(12)}


class Network:
    """Kernels that one layer, or it and others, decide; counts its evaluations."""

    def __init__(
        self, decided_by: Mapping[str, tuple[str, ...]], conditions: Mapping[str, str], seed: int
    ) -> None:
        self.decided_by = decided_by
        self.conditions = conditions
        self.seed = seed
        self.evaluations = 0

    def __call__(self, sample: Mapping[str, str]) -> dict[str, float]:
        self.evaluations += 1
        return {
            name: random.Random(str((self.seed, name, [sample[label] for label in labels]))).random()
            for name, labels in self.decided_by.items()
            if name not in self.conditions or sample[self.conditions[name]] == "1"
        }

    def places(self) -> dict[str, Place]:
        """Places that tell where a kernel runs, and nothing of what else decides it."""
        met = {name: Place({label: frozenset(["1"])}) for name, label in self.conditions.items()}
        return {"": Place({}), **met}


@pytest.mark.parametrize("seed", range(5))
def test_labels_that_no_place_tells_of_are_found(seed: int) -> None:
    """The first label has an influence far away, some kernels have three labels, one runs at a condition."""
    labels = list(CANDIDATES)
    decided_by = {f"block_{i}": (labels[i], labels[i + 1]) for i in range(10)}
    decided_by |= {"far": (labels[0], labels[11]), "deep": (labels[2], labels[5], labels[8]), "fixed": ()}
    network = Network(decided_by, {"block_4": labels[9], "deep": labels[3]}, seed)
    table = learn_influences(network, CANDIDATES, network.places(), seed)
    evaluations = network.evaluations
    generator = random.Random(seed)
    for _ in range(200):
        sample = {label: generator.choice(values) for label, values in CANDIDATES.items()}
        assert table.value(sample) == pytest.approx(sum(network(sample).values()))
    assert evaluations < 150  # of 531,441 samples


def test_tables_have_all_labels_of_a_kernel_and_no_other() -> None:
    network = Network({"a": ("label_0", "label_4"), "b": ("label_4",), "c": ("label_7",)}, {}, 0)
    table = learn_influences(network, CANDIDATES, network.places())
    assert set(table.factors) == {(0, 4), (4,), (7,)}


def test_what_one_choice_decides_alone_is_its_own_factor() -> None:
    """The choice also decides a mark together with another one, and with one that has a single candidate."""
    candidates = {"skip": ("a", "b"), "width": ("8", "16"), "only": ("16",)}
    places = {
        "": Place({}),
        "branch": Place({}, frozenset({"skip", "only"})),
        "last": Place({}, frozenset({"skip", "width"})),
        "fixed": Place({}, frozenset({"only"})),
    }

    def evaluate(sample: Mapping[str, str]) -> dict[str, float]:
        branch, width = {"a": 5.0, "b": 1.0}[sample["skip"]], int(sample["width"])
        return {"branch": branch, "last": branch * width, "fixed": 2.0}

    table = learn_influences(evaluate, candidates, places)
    assert set(table.factors) == {(0,), (0, 1)}
    assert table.block("skip").tolist() == [5.0, 1.0]
    assert table.constant == 2.0


def test_what_only_rare_choices_bring_about_is_learned_from_samples_that_have_it() -> None:
    labels = list(CANDIDATES)
    rare: dict[str, str] = dict.fromkeys(labels, "0")
    near = {**rare, labels[5]: "1"}

    def evaluate(sample: Mapping[str, str]) -> dict[str, float]:
        return {"a": 1.0 + (all(sample[label] == "0" for label in labels[:6]))}

    without, learned = (
        learn_influences(evaluate, CANDIDATES, {"": Place({})}, samples=samples)
        for samples in ([], [rare, near])
    )
    assert without.value(rare) == 1.0
    assert learned.value(rare) == 2.0
    assert learned.value(near) == 1.0


def test_marks_that_change_together_are_searched_once() -> None:
    """The first candidates hide the marks, so no change of one choice shows what decides them."""
    hidden = {f"mark_{i}": ("label_2", "label_7") for i in range(40)}
    network = Network(hidden, dict.fromkeys(hidden, "label_5"), 0)
    table = learn_influences(network, CANDIDATES, {"": Place({})})
    assert network.evaluations < 110
    sample = dict.fromkeys(CANDIDATES, "1")
    assert table.value(sample) == pytest.approx(sum(network(sample).values()))


def test_a_mark_outside_the_conditions_of_its_place_is_learned_all_the_same() -> None:
    network = Network({"a": ("label_0",), "b": ("label_1", "label_2")}, {}, 0)
    places = {"": Place({}), "b": Place({"label_3": frozenset(["1"])})}
    table = learn_influences(network, CANDIDATES, places)
    for candidate in ("0", "1", "2"):
        sample = dict.fromkeys(CANDIDATES, candidate)
        assert table.value(sample) == pytest.approx(sum(network(sample).values()))


def test_a_kernel_that_all_labels_decide_is_refused_by_their_names() -> None:
    network = Network({"everything": tuple(CANDIDATES)}, {}, 0)
    with pytest.raises(SpaceError, match=r"everything depends on 6561 combinations of label_.*, label_"):
        learn_influences(network, CANDIDATES, network.places())


@pytest.mark.skipif(importlib.util.find_spec("nni.mutable") is not None, reason="NNI 3.0 has profilers")
def test_latency_profiler_names_the_nni_that_it_needs() -> None:
    with pytest.raises(MissingPackageError, match=r"install nni>=3\.0, or use HardwareLatencyEstimator"):
        importlib.import_module("nnmeter_nas.estimators.latency_profiler")
