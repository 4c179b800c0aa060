"""A lookup table's sums equal the full-graph predictions, or errors name the choices where they do not."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import yaml

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.costs import LatencyTable, build_table, build_tables, load_table
from nnmeter_nas.errors import LookupTableError, SpaceError, UnpredictedOperatorError
from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.predictor import LatencyWarning
from nnmeter_nas.supernet import Space
from nnmeter_nas.supernet.choices import choices, select
from toy_supernets import (
    choice,
    classifier,
    conv,
    depth_supernet,
    entangled_supernet,
    fusing_supernet,
    residual_supernet,
    width_supernet,
)

DEVICE = "adreno640gpu_tflite21"


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    return load_latency_predictor(DEVICE)


@pytest.fixture(scope="module")
def table(predictor: LatencyPredictor) -> LatencyTable:
    """A table of three residual layers that may be skipped."""
    return build_table(residual_supernet(), predictor)


@pytest.fixture(scope="module")
def paired(predictor: LatencyPredictor) -> LatencyTable:
    """A table of a space where one choice sets the channels that the next one reads."""
    return build_table(width_supernet(), predictor)


def architectures(supernet: nx.DiGraph) -> list[dict[str, str]]:
    """Every architecture of a supernet."""
    known = choices(supernet)
    return [dict(zip(known, chosen, strict=True)) for chosen in itertools.product(*known.values())]


def assert_exact(table: LatencyTable, supernet: nx.DiGraph, predictor: LatencyPredictor) -> None:
    """Assert that the sums of all architectures equal the full-graph predictions."""
    for architecture in architectures(supernet):
        full = predictor.explain(select(supernet, architecture)).latency_ms
        assert table.latency(architecture) == pytest.approx(full, rel=1e-9)


def test_sums_of_blocks_are_full_graph_predictions_on_every_device() -> None:
    supernet, predictors = residual_supernet(), [load_latency_predictor(name) for name in devices()]
    for table, predictor in zip(build_tables(supernet, predictors), predictors, strict=True):
        assert (table.device, table.pair_ms) == (predictor.device, {})
        assert table.worst_error < 1e-9
        assert_exact(table, supernet, predictor)


def test_candidate_that_runs_nothing_costs_nothing(table: LatencyTable) -> None:
    for ms in table.block_ms.values():
        assert ms[2] == 0.0
        assert 0 < ms[0] < ms[1]
    without_layers = classifier_after_stem()
    predicted = load_latency_predictor(DEVICE).explain(without_layers).latency_ms
    assert table.stationary_ms == pytest.approx(predicted, rel=1e-9)


def classifier_after_stem() -> nx.DiGraph:
    """The residual space without its layers."""
    return select(residual_supernet(), dict.fromkeys(("layer_1", "layer_2", "layer_3"), "zero"))


def test_without_a_skip_candidate_a_block_costs_its_kernels(paired: LatencyTable) -> None:
    graph = select(width_supernet(), {"width": "c8", "kernel": "k1", "last": "k3"})
    kernels = load_latency_predictor(DEVICE).explain(graph).kernel_graph
    own = {label: paired.block_ms[label][0] for label in paired.labels}
    assert own == pytest.approx({
        "width": kernels.nodes["width.8"]["latency_ms"],
        "kernel": kernels.nodes["kernel.1"]["latency_ms"],
        "last": kernels.nodes["last.3"]["latency_ms"],
    })  # fmt: skip


def test_choices_that_change_each_others_latency_are_priced_in_pairs(
    paired: LatencyTable, predictor: LatencyPredictor
) -> None:
    assert list(paired.pair_ms) == [("width", "kernel")]
    assert paired.pair_ms["width", "kernel"].shape == (3, 3)
    assert_exact(paired, width_supernet(), predictor)


def test_layers_cut_off_by_a_depth_choice_are_priced_with_it(predictor: LatencyPredictor) -> None:
    supernet = depth_supernet()
    found = build_table(supernet, predictor)
    assert set(found.pair_ms) == {(f"layer_{i}", "depth") for i in (2, 3, 4)}
    assert_exact(found, supernet, predictor)


def test_only_devices_where_choices_interact_get_pairs() -> None:
    predictors = [load_latency_predictor(name) for name in ("cortexA76cpu_tflite21", DEVICE)]
    cpu, gpu = build_tables(fusing_supernet(), predictors)
    assert (list(cpu.pair_ms), list(gpu.pair_ms)) == ([], [("kernel", "skip")])
    for table, predictor in zip((cpu, gpu), predictors, strict=True):
        assert_exact(table, fusing_supernet(), predictor)


def test_error_for_choices_that_pairs_cannot_describe_names_their_labels(predictor: LatencyPredictor) -> None:
    with pytest.raises(LookupTableError, match=r"'entangled'.*most at the choice '(width|kernel)'"):
        build_table(entangled_supernet(), predictor)


def test_architectures_built_one_by_one_give_the_same_sums(
    table: LatencyTable, predictor: LatencyPredictor
) -> None:
    supernet = residual_supernet()
    space = Space.of_function("function", choices(supernet), lambda chosen: select(supernet, chosen))
    found = build_table(space, predictor)
    assert_exact(found, supernet, predictor)
    assert all(ms.min() == 0.0 for ms in found.block_ms.values())


def test_nested_choices_share_no_block(predictor: LatencyPredictor) -> None:
    graph = new_graph("nested")
    x = conv(graph, "stem", add_input(graph, "input", (1, 3, 16, 16)), 16)
    inner = choice(graph, "inner", k3=conv(graph, "k3", x, 16, 3), k5=conv(graph, "k5", x, 16, 5))
    outer = choice(graph, "outer", deep=conv(graph, "deep", inner, 16, 1), flat=conv(graph, "flat", x, 16, 1))
    supernet = classifier(graph, outer)
    found = build_table(supernet, predictor)
    assert list(found.pair_ms) == [("inner", "outer")]
    assert found.stationary_ms > 0
    assert_exact(found, supernet, predictor)


def test_warning_names_operators_that_are_left_out(predictor: LatencyPredictor) -> None:
    graph = new_graph("strange")
    x = add_input(graph, "input", (1, 3, 8, 8))
    strange = add_op(graph, "strange", "fourier", [x], declared=[(1, 3, 8, 8)])
    supernet = classifier(graph, choice(graph, "a", strange=strange, plain=conv(graph, "plain", x, 3)))
    with pytest.warns(LatencyWarning, match="fourier"):
        assert build_table(supernet, predictor).unpredicted == {"strange": "fourier"}
    with pytest.raises(UnpredictedOperatorError, match="fourier"):
        build_table(supernet, predictor, strict=True)


def test_building_reports_progress(predictor: LatencyPredictor) -> None:
    done: list[int] = []
    build_table(residual_supernet(), predictor, progress=done.append)
    assert done == sorted(done)
    assert done[-1] >= len(architectures(residual_supernet())) // 2


def unfinished(architecture: Any) -> nx.DiGraph:
    """A function that wrongly returns a supernet instead of an architecture's model graph."""
    return residual_supernet()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space.of_supernet(classifier_after_stem()), "no choice"),
        (lambda: Space.of_function("f", {"a": ("x", "x")}, unfinished), "'a' needs candidates that differ"),
        (lambda: Space.of_function("f", {"stationary_block": ("x", "y")}, unfinished), "is taken"),
    ],
)
def test_spaces_that_no_table_can_describe_are_rejected(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_spaces_without_model_graphs_are_rejected(predictor: LatencyPredictor) -> None:
    space = dataclasses.replace(Space.of_supernet(residual_supernet()), model_graph=unfinished)
    with pytest.raises(LookupTableError, match="no finished model graph"):
        build_table(space, predictor)


def test_building_for_no_device_or_without_probes_is_rejected(predictor: LatencyPredictor) -> None:
    with pytest.raises(LookupTableError, match="predictors is empty"):
        build_tables(residual_supernet(), [])
    with pytest.raises(LookupTableError, match="probes=0"):
        build_table(residual_supernet(), predictor, probes=0)


# Looking up


def test_batch_of_latencies_equals_single_latencies(paired: LatencyTable) -> None:
    every = architectures(width_supernet())
    found = paired.latencies(paired.indices(every))
    assert found == pytest.approx([paired.latency(architecture) for architecture in every])
    assert len(set(found.round(9))) == len(every)


def test_expected_latency_is_the_mean_over_all_architectures(paired: LatencyTable) -> None:
    rng = np.random.default_rng(0)
    p = {label: rng.dirichlet(np.ones(len(known))) for label, known in paired.candidates.items()}
    every = paired.indices(architectures(width_supernet()))
    weights = np.prod([p[label][every[:, i]] for i, label in enumerate(paired.labels)], axis=0)
    assert paired.expected(p) == pytest.approx(float(weights @ paired.latencies(every)), rel=1e-12)


def test_expected_latency_of_a_fixed_architecture_is_its_latency(table: LatencyTable) -> None:
    settled = {"layer_1": [0, 1, 0], "layer_2": [1, 0, 0], "layer_3": [0, 0, 1]}
    chosen = {"layer_1": "k5", "layer_2": "k3", "layer_3": "zero"}
    assert table.expected(settled) == pytest.approx(table.latency(chosen), rel=1e-12)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0, 0]], r"shape \[N, 3\].*got \(1, 2\)"),
        ([0, 0, 0], r"shape \[N, 3\].*got \(3,\)"),
        ([[0, 0, 3]], "'layer_3' has 3 candidates, and no index 3"),
        ([[-1, 0, 0]], "'layer_1' has 3 candidates, and no index -1"),
        ([[0.0, 1.0, 0.0]], "integers"),
        ([[True, False, True]], "integers"),
    ],
)
def test_wrong_indices_are_rejected(table: LatencyTable, indices: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        table.latencies(indices)


def test_empty_batch_gives_no_latencies(table: LatencyTable) -> None:
    assert table.latencies(table.indices([])).shape == (0,)


UNIFORM = [1 / 3] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_9": UNIFORM}, "no choice 'layer_9'; did you mean 'layer_"),
        ({"layer_2": None}, "lack the choice 'layer_2'"),
        ({"layer_2": [0.5, 0.5]}, r"'layer_2' must be of shape \[3\]"),
        ({"layer_2": [UNIFORM]}, r"'layer_2' must be of shape \[3\]"),
        ({"layer_2": [0.5, 0.5, 0.5]}, "'layer_2' must sum to 1; they sum to 1.5"),
        ({"layer_2": [-0.5, 1.0, 0.5]}, "'layer_2' must be numbers from 0 to 1"),
        ({"layer_2": [float("nan"), 0.5, 0.5]}, "'layer_2' must be numbers from 0 to 1"),
        ({"layer_2": ["a", "b", "c"]}, "'layer_2' must be numbers"),
    ],
)
def test_error_for_bad_probabilities_names_the_label(table: LatencyTable, changes: Any, message: str) -> None:
    probabilities = {**dict.fromkeys(table.labels, UNIFORM), **changes}
    given = {label: p for label, p in probabilities.items() if p is not None}
    with pytest.raises(LookupTableError, match=message):
        table.expected(given)


def test_architectures_of_another_space_are_rejected(table: LatencyTable) -> None:
    with pytest.raises(SpaceError, match="no candidate 'k9'"):
        table.latency({"layer_1": "k9", "layer_2": "k3", "layer_3": "k3"})


def test_tables_with_invalid_numbers_are_rejected(table: LatencyTable) -> None:
    with pytest.raises(LookupTableError, match="no finite numbers"):
        dataclasses.replace(table, stationary_ms=float("nan"))
    with pytest.raises(LookupTableError, match="one latency for each candidate"):
        dataclasses.replace(table, block_ms={**table.block_ms, "layer_1": np.zeros(2)})


def test_tables_cannot_be_changed_by_accident(table: LatencyTable) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table.block_ms["layer_1"][0] = 0.0


# Files


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_saved_table_is_the_same(paired: LatencyTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"table.{suffix}"
    paired.save(path)
    loaded = load_table(path)
    for field in dataclasses.fields(LatencyTable):
        ours, theirs = getattr(paired, field.name), getattr(loaded, field.name)
        if field.name in ("block_ms", "pair_ms"):
            assert list(ours) == list(theirs)
            assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
        else:
            assert ours == theirs
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_yaml_has_the_layout_of_nnis_tables(table: LatencyTable, tmp_path: Path) -> None:
    table.save(tmp_path / "latency_table.yaml")
    (entry,) = yaml.safe_load((tmp_path / "latency_table.yaml").read_text())
    assert entry["applied_hardware"] == DEVICE
    found = entry["latency_table"]
    assert list(found) == ["layer_1", "layer_2", "layer_3", "stationary_block"]
    assert found["stationary_block"] == {"root": table.stationary_ms}
    chosen = {"layer_1": 1, "layer_2": 0, "layer_3": 2}
    total = found["stationary_block"]["root"] + sum(found[label][str(i)] for label, i in chosen.items())
    assert total == pytest.approx(table.latencies([list(chosen.values())])[0])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_half_written_or_edited_table_is_rejected(table: LatencyTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    table.save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(LookupTableError, match=f"table.{suffix}"):
            load_table(path)
    stationary = str(table.stationary_ms).encode()
    assert stationary in whole
    path.write_bytes(whole.replace(stationary, b"0.5"))
    with pytest.raises(LookupTableError, match="does not match its hash"):
        load_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"- applied_hardware: x\n  latency_table: {}\n", "not written by nnmeter_nas"),
        ("a.yaml", b"- [1, 2\n", "damaged"),
        ("a.json", b"\x00\xff\xfe", "damaged"),
        ("a.json", b"[" * 100_000, "damaged"),
        ("a.json", b"{}", "does not hold one lookup table"),
        ("a.json", b"[null]", "does not hold one lookup table"),
        ("a.json", b'[{"details": {"sha256": "", "format": 99}}]', "table format 99"),
        ("a.pickle", b"", "names no kind of table"),
        ("absent.yaml", None, "cannot read"),
    ],
)
def test_foreign_files_are_rejected(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LookupTableError, match=message):
        load_table(tmp_path / name)


def test_other_content_with_a_valid_hash_is_rejected(
    table: LatencyTable, tmp_path: Path
) -> None:
    from nnmeter_nas.costs.storage import write_document

    table.save(tmp_path / "table.json")
    (document,) = json.loads((tmp_path / "table.json").read_text())
    del document["latency_table"]["layer_2"], document["details"]["sha256"]
    write_document(tmp_path / "table.json", document)
    with pytest.raises(LookupTableError, match="no lookup table"):
        load_table(tmp_path / "table.json")


def test_nothing_is_written_for_an_unknown_suffix(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(LookupTableError, match=r"\.json, \.yaml"):
        table.save(tmp_path / "table.txt")
    assert list(tmp_path.iterdir()) == []
