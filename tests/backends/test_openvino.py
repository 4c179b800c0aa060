"""OpenVINO: it runs our networks, and with what it tells of its kernels every operator has one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
pytest.importorskip("onnx")

from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import kernel_table, observe
from nnmeter_nas.builder.rules import find_rules
from nnmeter_nas.builder.worker import visit
from nnmeter_nas.kernels import parse_rules
from nnmeter_nas.readers import read_model


def test_networks_run_and_their_rules_are_those_of_the_runtime(tmp_path: Path) -> None:
    backend, runs = load_backend("openvino"), []
    for seed in range(8):
        graph = random_network(seed)
        backend.write(graph, tmp_path / "network.onnx")
        # What OpenVINO calls a fused operator differs each time that it loads a network.
        seen = observe("network", graph, [visit(backend.load(tmp_path / "network.onnx")) for _ in range(2)])
        assert seen is not None
        assert 0 < seen.ms < math.inf
        named = [name for kernel in seen.kernels for name in kernel.operators]
        assert len(named) == len(set(named)), "no operator has two kernels"
        assert set(named) <= set(graph)
        assert sum(kernel.ms for kernel in seen.kernels) == pytest.approx(seen.ms)
        runs.append((graph, seen.kernels))
    rules, votes = find_rules(runs)
    assert {"conv->bn", "conv->relu", "dwconv->bn", "dwconv->relu"} <= set(rules)
    assert all(vote.fused <= vote.seen for vote in votes)


class _Attention(nn.Module):
    """Attention as torch computes it, with query, key and value of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, 64, 8, 8), nn.Linear(64, 192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        for _ in range(3):
            parts = self.layer(tokens).reshape(1, 64, 3, 4, 16).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
            tokens = tokens + mixed.transpose(1, 2).reshape(1, 64, 64)
        return tokens.mean(1)


def test_attention_is_one_kernel_of_openvino(tmp_path: Path) -> None:
    backend = load_backend("openvino")
    graph = read_model(_Attention().eval(), input_shape=(1, 3, 64, 64))
    backend.write(graph, tmp_path / "network.onnx")
    seen = observe("network", graph, [visit(backend.load(tmp_path / "network.onnx"))] * 2)
    assert seen is not None
    rules, _ = find_rules([(graph, seen.kernels)])
    assert "attention" in rules
    table, _ = kernel_table([seen], parse_rules(rules), "laptop")
    alone = table.index[table.start[:-1][np.diff(table.start) == 1]]
    assert (table.types[alone] == "attention").sum() == 3, "each has a time of its own"
