"""What a build found, in nn-Meter's files: nn-Meter's readers take them, and they hold what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="a build needs torch")
pytest.importorskip("onnx")
pytest.importorskip("scipy")
pytest.importorskip("sklearn", reason="the forests are scikit-learn's")

from ir import small_cnn
from nnmeter_nas.backends.base import KernelTime
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.visits import Visit
from nnmeter_nas.builder.workspace import RULES, open_workspace
from nnmeter_nas.compat.builder import forests
from nnmeter_nas.compat.builder.from_build import write_build_results
from nnmeter_nas.compat.builder.models import lone_kernel
from nnmeter_nas.compat.builder.results import Latency
from nnmeter_nas.compat.kernels import KernelDetector, get_kernel_name
from nnmeter_nas.errors import WorkspaceError
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.pack import parse_rule_file
from simulated_device import RULES as SECRET_RULES
from simulated_device import kernel_ms, operators

NETWORKS = 24
#: What the convolution took alone: more than any network.
LONE_MS = 1e5
DEVICE = {"name": "mine", "backend": "simulated", "runtime": "simulated 1.0", "machine": "paper"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a build of the simulated device, which measured a convolution alone, too."""
    work, folder = (tmp_path_factory.mktemp(name) for name in ("work", "results"))
    rules = parse_rules(SECRET_RULES)
    with open_workspace(work, DEVICE) as workspace:
        for seed in range(NETWORKS):
            name = f"network{seed:04d}"
            kernels = [kernel for _, kernel in fuse(random_network(seed), rules).nodes(data="kernel")]
            times = [KernelTime(operators(one), one.type, kernel_ms(one)) for one in kernels]
            workspace.add(name, seed, held_out=seed % 4 == 0)
            for _ in range(2):
                workspace.record(name, Visit(sum(one.ms for one in times), tuple(times)), 0.1)
        lone = next(name for name, data in random_network(0).nodes(data=True) if data["op"] == "conv")
        workspace.add("piece", 0, held_out=False, operators=[lone])
        for _ in range(2):
            workspace.record("piece", Visit(LONE_MS, None), 0.1)
        with pytest.raises(WorkspaceError, match="no finished build"):
            write_build_results(work, folder)
        workspace.write_yaml(RULES, {})
    written = write_build_results(work, folder)
    assert sorted(written) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def of_type(results: Path, kernel_type: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes and latencies of kernels of a type."""
    files = (f"{kernel_type}_build.json", f"profiled_{kernel_type}.json")
    sizes, measured = (json.loads((results / "predictor_build/results" / file).read_text()) for file in files)
    return sizes[kernel_type], measured[kernel_type]


def test_rules_are_the_devices(results: Path) -> None:
    path = results / "fusion_rule_test" / "results" / "detected_fusion_rule.json"
    found = parse_rule_file(path.read_bytes(), "rules")
    secret = {tuple(rule.split("->")) for rule in SECRET_RULES}
    told = json.loads(path.read_text())
    pairs = {tuple(name.split("_")[1:]): rule["obey"] for name, rule in told.items() if name.count("_") == 2}
    assert {pair for pair, obeyed in pairs.items() if obeyed} <= secret
    assert {("conv", "relu"), ("dwconv", "bn")} <= found.pairs
    assert not pairs["relu", "conv"]
    assert ("maxpool", "conv") in pairs
    assert ("avgpool", "conv") in pairs, "nn-Meter knows two kinds of pools"


@pytest.mark.parametrize("kernel_type", ["maxpool", "global-avgpool", "relu"])
def test_latencies_are_those_of_the_kernels(results: Path, kernel_type: str) -> None:
    sizes, measured = of_type(results, kernel_type)
    assert list(sizes) == list(measured)
    assert len({str(kernel["config"]) for kernel in sizes.values()}) == len(sizes), "one of each size"
    for name, kernel in sizes.items():
        alone = fuse(lone_kernel(kernel_type, kernel["config"]), parse_rules([]))
        [(_, found)] = alone.nodes(data="kernel")
        assert Latency(measured[name]["latency"]).avg == pytest.approx(kernel_ms(found), rel=1e-6)
        assert kernel["shapes"][0][-1] == kernel["config"]["CIN"]


def test_what_was_measured_alone_counts(results: Path) -> None:
    _, measured = of_type(results, "conv-bn-relu")
    assert max(Latency(kernel["latency"]).avg for kernel in measured.values()) >= LONE_MS / NETWORKS


def test_nn_meters_builder_goes_on_from_there(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forests, "_TREES", 20)
    folder = results / "predictor_build" / "results"
    for kernel_type in ("conv-bn-relu", "dwconv-bn-relu", "fc", "concat"):
        pair = (str(folder / f"{kernel_type}_build.json"), str(folder / f"profiled_{kernel_type}.json"))
        forest, _, missed = forests.build_predictor_by_data(kernel_type, pair)
        assert forest.n_features_in_ >= 2
        assert missed is not None
        header, *rows = (folder / "collection" / f"Data_{kernel_type}_build.csv").read_text().splitlines()
        assert header.startswith("model_path,")
        assert header.endswith(",latency")
        assert len(rows) == len(of_type(results, kernel_type)[1])


def test_a_network_splits_into_kernels_of_these_types(results: Path) -> None:
    detector = KernelDetector(results / "fusion_rule_test" / "results" / "detected_fusion_rule.json")
    detector.load_graph(small_cnn())
    types = {get_kernel_name(kernel["op"]) for kernel in detector.get_kernels()}
    assert all((results / "predictor_build/results" / f"{name}_build.json").is_file() for name in types)
