"""A measure gives the value of an architecture's full model graph, in every form the measure can take."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.costs import cached_table
from nnmeter_nas.costs.build import latency_header
from nnmeter_nas.costs.bundled import bundled_table
from nnmeter_nas.costs.cache import table_path
from nnmeter_nas.costs.measures import (
    Measure,
    flops,
    latencies,
    latency,
    latency_by_block,
    memory,
    of_function,
    params,
    size,
)
from nnmeter_nas.costs.pricing import IndexArray
from nnmeter_nas.errors import LookupTableError, SpaceError
from nnmeter_nas.files import HOME
from nnmeter_nas.graph.memory import TFLITE, MemoryRules, peak_memory, weights_size
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.work import flops as flops_of
from nnmeter_nas.graph.work import params as params_of
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.predictor import LatencyWarning
from nnmeter_nas.supernet import Space
from nnmeter_nas.supernet.choices import architecture_at, select
from nnmeter_nas.supernet.named import load_space
from nnmeter_nas.supernet.place import Place
from nnmeter_nas.supernet.space import STATIONARY
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


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache folder for each test."""
    monkeypatch.setenv(HOME, str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    return load_latency_predictor(DEVICE)


class Counted:
    """A space that counts the model graphs it builds."""

    def __init__(self, supernet: nx.DiGraph) -> None:
        self.graphs = 0
        made = Space.of_supernet(supernet)

        def model_graph(architecture: Mapping[str, str]) -> nx.DiGraph:
            self.graphs += 1
            return made.model_graph(architecture)

        self.space = replace(made, model_graph=model_graph)


def rows_of(space: Space) -> IndexArray:
    """All architectures of a small space."""
    sizes = [len(known) for known in space.candidates.values()]
    return np.array(list(itertools.product(*map(range, sizes))))


def graph_of(space: Space, row: IndexArray) -> nx.DiGraph:
    return space.model_graph(
        {label: known[i] for (label, known), i in zip(space.candidates.items(), row, strict=True)}
    )


def full_latencies(space: Space, predictor: LatencyPredictor) -> FloatArray:
    """Full-graph prediction of every architecture."""
    graphs = [graph_of(space, row) for row in rows_of(space)]
    return np.array([found.latency_ms for found in predictor.explain_many(graphs)])


def orders(measure: Measure) -> set[int]:
    """How many choices the factors of a measure depend on."""
    assert measure.table is not None
    return {len(positions) for positions in measure.table.factors}


SPACES = [residual_supernet, width_supernet, fusing_supernet, depth_supernet, entangled_supernet]


@pytest.mark.parametrize("supernet", SPACES)
def test_latency_is_the_full_graph_prediction_on_every_device(supernet: Callable[[], nx.DiGraph]) -> None:
    space, predictors = Space.of_supernet(supernet()), [load_latency_predictor(name) for name in devices()]
    measures = latencies(space, predictors)
    assert [measure.name for measure in measures] == [f"latency_ms_{name}" for name in devices()]
    for measure, predictor in zip(measures, predictors, strict=True):
        assert measure.unit == "ms"
        expected = full_latencies(space, predictor)
        assert measure.values(rows_of(space)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("supernet", SPACES)
def test_flops_and_params_match_the_model_graph(supernet: Callable[[], nx.DiGraph]) -> None:
    space = Space.of_supernet(supernet())
    for measure, count in ((flops(space), flops_of), (params(space), params_of)):
        expected = [count(graph_of(space, row)) for row in rows_of(space)]
        assert measure.values(rows_of(space)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("supernet", SPACES)
def test_memory_and_size_match_the_model_graph(supernet: Callable[[], nx.DiGraph]) -> None:
    space = Space.of_supernet(supernet())
    graphs = [graph_of(space, row) for row in rows_of(space)]
    for measure, count in ((memory(space), peak_memory), (size(space), weights_size)):
        assert measure.unit == "bytes"
        assert measure.values(rows_of(space)) == pytest.approx([count(graph) for graph in graphs], rel=1e-6)
    in_tflite = memory(space, TFLITE)
    assert in_tflite.name == "memory_tflite"
    assert in_tflite.values(rows_of(space)).tolist() == [peak_memory(graph, TFLITE) for graph in graphs]


@pytest.mark.parametrize(("graphs", "is_slow"), [(500, False), (2, True)])
def test_memory_of_a_large_space_is_a_maximum_and_no_sum(
    monkeypatch: pytest.MonkeyPatch, graphs: int, is_slow: bool
) -> None:
    """Learned from few model graphs; if these do not suffice, that of each architecture."""
    monkeypatch.setattr("nnmeter_nas.costs.peaks._GRAPHS", graphs)
    space = Space.of_supernet(residual_supernet(layers=20))
    measure = memory(space)
    assert (measure.table, measure.is_slow) == (None, is_slow)
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(0).integers(sizes, size=(20, len(sizes)))
    assert measure.values(rows).tolist() == [peak_memory(graph_of(space, row)) for row in rows]
    with pytest.raises(LookupTableError, match="no index 9"):
        measure.values([[9] * len(sizes)])


def test_memory_is_listed_graph_by_graph_once_where_many_choices_decide_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned = memory(Space.of_supernet(entangled_supernet()))
    monkeypatch.setattr("nnmeter_nas.costs.peaks._GRAPHS", 2)
    first, again = Counted(entangled_supernet()), Counted(entangled_supernet())
    rows = rows_of(first.space)
    assert memory(first.space).values(rows).tolist() == learned.values(rows).tolist()
    assert memory(again.space).values(rows).tolist() == learned.values(rows).tolist()
    assert again.graphs <= 6 < first.graphs


def test_memory_by_rules_of_ones_own_needs_a_name() -> None:
    with pytest.raises(LookupTableError, match="ONNXRUNTIME or TFLITE; for others give of_function a name"):
        memory(Space.of_supernet(width_supernet()), MemoryRules(frozenset()))


def test_simplest_exact_form_is_chosen(predictor: LatencyPredictor) -> None:
    assert orders(latency(Space.of_supernet(residual_supernet()), predictor)) == {1}
    assert orders(latency(Space.of_supernet(width_supernet()), predictor)) == {1, 2}
    assert orders(latency(Space.of_supernet(entangled_supernet()), predictor)) == {3}


def deep_supernet(layers: int = 7) -> nx.DiGraph:
    """Layers of two choices that decide one kernel together; only the first few layers run."""
    graph = new_graph("deep")
    x, ends = add_input(graph, "input", (1, 3, 16, 16)), {}
    for i in range(1, layers + 1):
        widths = {f"c{c}": conv(graph, f"width_{i}.{c}", x, c, 1) for c in (8, 100)}
        x = choice(graph, f"width_{i}", **widths)
        x = choice(
            graph, f"kernel_{i}", **{f"k{k}": conv(graph, f"kernel_{i}.{k}", x, 64, k) for k in (1, 7)}
        )
        ends[str(i)] = x
    return classifier(graph, choice(graph, "depth", **ends))


def test_few_choices_per_kernel_are_found_if_places_are_known(
    predictor: LatencyPredictor,
) -> None:
    """The space has 114,688 architectures, too many to list."""
    counted = Counted(deep_supernet())
    space = counted.space
    measure = latency(space, predictor)
    made = counted.graphs
    assert orders(measure) >= {3}
    assert made < 1000
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(5).integers(sizes, size=(100, len(sizes)))
    expected = [found.latency_ms for found in predictor.explain_many([graph_of(space, r) for r in rows])]
    assert measure.values(rows) == pytest.approx(expected, rel=1e-9)


def test_without_places_a_large_space_is_predicted_one_by_one(
    predictor: LatencyPredictor,
) -> None:
    counted = Counted(deep_supernet())
    space = replace(counted.space, places=None)
    measure = latency(space, predictor)
    assert measure.table is None
    rows = np.ones((1, len(space.candidates)), dtype=int)
    expected = predictor.explain(graph_of(space, rows[0])).latency_ms
    assert measure.values(rows) == pytest.approx([expected], rel=1e-9)
    known = counted.graphs
    measure.values(np.repeat(rows, 5, axis=0))
    assert counted.graphs == known
    for wrong in (rows[:, 1:], 7 * rows, rows.astype(float)):
        with pytest.raises(LookupTableError, match="ind"):
            measure.values(wrong)


def test_devices_share_model_graphs(predictor: LatencyPredictor) -> None:
    one, all_of_them = Counted(entangled_supernet()), Counted(entangled_supernet())
    latency(one.space, predictor)
    latencies(all_of_them.space, [load_latency_predictor(name) for name in devices()])
    assert one.graphs <= all_of_them.graphs < 2 * one.graphs


def test_device_named_twice_is_measured_twice(predictor: LatencyPredictor) -> None:
    space = Space.of_supernet(residual_supernet())
    first, second = latencies(space, [predictor, predictor])
    assert np.array_equal(first.values(rows_of(space)), second.values(rows_of(space)))


def test_progress_reports_how_many_were_measured(predictor: LatencyPredictor) -> None:
    space, done = Space.of_supernet(entangled_supernet()), list[int]()
    latency(space, predictor, progress=done.append)
    assert done == sorted(done)
    assert done[-1] == len(rows_of(space))


# Functions


def test_any_function_of_the_model_graph_can_be_a_measure() -> None:
    space = Space.of_supernet(residual_supernet())
    measure = of_function(space, len, "operators", "nodes")
    assert (measure.name, measure.unit, orders(measure)) == ("operators", "nodes", {1})
    assert measure.values(rows_of(space)).tolist() == [len(graph_of(space, row)) for row in rows_of(space)]


def test_function_of_many_choices_at_once_is_listed() -> None:
    space = Space.of_supernet(residual_supernet())
    measure = of_function(space, lambda graph: float(len(graph)) ** 3, "cube")
    assert orders(measure) == {3}
    assert measure.values(rows_of(space)).tolist() == [
        len(graph_of(space, row)) ** 3 for row in rows_of(space)
    ]


def test_function_may_be_zero_and_negative() -> None:
    space = Space.of_supernet(residual_supernet())

    def fives(graph: nx.DiGraph) -> float:
        return -0.1 * sum(data["attrs"].get("kernel") == (5, 5) for _, data in graph.nodes(data=True))

    measure = of_function(space, fives, "fives")
    assert orders(measure) == {1}
    expected = [fives(graph_of(space, row)) for row in rows_of(space)]
    assert measure.values(rows_of(space)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_error_for_a_function_without_finite_value_names_the_architecture(value: float) -> None:
    space = Space.of_supernet(residual_supernet())
    with pytest.raises(LookupTableError, match=r"'layer_1': 'k3'.* is no finite number"):
        of_function(space, lambda graph: value, "nothing")


def strange_supernet() -> nx.DiGraph:
    """A choice with an unknown operator."""
    graph = new_graph("strange")
    x = add_input(graph, "input", (1, 3, 8, 8))
    strange = add_op(graph, "strange", "fourier", [x], declared=[(1, 3, 8, 8)])
    return classifier(graph, choice(graph, "a", strange=strange, plain=conv(graph, "plain", x, 3)))


def test_warning_names_left_out_operators_also_from_the_cache(
    predictor: LatencyPredictor,
) -> None:
    space = Space.of_supernet(strange_supernet())
    for _ in range(2):
        with pytest.warns(LatencyWarning, match=f"not measured on {DEVICE}: fourier"):
            latency(space, predictor)
        with pytest.warns(LatencyWarning, match="not counted in flops: fourier"):
            flops(space)
        with pytest.warns(LatencyWarning, match="not counted in params: fourier"):
            params(space)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert memory(space).values([[0], [1]]).min() > 0, "the model declares the size of what it writes"


# Cache


def test_cached_values_are_not_computed_again(predictor: LatencyPredictor) -> None:
    for supernet in (residual_supernet, entangled_supernet):
        first, again = Counted(supernet()), Counted(supernet())
        expected = latency(first.space, predictor).values(rows_of(first.space))
        assert latency(again.space, predictor).values(rows_of(again.space)) == pytest.approx(
            expected, rel=1e-12
        )
        assert again.graphs <= 4 < first.graphs


def test_computing_flops_caches_params_too() -> None:
    first, again = Counted(entangled_supernet()), Counted(entangled_supernet())
    flops(first.space)
    params(again.space)
    assert again.graphs <= 4 < first.graphs


def test_tables_are_cached_and_cached_tables_are_used(predictor: LatencyPredictor) -> None:
    counted = Counted(residual_supernet())
    table = cached_table(counted.space, predictor)
    known = counted.graphs
    measure = latency(counted.space, predictor)
    assert counted.graphs <= known + 4
    assert np.array_equal(measure.values(rows_of(counted.space)), table.latencies(rows_of(counted.space)))
    other = Space.of_supernet(width_supernet())
    latency(other, predictor)
    assert table_path(latency_header(other, predictor)).exists()


def listed_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.npz")
    return path


def test_a_damaged_table_is_computed_anew_and_not_in_silence(
    predictor: LatencyPredictor, empty_cache: Path
) -> None:
    space = Space.of_supernet(entangled_supernet())
    expected = latency(space, predictor).values(rows_of(space))
    path = listed_file(empty_cache)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.compress_size)
    flipped = bytearray(whole)
    flipped[largest.header_offset + 30 + len(largest.filename) + largest.compress_size // 2] ^= 1
    for content in (b"", whole[:40], whole[: len(whole) // 2], whole[:-1], bytes(flipped), b"[1]"):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="built anew"):
            found = latency(space, predictor)
        assert np.array_equal(found.values(rows_of(space)), expected)
        assert path.read_bytes() == whole


def test_a_stale_table_is_computed_anew_and_not_in_silence(predictor: LatencyPredictor) -> None:
    """As after an update of this package that changes what a kernel is predicted to take."""
    space = Space.of_supernet(entangled_supernet())
    latency(space, predictor)

    def slower(architecture: Mapping[str, str]) -> nx.DiGraph:
        return select(entangled_supernet(), {**architecture, "kernel": "k7"})

    changed = replace(space, model_graph=slower)
    with pytest.warns(UserWarning, match="stale"):
        found = latency(changed, predictor)
    assert found.values(rows_of(space)) == pytest.approx(full_latencies(changed, predictor))


def test_functions_are_not_cached_on_disk(empty_cache: Path) -> None:
    of_function(Space.of_supernet(residual_supernet()), len, "operators")
    assert not list(empty_cache.rglob("*.npz"))


# Latency by block


@pytest.mark.parametrize("supernet", SPACES)
def test_latency_by_block_sums_up_to_the_latency(
    supernet: Callable[[], nx.DiGraph], predictor: LatencyPredictor
) -> None:
    space = Space.of_supernet(supernet())
    for row in rows_of(space)[::3]:
        chosen = {label: known[i] for (label, known), i in zip(space.candidates.items(), row, strict=True)}
        found = latency_by_block(space, predictor, chosen)
        assert list(found) == [*space.candidates, STATIONARY]
        assert sum(found.values()) == pytest.approx(predictor.explain(graph_of(space, row)).latency_ms)


def test_block_costs_its_kernels(predictor: LatencyPredictor) -> None:
    space = Space.of_supernet(residual_supernet())
    found = latency_by_block(space, predictor, {"layer_1": "k5", "layer_2": "zero", "layer_3": "k3"})
    graph = predictor.explain(graph_of(space, np.array([1, 2, 0]))).kernel_graph
    assert found["layer_1"] == pytest.approx(graph.nodes["layer_1.k5"]["latency_ms"], rel=1e-9)
    assert found["layer_2"] == 0.0
    assert found["layer_3"] == pytest.approx(graph.nodes["layer_3.k3"]["latency_ms"], rel=1e-9)


def branches(architecture: Mapping[str, str]) -> nx.DiGraph:
    """One of two convolutions, of which a choice of one candidate sets the second's width, then a third."""
    graph = new_graph("branches")
    x = conv(graph, "stem", add_input(graph, "input", (1, 3, 32, 32)), 16)
    x = conv(graph, "a", x, 16, 5) if architecture["skip"] == "0" else conv(graph, "b", x, 16, 1)
    return finish(classifier(graph, conv(graph, "w", x, int(architecture["width"]), 1)))


def branching_space() -> Space:
    """A space that tells as little as NNI's: the branches run everywhere as far as it knows."""
    candidates = {"only": [16], "skip": [0, 1], "width": [8, 16]}
    places = {name: Place({}, frozenset(of)) for name, of in {"": [], "b": ["only"], "w": ["width"]}.items()}
    return Space.of_function("branches", candidates, branches, places)


@pytest.mark.parametrize("listed", [True, False])
def test_kernels_that_one_choice_causes_count_for_it(
    predictor: LatencyPredictor, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    space = branching_space()
    measure = latency(space, predictor) if listed else replace(latency(space, predictor), table=None)
    found = {
        skip: latency_by_block(space, predictor, {"only": "16", "skip": skip, "width": "8"}, measure)
        for skip in "01"
    }
    for skip, kernel in (("0", "a"), ("1", "b")):
        graph = predictor.explain(branches({"skip": skip, "width": "8"})).kernel_graph
        assert found[skip]["skip"] == pytest.approx(graph.nodes[kernel]["latency_ms"], rel=1e-9)
        assert found[skip]["only"] == 0.0
    assert found["0"]["width"] == pytest.approx(found["1"]["width"], rel=1e-9)
    assert found["0"][STATIONARY] == pytest.approx(found["1"][STATIONARY], rel=1e-9)


@pytest.mark.parametrize("supernet", SPACES)
def test_latency_by_block_is_that_of_the_table(
    supernet: Callable[[], nx.DiGraph], predictor: LatencyPredictor
) -> None:
    space = Space.of_supernet(supernet())
    table = latency(space, predictor).table
    assert table is not None
    together = {label for labels in table.interactions() for label in labels}
    for row in rows_of(space)[::3]:
        found = latency_by_block(space, predictor, architecture_at(row, space.candidates))
        assert found[STATIONARY] == table.constant
        for label, index in zip(table.labels, row, strict=True):
            if label not in together:
                assert found[label] == table.block(label)[index]


@pytest.mark.parametrize("supernet", SPACES)
def test_where_no_table_holds_parts_still_sum_up_to_the_latency(
    supernet: Callable[[], nx.DiGraph], predictor: LatencyPredictor
) -> None:
    space = Space.of_supernet(supernet())
    measure = Measure("latency_ms", "ms", None, lambda rows: np.zeros(len(rows)))
    row = rows_of(space)[-1]
    found = latency_by_block(space, predictor, architecture_at(row, space.candidates), measure)
    assert min(found.values()) >= 0
    assert found[STATIONARY] > 0
    assert sum(found.values()) == pytest.approx(predictor.explain(graph_of(space, row)).latency_ms)


def test_latency_of_two_choices_is_shared_by_what_each_adds(predictor: LatencyPredictor) -> None:
    space = Space.of_supernet(width_supernet())
    narrow, wide, large = (
        latency_by_block(space, predictor, {"width": width, "kernel": kernel, "last": "k3"})
        for width, kernel in (("c8", "k1"), ("c64", "k1"), ("c64", "k7"))
    )
    assert narrow["width"] < wide["width"] < large["width"]
    assert narrow["kernel"] == pytest.approx(wide["kernel"], rel=1e-9)  # k1 adds nothing by itself
    assert large["kernel"] > 3 * wide["kernel"]


def test_latency_by_block_of_another_spaces_architecture_is_rejected(predictor: LatencyPredictor) -> None:
    with pytest.raises(SpaceError, match="no candidate 'k9'"):
        latency_by_block(
            Space.of_supernet(residual_supernet()),
            predictor,
            {"layer_1": "k9", "layer_2": "k3", "layer_3": "k3"},
        )


@pytest.mark.nni3
def test_spaces_of_the_package_come_with_their_latency(empty_cache: Path) -> None:
    pytest.importorskip("torch")
    space = load_space("proxylessnas")
    predictors = [load_latency_predictor(name) for name in devices()]
    done: list[int] = []
    measures = latencies(space, predictors, progress=done.append)
    assert not done
    rows = np.zeros((1, len(space.candidates)), dtype=int)
    for measure, predictor in zip(measures, predictors, strict=True):
        table = bundled_table("proxylessnas", predictor)
        assert table is not None
        assert measure.values(rows) == table.latencies(rows)
    assert not list(empty_cache.rglob("*.npz"))
