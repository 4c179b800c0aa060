"""A lookup table's sums are the full-graph predictions, or the table says for which choices they are not."""

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
from nnmeter_nas.costs import FactorTable, build_table, build_tables, load_table, save_table
from nnmeter_nas.costs.files import _digest
from nnmeter_nas.errors import LookupTableError, SpaceError, UnpredictedOperatorError
from nnmeter_nas.files import digest
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
def table(predictor: LatencyPredictor) -> FactorTable:
    """Of three residual layers that may be left out."""
    return build_table(residual_supernet(), predictor)


@pytest.fixture(scope="module")
def paired(predictor: LatencyPredictor) -> FactorTable:
    """Of a space where one choice sets the channels that the next one reads."""
    return build_table(width_supernet(), predictor)


def architectures(supernet: nx.DiGraph) -> list[dict[str, str]]:
    """Every architecture of a supernet."""
    known = choices(supernet)
    return [dict(zip(known, chosen, strict=True)) for chosen in itertools.product(*known.values())]


def assert_exact(table: FactorTable, supernet: nx.DiGraph, predictor: LatencyPredictor) -> None:
    """The sums of all architectures are the full-graph predictions."""
    for architecture in architectures(supernet):
        full = predictor.explain(select(supernet, architecture)).latency_ms
        assert table.latency(architecture) == pytest.approx(full, rel=1e-9)


def test_sums_of_blocks_are_full_graph_predictions_on_every_device() -> None:
    supernet, predictors = residual_supernet(), [load_latency_predictor(name) for name in devices()]
    for table, predictor in zip(build_tables(supernet, predictors), predictors, strict=True):
        assert (table.device, table.interactions()) == (predictor.device, {})
        assert table.header.worst_error < 1e-9
        assert_exact(table, supernet, predictor)


def test_a_candidate_that_runs_nothing_takes_nothing(table: FactorTable) -> None:
    for ms in map(table.block, table.labels):
        assert ms[2] == 0.0
        assert 0 < ms[0] < ms[1]
    without_layers = classifier_behind_stem()
    predicted = load_latency_predictor(DEVICE).explain(without_layers).latency_ms
    assert table.constant == pytest.approx(predicted, rel=1e-9)


def classifier_behind_stem() -> nx.DiGraph:
    """The residual space without its layers."""
    return select(residual_supernet(), dict.fromkeys(("layer_1", "layer_2", "layer_3"), "zero"))


def test_without_such_a_candidate_a_block_takes_what_its_kernels_take(paired: FactorTable) -> None:
    graph = select(width_supernet(), {"width": "c8", "kernel": "k1", "last": "k3"})
    kernels = load_latency_predictor(DEVICE).explain(graph).kernel_graph
    own = {label: paired.block(label)[0] for label in paired.labels}
    assert own == pytest.approx({
        "width": kernels.nodes["width.8"]["latency_ms"],
        "kernel": kernels.nodes["kernel.1"]["latency_ms"],
        "last": kernels.nodes["last.3"]["latency_ms"],
    })  # fmt: skip


def test_choices_that_change_each_others_latency_are_priced_in_pairs(
    paired: FactorTable, predictor: LatencyPredictor
) -> None:
    assert list(paired.interactions()) == [("width", "kernel")]
    assert paired.interactions()["width", "kernel"].shape == (3, 3)
    assert_exact(paired, width_supernet(), predictor)


def test_layers_that_a_depth_cuts_off_are_priced_with_it(predictor: LatencyPredictor) -> None:
    supernet = depth_supernet()
    found = build_table(supernet, predictor)
    assert set(found.interactions()) == {(f"layer_{i}", "depth") for i in (2, 3, 4)}
    assert_exact(found, supernet, predictor)


def test_only_devices_on_which_choices_interact_get_pairs() -> None:
    predictors = [load_latency_predictor(name) for name in ("cortexA76cpu_tflite21", DEVICE)]
    cpu, gpu = build_tables(fusing_supernet(), predictors)
    assert (list(cpu.interactions()), list(gpu.interactions())) == ([], [("kernel", "skip")])
    for table, predictor in zip((cpu, gpu), predictors, strict=True):
        assert_exact(table, fusing_supernet(), predictor)


def test_choices_that_no_pairs_describe_are_looked_up_together(predictor: LatencyPredictor) -> None:
    found = build_table(entangled_supernet(), predictor)
    assert max(map(len, found.interactions())) == 3
    assert_exact(found, entangled_supernet(), predictor)


def test_a_space_that_no_form_describes_is_refused_by_label(
    predictor: LatencyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnmeter_nas.costs.build.LARGEST_LIST", 4)
    space = dataclasses.replace(Space.of_supernet(entangled_supernet()), places=None)
    with pytest.raises(LookupTableError, match=r"'entangled'.*most at the choice '(width|kernel)'"):
        build_table(space, predictor)


def test_architectures_made_one_by_one_give_the_same_sums(
    table: FactorTable, predictor: LatencyPredictor
) -> None:
    supernet = residual_supernet()
    space = Space.of_function("function", choices(supernet), lambda chosen: select(supernet, chosen))
    found = build_table(space, predictor)
    assert_exact(found, supernet, predictor)
    assert all(found.block(label).min() == 0.0 for label in found.labels)


def test_nested_choices_share_no_block(predictor: LatencyPredictor) -> None:
    graph = new_graph("nested")
    x = conv(graph, "stem", add_input(graph, "input", (1, 3, 16, 16)), 16)
    inner = choice(graph, "inner", k3=conv(graph, "k3", x, 16, 3), k5=conv(graph, "k5", x, 16, 5))
    outer = choice(graph, "outer", deep=conv(graph, "deep", inner, 16, 1), flat=conv(graph, "flat", x, 16, 1))
    supernet = classifier(graph, outer)
    found = build_table(supernet, predictor)
    assert list(found.interactions()) == [("inner", "outer")]
    assert found.constant > 0
    assert_exact(found, supernet, predictor)


def test_operators_that_are_estimated_are_named(predictor: LatencyPredictor) -> None:
    graph = new_graph("strange")
    x = add_input(graph, "input", (1, 3, 8, 8))
    strange = add_op(graph, "strange", "fourier", [x], declared=[(1, 3, 8, 8)])
    supernet = classifier(graph, choice(graph, "a", strange=strange, plain=conv(graph, "plain", x, 3)))
    with pytest.warns(LatencyWarning, match="fourier"):
        assert build_table(supernet, predictor).header.left_out == {"strange": "fourier (estimated)"}
    with pytest.raises(UnpredictedOperatorError, match="fourier"):
        build_table(supernet, predictor, strict=True)


def test_building_reports_how_far_it_is(predictor: LatencyPredictor) -> None:
    done: list[int] = []
    build_table(residual_supernet(), predictor, progress=done.append)
    assert done == sorted(done)
    assert done[-1] >= len(architectures(residual_supernet())) // 2


def unfinished(architecture: Any) -> nx.DiGraph:
    """A supernet, where the model graph of an architecture is wanted."""
    return residual_supernet()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space.of_supernet(classifier_behind_stem()), "no choice"),
        (lambda: Space.of_function("f", {"a": ("x", "x")}, unfinished), "'a' needs candidates that differ"),
        (lambda: Space.of_function("f", {"stationary_block": ("x", "y")}, unfinished), "is taken"),
    ],
)
def test_spaces_that_no_table_can_have_are_refused(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def test_spaces_that_give_no_model_graphs_are_refused(predictor: LatencyPredictor) -> None:
    space = dataclasses.replace(Space.of_supernet(residual_supernet()), model_graph=unfinished)
    with pytest.raises(LookupTableError, match="no finished model graph"):
        build_table(space, predictor)


def test_building_for_no_device_or_without_probes_is_refused(predictor: LatencyPredictor) -> None:
    with pytest.raises(LookupTableError, match="predictors is empty"):
        build_tables(residual_supernet(), [])
    with pytest.raises(LookupTableError, match="probes=0"):
        build_table(residual_supernet(), predictor, probes=0)


# Looking up


def test_many_latencies_are_those_of_each_architecture(paired: FactorTable) -> None:
    every = architectures(width_supernet())
    found = paired.latencies(paired.indices(every))
    assert found == pytest.approx([paired.latency(architecture) for architecture in every])
    assert len(set(found.round(9))) == len(every)


def test_expected_latency_is_the_mean_over_all_architectures(paired: FactorTable) -> None:
    rng = np.random.default_rng(0)
    p = {label: rng.dirichlet(np.ones(len(known))) for label, known in paired.candidates.items()}
    every = paired.indices(architectures(width_supernet()))
    weights = np.prod([p[label][every[:, i]] for i, label in enumerate(paired.labels)], axis=0)
    assert paired.expected(p) == pytest.approx(float(weights @ paired.latencies(every)), rel=1e-12)


def test_expected_latency_of_a_settled_architecture_is_its_latency(table: FactorTable) -> None:
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
def test_wrong_indices_are_refused(table: FactorTable, indices: Any, message: str) -> None:
    with pytest.raises(LookupTableError, match=message):
        table.latencies(indices)


def test_no_architectures_have_no_latencies(table: FactorTable) -> None:
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
def test_wrong_probabilities_are_refused_by_label(table: FactorTable, changes: Any, message: str) -> None:
    probabilities = {**dict.fromkeys(table.labels, UNIFORM), **changes}
    given = {label: p for label, p in probabilities.items() if p is not None}
    with pytest.raises(LookupTableError, match=message):
        table.expected(given)


def test_architectures_of_another_space_are_refused(table: FactorTable) -> None:
    with pytest.raises(SpaceError, match="no candidate 'k9'"):
        table.latency({"layer_1": "k9", "layer_2": "k3", "layer_3": "k3"})


def test_tables_with_numbers_that_are_none_are_refused(table: FactorTable) -> None:
    with pytest.raises(LookupTableError, match="no finite number"):
        dataclasses.replace(table, constant=float("nan"))
    with pytest.raises(LookupTableError, match="does not fit the candidates"):
        dataclasses.replace(table, factors={**table.factors, (0,): np.zeros(2)})


def test_tables_cannot_be_changed_by_accident(table: FactorTable) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table.block("layer_1")[0] = 0.0


# Files


@pytest.mark.parametrize("suffix", ["yaml", "npz"])
def test_a_saved_table_is_the_same(paired: FactorTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"table.{suffix}"
    save_table(paired, path)
    loaded = load_table(path)
    assert (loaded.header, loaded.constant) == (paired.header, paired.constant)
    assert list(loaded.candidates.items()) == list(paired.candidates.items())
    assert list(loaded.factors) == list(paired.factors)
    assert all(np.array_equal(loaded.factors[p], array) for p, array in paired.factors.items())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_yaml_is_laid_out_as_nni_lays_out_its_tables(table: FactorTable, tmp_path: Path) -> None:
    save_table(table, tmp_path / "latency_table.yaml")
    (entry,) = yaml.safe_load((tmp_path / "latency_table.yaml").read_text())
    assert entry["applied_hardware"] == DEVICE
    found = entry["latency_table"]
    assert list(found) == ["layer_1", "layer_2", "layer_3", "stationary_block"]
    assert found["stationary_block"] == {"root": table.constant}
    chosen = {"layer_1": 1, "layer_2": 0, "layer_3": 2}
    total = found["stationary_block"]["root"] + sum(found[label][str(i)] for label, i in chosen.items())
    assert total == pytest.approx(table.latencies([list(chosen.values())])[0])


@pytest.mark.parametrize("suffix", ["yaml", "npz"])
def test_a_half_written_or_edited_table_is_refused(table: FactorTable, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    save_table(table, path)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(LookupTableError, match=f"table.{suffix}"):
            load_table(path)
    if suffix == "yaml":
        stationary = str(table.constant).encode()
        assert stationary in whole
        path.write_bytes(whole.replace(stationary, b"0.5"))
    else:
        path.write_bytes(whole)
        with np.load(path) as file:
            content = dict(file)
        np.savez(path, **{**content, "values": content["values"] + 0.5})
    with pytest.raises(LookupTableError, match="does not match its hash"):
        load_table(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"- applied_hardware: x\n  latency_table: {}\n", "not written by nnmeter_nas"),
        ("a.yaml", b"- [1, 2\n", "damaged"),
        ("a.npz", b"\x00\xff\xfe", "is no lookup table"),
        ("a.yaml", b"\x00\xff\xfe", "damaged"),
        ("a.yaml", b"{}", "does not hold one lookup table"),
        ("a.yaml", b"[null]", "does not hold one lookup table"),
        ("a.yaml", b'[{"details": {"sha256": "", "format": 99}}]', "table format 99"),
        ("a.pickle", b"", "names no kind of table"),
        ("absent.yaml", None, "cannot read"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LookupTableError, match=message):
        load_table(tmp_path / name)


def test_yaml_of_other_content_under_a_valid_hash_is_refused(table: FactorTable, tmp_path: Path) -> None:
    save_table(table, tmp_path / "table.yaml")
    (document,) = yaml.safe_load((tmp_path / "table.yaml").read_text())
    del document["latency_table"]["layer_2"], document["details"]["sha256"]
    document["details"]["sha256"] = digest(document)
    (tmp_path / "table.yaml").write_text(yaml.safe_dump([document], sort_keys=False))
    with pytest.raises(LookupTableError, match="no lookup table"):
        load_table(tmp_path / "table.yaml")


@pytest.mark.parametrize("change", [{"format": 1}, {"constant": None}, {"positions": [[0, 9]]}])
def test_a_binary_file_of_other_content_under_a_valid_hash_is_refused(
    table: FactorTable, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "table.npz"
    save_table(table, path)
    with np.load(path) as file:
        text, values = json.dumps({**json.loads(str(file["header"])), **change}), file["values"]
    np.savez(path, header=np.array(text), values=values, sha256=np.array(_digest(text, values)))
    with pytest.raises(LookupTableError, match=r"table\.npz"):
        load_table(path)


def test_a_table_whose_blocks_alone_mean_nothing_has_no_yaml(
    tmp_path: Path, predictor: LatencyPredictor
) -> None:
    listed = build_table(entangled_supernet(), predictor)
    with pytest.raises(LookupTableError, match="decide latency on adreno640gpu_tflite21 together"):
        save_table(listed, tmp_path / "table.yaml")
    assert list(tmp_path.iterdir()) == []
    save_table(listed, tmp_path / "table.npz")
    every = listed.indices(architectures(entangled_supernet()))
    assert np.array_equal(load_table(tmp_path / "table.npz").latencies(every), listed.latencies(every))


def test_nothing_is_written_for_an_unknown_suffix(table: FactorTable, tmp_path: Path) -> None:
    with pytest.raises(LookupTableError, match=r"\.npz, \.yaml"):
        save_table(table, tmp_path / "table.txt")
    assert list(tmp_path.iterdir()) == []
