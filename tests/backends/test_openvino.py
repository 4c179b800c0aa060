"""OpenVINO: it runs our networks, and with what it tells of its kernels every operator has one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
pytest.importorskip("onnx")

from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import observe
from nnmeter_nas.builder.rules import find_rules
from nnmeter_nas.builder.worker import visit


def test_networks_run_and_their_rules_are_those_of_the_runtime(tmp_path: Path) -> None:
    backend, runs = load_backend("openvino"), []
    for seed in range(8):
        graph = random_network(seed)
        backend.write(graph, tmp_path / "network.onnx")
        seen = observe("network", graph, [visit(backend.load(tmp_path / "network.onnx"))] * 2)
        assert seen is not None
        assert 0 < seen.ms < math.inf
        assert sum(kernel.ms for kernel in seen.kernels) == pytest.approx(seen.ms)
        runs.append((graph, seen.kernels))
    rules, votes = find_rules(runs)
    assert {"conv->bn", "conv->relu", "dwconv->bn", "dwconv->relu"} <= set(rules)
    assert all(vote.fused <= vote.seen for vote in votes)
