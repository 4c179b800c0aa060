"""nn-Meter's graph network: its layer, and its accuracy beside a pack's on nn-Meter's split."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

import torch

from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.gnn import SageLayer
from synthetic_bench import CPU, write_bench


def test_a_node_hears_the_largest_of_what_its_neighbours_say() -> None:
    torch.manual_seed(0)
    layer, x = SageLayer(3, 2), torch.randn(4, 3)
    edges = [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1), (2, 1), (1, 3)]
    found = layer(x, torch.tensor(edges).T)
    for node in range(4):
        said = torch.stack([torch.relu(layer.say(x[a])) for a, b in edges if b == node])
        expected = layer.own(x[node]) + layer.heard(said.max(0).values)
        assert torch.allclose(found[node], expected, atol=1e-6)


def test_one_command_compares_it_with_the_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bench(tmp_path, models=11)
    words = ["gnn", str(folder), "--predictor", CPU, "--epochs", "2", "--batch", "8"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert CPU in table
    lines = [line for line in table.splitlines() if "tested" in line]
    assert len(lines) == 2
    # int(11 * (1 - 0.8)) of each of two families
    assert all(line.split("│")[3].strip() == "4" for line in lines)
