"""Weights go by name, so a pack neither gains nor loses by what the package knows besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from graphs import graph_of, squeeze_excite
from ir import IrBuilder
from nnmeter_nas import LatencyPredictor, load_latency_predictor, read_model
from nnmeter_nas.benchmarks.networks import build_network, input_shape
from nnmeter_nas.benchmarks.packs.pack_training import Plan, train_packs
from nnmeter_nas.errors import PackError, UnpredictedOperatorError
from nnmeter_nas.files import write_npz
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.kernels import configuration
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs import Pack, features, load_pack, save_pack, vocabulary
from nnmeter_nas.packs.network import KernelNetwork
from nnmeter_nas.packs.pack import write_checksums
from nnmeter_nas.packs.registry import devices
from recorded import RECORD
from synthetic_bench import CPU

RECORDED = ("resnet18", "mobilenet_v3_large", "shufflenet_v2_x1_0", "densenet121", "squeezenet1_0")
#: By name of its array, the axis of which other arrays that array names.
AXES = {
    "terms": {"group_weights": 1, "kind_weights": 1},
    "descriptors": {"center": 0, "scale": 0, "low": 0, "high": 0, "input_weights": 0},
    "groups": {"group_weights": 0},
    "kinds": {"kinds": 0, "kind_types": 0, "kind_groups": 0, "kind_weights": 0, "kind_bias": 0},
    "measured": {"range_low": 0, "range_high": 0},
    "columns": {"range_low": 1, "range_high": 1},
}


@pytest.fixture(scope="module")
def cpu() -> Pack:
    """The bundled pack of the CPU, of format 1."""
    return load_latency_predictor(CPU, 2.0).pack


@pytest.fixture(scope="module")
def shufflenet() -> nx.DiGraph:
    """A network with kernels of many types."""
    return read_model(build_network("shufflenet_v2_x1_0"), input_shape=input_shape("shufflenet_v2_x1_0"))


def with_network(pack: Pack, network: KernelNetwork) -> LatencyPredictor:
    return LatencyPredictor(Pack(pack.card, pack.rules, network))


def figures(predictor: LatencyPredictor, graph: nx.DiGraph) -> dict[str, Any]:
    """Latency and what it rests on, by kernel."""
    nodes = predictor.explain(graph).kernel_graph.nodes(data=True)
    return {name: (data["latency_ms"], data["basis"]) for name, data in nodes}


def assert_same_figures(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, (ms, basis) in one.items():
        assert basis == other[name][1], name
        assert ms == pytest.approx(other[name][0], rel=1e-12), name


def chosen(arrays: dict[str, Any], axis: str, index: Any) -> dict[str, Any]:
    """The arrays of a network with ``index`` of all that one array names, such as its ``kinds``."""
    found = dict(arrays)
    found[axis] = arrays[axis][index]
    for name, array in arrays.items():
        moved = AXES[axis].get(name.split(".")[-1])
        if moved is not None:
            found[name] = np.take(array, np.arange(array.shape[moved])[index], axis=moved)
    return found


@pytest.mark.parametrize("network", RECORDED)
def test_packs_without_names_predict_what_they_always_did(network: str) -> None:
    recorded = json.loads(RECORD.read_text())[f"{network} torch"]
    graph = read_model(build_network(network), input_shape=input_shape(network))
    for device in devices():
        latency = load_latency_predictor(device, 2.0).explain(graph).latency_ms
        assert latency == pytest.approx(recorded[device], rel=1e-12)


def test_names_may_stand_in_any_order(cpu: Pack, shufflenet: nx.DiGraph, tmp_path: Path) -> None:
    expected, arrays = figures(LatencyPredictor(cpu), shufflenet), cpu.predictors.to_arrays()
    rng = np.random.default_rng(0)
    for axis in AXES:
        arrays = chosen(arrays, axis, rng.permutation(len(arrays[axis])))
        assert_same_figures(
            expected, figures(with_network(cpu, KernelNetwork.from_arrays(arrays)), shufflenet)
        )
    save_pack(tmp_path, cpu.card, KernelNetwork.from_arrays(arrays))
    assert load_pack(tmp_path).card["format"] == 2
    assert_same_figures(expected, figures(LatencyPredictor(load_pack(tmp_path)), shufflenet))


def test_what_the_package_learns_later_changes_no_pack(
    cpu: Pack, shufflenet: nx.DiGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = figures(LatencyPredictor(cpu), shufflenet)
    monkeypatch.setitem(features.TERMS, "novel", lambda found: found.size("cin"))
    monkeypatch.setitem(features.DESCRIPTORS, "novel", lambda found: found.size("cin"))
    monkeypatch.setitem(features.VARIANTS, "conv_s2", ("conv", lambda found: found.size("sh") == 2))
    for module in (configuration, vocabulary):
        monkeypatch.setattr(module, "FORMULA_TYPES", ("novel", *configuration.FORMULA_TYPES))
    assert_same_figures(expected, figures(LatencyPredictor(cpu), shufflenet))


@pytest.mark.parametrize(
    ("attrs", "kind"),
    [
        ({"kernel": (3, 3), "groups": 1}, "conv_3x3_s1"),
        ({"kernel": (3, 3), "groups": 4}, "conv_grouped"),
        ({"kernel": (5, 5), "groups": 32}, "dwconv_s1"),
        ({"kernel": (7, 7), "groups": 32}, "dwconv_large"),
    ],
)
def test_kernels_that_runtimes_run_in_their_own_way_have_weights_of_their_own(
    attrs: dict[str, Any], kind: str
) -> None:
    conv = {"out_channels": 32, "stride": (1, 1), "padding": "same", **attrs}
    graph = new_graph()
    add_op(graph, "conv", "conv", [add_input(graph, "x", (1, 32, 14, 14))], conv)
    [(_, kernel)] = fuse(finish(graph), parse_rules([])).nodes(data="kernel")
    seen = configuration.Configurations.of([configuration.configuration(kernel)])
    names = vocabulary.new_vocabulary(seen)
    [found] = names.kinds_of(seen)
    assert names.kinds[found] == kind


def convolution(activation: str) -> configuration.Configuration:
    """A convolution that this activation is fused with."""
    graph = new_graph()
    x = add_op(graph, "conv", "conv", [add_input(graph, "x", (1, 32, 14, 14))],
               {"out_channels": 32, "kernel": (3, 3), "padding": "same"})
    add_op(graph, "act", activation, [x], {})
    rules = parse_rules(["conv->relu", "conv->hswish", "conv->swish"])
    [(_, kernel)] = fuse(finish(graph), rules).nodes(data="kernel")
    return configuration.configuration(kernel)


def test_activations_have_features_where_they_were_measured() -> None:
    plain, limited = convolution("relu"), convolution("relu6")
    assert plain != limited
    names = vocabulary.new_vocabulary(configuration.Configurations.of([plain, limited]))
    assert {"runs_relu6", "relu6_values"} <= {*names.columns, *names.descriptors, *names.terms}
    assert not any("gelu" in name for name in (*names.columns, *names.descriptors, *names.terms))
    # A pack that never saw a relu6 takes it for a relu, and does not call it out of range.
    names = vocabulary.new_vocabulary(configuration.Configurations.of([plain]))
    assert not any("relu6" in name for name in (*names.columns, *names.descriptors, *names.terms))


def without(pack: Pack, kernel_type: str) -> KernelNetwork:
    """The network of a pack as if it had never seen kernels of a type."""
    arrays = pack.predictors.to_arrays()
    for axis in ("kinds", "measured"):
        arrays = chosen(arrays, axis, arrays[axis] != kernel_type)
    return KernelNetwork.from_arrays(arrays)


def test_a_type_that_a_pack_lacks_is_estimated_and_all_else_is_predicted(
    cpu: Pack, shufflenet: nx.DiGraph
) -> None:
    lacking = with_network(cpu, without(cpu, "channelshuffle"))
    found = figures(lacking, shufflenet)
    for name, (ms, basis) in figures(LatencyPredictor(cpu), shufflenet).items():
        if shufflenet.nodes[name]["op"] == "channelshuffle":
            assert found[name][0] > 0
            assert found[name][1] == "estimated"
        else:
            assert found[name] == (pytest.approx(ms, rel=1e-12), basis)
    with pytest.raises(UnpredictedOperatorError, match="channelshuffle"):
        lacking.predict(shufflenet, strict=True)


def test_a_pattern_that_a_pack_lacks_is_priced_as_its_operators(cpu: Pack, tmp_path: Path) -> None:
    graph, whole = squeeze_excite(), LatencyPredictor(cpu)
    assert set(figures(whole, graph)) == {"stem", "pool"}
    network = without(cpu, "se")
    card = {**cpu.card, "kernel_types": list(network.names.measured)}
    save_pack(tmp_path, card, network)
    pack = load_pack(tmp_path)
    found = figures(LatencyPredictor(pack), graph)
    assert set(found) == {"stem", "pool", "squeeze", "excite", "gate", "product"}
    assert [name for name, (_, basis) in found.items() if basis == "estimated"] == ["gate"]
    for name in ("squeeze", "excite"):
        kernel = pack.kernel_graph(graph).nodes[name]["kernel"]
        assert found[name][0] == pytest.approx(whole.kernel_latencies([kernel])[0].ms, rel=1e-12)


# A kernel type that the package has never heard of


def fourier_ms(values: int) -> float:
    """Latency of the made-up operator: a launch, and a time for each value read and written."""
    return 0.02 + 2 * values / 1e6


def write_fourier_bench(folder: Path, models: int = 60) -> Path:
    """A dataset of networks with a made-up operator, measured on the CPU."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(models):
        b = IrBuilder((1, int(rng.integers(4, 40)), int(rng.integers(4, 40)), 3))
        last = b.conv("stem", "input", int(rng.integers(1, 16)) * 4, kernel=1)
        latency = 0.01
        for layer in range(int(rng.integers(1, 5))):
            last = b.unary(f"fourier{layer}", "Fourier", last)
            latency += fourier_ms(int(np.prod(b.shapes[last])))
        lines.append(json.dumps({"id": f"net_{i}", CPU: latency, "graph": b.nodes}))
    (folder / "nets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack trained on networks with the made-up operator."""
    folder = tmp_path_factory.mktemp("fourier")
    plan = Plan(devices=(CPU,), members=1, seed=0, epochs=150, lofo_epochs=1)
    [pack] = train_packs(write_fourier_bench(folder), folder / "packs", folder / "work", plan)
    return pack


def fourier(channels: int, size: int, op: str = "fourier") -> nx.DiGraph:
    shape = (1, channels, size, size)
    return graph_of(("f", op, ["x"], {}, [shape]), shape=shape)


def test_a_pack_brings_a_kernel_type_that_the_package_has_never_heard_of(trained: Path) -> None:
    pack = load_pack(trained)
    assert pack.card["kernel_types"] == ["conv", "fourier"]
    assert "fourier" not in configuration.FORMULA_TYPES
    predictor = LatencyPredictor(pack)
    for channels, size in ((16, 16), (32, 24), (48, 32)):
        found = predictor.explain(fourier(channels, size))
        assert found.kernel_graph.nodes["f"]["basis"] == "measured"
        assert found.latency_ms == pytest.approx(fourier_ms(channels * size * size), rel=0.15)
        assert predictor.predict(fourier(channels, size), strict=True) == found.latency_ms
    far = predictor.explain(fourier(512, 128))
    assert far.extrapolated_share == 1.0
    assert far.latency_ms > 50 * predictor.explain(fourier(32, 24)).latency_ms
    with pytest.raises(UnpredictedOperatorError, match="wavelet"):
        predictor.predict(fourier(16, 16, "wavelet"), strict=True)
    bundled = load_latency_predictor(CPU).explain(fourier(16, 16))
    assert bundled.estimated == {"f": "fourier"}


def test_a_type_priced_by_its_declared_work_stays_so_when_the_package_gets_a_formula(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LatencyPredictor(load_pack(trained)).predict(fourier(24, 20))
    for module in (configuration, vocabulary):
        monkeypatch.setattr(module, "FORMULA_TYPES", (*configuration.FORMULA_TYPES, "fourier"))
    monkeypatch.setattr(features, "DATA_MOVERS", (*features.DATA_MOVERS, "fourier"))
    assert LatencyPredictor(load_pack(trained)).predict(fourier(24, 20)) == before


def test_a_pack_has_no_weights_for_groups_that_it_saw_nothing_of(trained: Path) -> None:
    predictors = load_pack(trained).predictors
    assert predictors.names.groups == ("matrix", "declared")
    graph = graph_of(("p", "maxpool", ["x"], {"kernel": (2, 2)}), ("c", "fc", ["p"], {"out_features": 4}))
    kernels = [kernel for _, kernel in fuse(graph, parse_rules([])).nodes(data="kernel")]
    assert [predictors.covers(kernel) for kernel in kernels] == [False, False]
    assert [found.basis for found in predictors.latencies(kernels)] == ["unpredicted", "estimated"]


# Damage


def arrays_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": None}, "do not name their terms"),
        ({"kinds": np.arange(4.0)}, "do not name their kinds"),
        ({"kinds": np.array("conv")}, "do not name their kinds"),
        ({"terms": ("launch", "macs")}, "shape"),
        ({"terms": "wishes"}, "terms.*not know: wishes"),
        ({"descriptors": "wishes"}, "descriptors.*not know: wishes"),
        ({"columns": "depth"}, "columns.*not know: depth"),
        ({"kinds": "conv_5x5"}, "conv_5x5.*variant of.*not know"),
        ({"kind_types": "wavelet"}, "wavelet"),
        ({"kind_groups": "others"}, "no weights for the group others"),
        ({"measured": "bn"}, "no weights for the measured type bn"),
        ({"declared": ("fourier", "wavelet")}, "no weights for the declared type wavelet"),
        ({"terms": "macs"}, "terms twice"),
        ({"measured": ()}, "shape"),
        ({"kind_groups": ("matrix",)}, "one type and one group"),
    ],
    ids=str,
)
def test_names_that_make_no_sense_are_refused(
    trained: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """A text replaces the last name, a tuple all of them."""
    arrays = arrays_of(trained)
    for name, value in change.items():
        if isinstance(value, str):
            first = arrays[name].tolist()[:-1]
            arrays[name] = np.array([*first, value], dtype=np.str_)
        elif isinstance(value, tuple):
            arrays[name] = np.array(value, dtype=np.str_)
        else:
            arrays[name] = value
    write_npz(tmp_path / "weights.npz", {name: a for name, a in arrays.items() if a is not None})
    (tmp_path / "pack.yaml").write_bytes((trained / "pack.yaml").read_bytes())
    write_checksums(tmp_path, ["pack.yaml", "weights.npz"])
    with pytest.raises(PackError, match=message):
        load_pack(tmp_path)


def test_card_and_weights_agree_on_what_was_measured(trained: Path, tmp_path: Path) -> None:
    pack = load_pack(trained)
    save_pack(tmp_path, {**pack.card, "kernel_types": ["conv"]}, pack.predictors)
    with pytest.raises(PackError, match="disagree on the kernel types"):
        load_pack(tmp_path)
