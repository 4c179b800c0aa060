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
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- graph network: begin -->\nold\n<!-- graph network: end -->\nafter\n")
    words = ["gnn", str(folder), "--predictor", CPU, "--epochs", "2", "--batch", "8", "--page", str(page)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert CPU in table
    lines = [line for line in table.splitlines() if "tested" in line]
    assert len(lines) == 2
    # int(11 * (1 - 0.8)) of each of two families
    assert all(line.split("│")[3].strip() == "4" for line in lines)
    written = page.read_text().splitlines()
    rows = [line.split(" | ") for line in written if "| tested |" in line]
    assert [row[2] for row in rows] == ["nn-Meter's graph network", "pack"]
    assert {row[3] for row in rows} == {"4"}
    assert [row[4:] for row in rows] == [
        [cell.strip() + end for cell, end in zip(line.split("│")[4:7], ("", "", " |"), strict=True)]
        for line in lines
    ]
    assert "for 2 passes over the data (20 in nn-Meter's notebook), by 8 models a step" in written[-3]
    assert (written[0], written[-1]) == ("before", "after")
