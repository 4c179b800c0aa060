"""Builds of a device that does not tell what its kernels took: pieces of networks, and rules from timing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="fitting a predictor needs torch")
pytest.importorskip("onnx")
pytest.importorskip("scipy")

from layout import HELPERS
from nnmeter_nas.builder.build import build
from nnmeter_nas.builder.fitting import is_network, predicted, quick_fit
from nnmeter_nas.builder.lone import choose_pieces
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import Observation, kernel_table
from nnmeter_nas.builder.pairs import pair_rules
from nnmeter_nas.builder.pieces import can_be_alone, piece
from nnmeter_nas.builder.plan import Plan
from nnmeter_nas.builder.rules import COMMON_RULES, Found
from nnmeter_nas.builder.visits import Visit
from nnmeter_nas.builder.workspace import MEASURED, MODELS, RULES, Round, open_workspace
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.registry import find_pack
from nnmeter_nas.predictor import load_latency_predictor
from simulated_device import RULES as TRUE_RULES
from simulated_device import kernel_ms

DEVICE = {"name": "mine", "backend": "silent", "runtime": "silent 1.0", "machine": "here"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, where built packs go, and workers that find the simulated device."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))


def timed(first: float, second: float, both: float, size: int = 0, noise: float = 0.0) -> list[Observation]:
    """Pieces of the pair of a convolution and an h-swish."""
    return [
        Observation(f"conv-hswish.{size}.{part}", random_network(0), ms, (ms, ms * (1 + noise)), (), True)
        for part, ms in (("first", first), ("second", second), ("both", both))
    ]


def test_a_piece_is_operators_of_a_network_alone() -> None:
    whole = random_network(43)
    for _, kernel in fuse(whole, parse_rules(COMMON_RULES)).nodes(data="kernel"):
        alone = piece(43, tuple(kernel.members))
        assert {name for name, op in alone.nodes(data="op") if op != "input"} == set(kernel.members)
        [(_, same)] = fuse(alone, parse_rules(COMMON_RULES)).nodes(data="kernel")
        assert same.form == kernel.form


def test_pieces_are_chosen_once(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "work", DEVICE) as workspace:
        assert workspace.tells_kernels, "nothing is known yet"
        workspace.add("network0000", 3, held_out=False)
        workspace.record("network0000", Visit(1.5, None), 0.1)
        assert not workspace.tells_kernels
        names = choose_pieces(workspace, 0, 0, 4)
        assert len([name for name in names if name.startswith("kernel")]) == 20
        assert {"conv-relu.0.first", "conv-relu.0.second", "conv-relu.0.both"} <= set(names)
        assert choose_pieces(workspace, 0, 1, 4) == [f"kernel{i:04d}" for i in range(20, 40)]
        found = dict(workspace.networks)
    with open_workspace(tmp_path / "work", DEVICE) as workspace:
        assert choose_pieces(workspace, 0, 0, 4) == names
        assert {name: one.operators for name, one in workspace.networks.items()} == {
            name: one.operators for name, one in found.items()
        }
    assert len((tmp_path / "work" / MODELS).read_text().splitlines()) == 1 + len(names) + 20


@pytest.mark.parametrize(
    ("pieces", "votes"),
    [
        (timed(1.0, 0.5, 1.02) + timed(2.0, 1.0, 2.04, 1), Found(("conv", "hswish"), 2, 2)),
        (timed(1.0, 0.5, 1.52) + timed(2.0, 1.0, 3.04, 1), Found(("conv", "hswish"), 0, 2)),
        # Sizes disagree, a size is lost in noise, a part could not be measured.
        (timed(1.0, 0.5, 1.02) + timed(2.0, 1.0, 3.04, 1), Found(("conv", "hswish"), 1, 2, True)),
        (timed(1.0, 0.5, 1.02) + timed(9.0, 0.1, 9.1, 1, noise=0.1), Found(("conv", "hswish"), 1, 1, True)),
        (timed(9.0, 0.1, 9.1, noise=0.1), Found(("conv", "hswish"), 0, 0, True)),
        (timed(1.0, 0.5, 1.02) + timed(2.0, 1.0, 2.04, 1)[:2], Found(("conv", "hswish"), 1, 1, True)),
    ],
)
def test_a_pair_is_a_rule_if_it_surely_saves_time(pieces: list[Observation], votes: Found) -> None:
    rules, found = pair_rules(pieces)
    assert found == [votes]
    assert 0 <= found[0].share <= 1
    joined = ["conv->hswish"] if votes.fused and not votes.uncertain else []
    assert rules == sorted([*COMMON_RULES, *joined])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_silent_device_is_learnt_from_networks_and_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_NOISE", "0.005")
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 50)  # only the pack predicts
    folder, rounds = tmp_path / "work", list[Round]()
    backend = "simulated_device:SilentDevice"
    plan = Plan(networks=16, round_size=16, visits=2, members=1)
    target = build("silent", backend, folder, plan, rounds.append, lambda text: None)
    assert [found.networks for found in rounds] == [16], "pieces are no networks"
    votes = yaml.safe_load((folder / RULES).read_text())["votes"]
    sure = {name: vote["fused"] > vote["seen"] / 2 for name, vote in votes.items() if "uncertain" not in vote}
    assert {name for name, fused in sure.items() if fused} == sure.keys() & set(TRUE_RULES)
    assert len(sure) >= 15
    rules = set(find_pack("silent").card["fusion_rules"])
    assert rules <= set(TRUE_RULES)
    predictor = load_latency_predictor("silent")
    ratios = []
    for seed in range(5000, 5060):  # networks that no build draws
        kernels = predictor.pack.kernel_graph(graph := random_network(seed)).nodes(data="kernel")
        ratios.append(predictor.predict(graph) / sum(kernel_ms(kernel) for _, kernel in kernels))
    assert sum(abs(ratio - 1) <= 0.10 for ratio in ratios) >= 42
    assert sum(abs(ratio - 1) <= 0.20 for ratio in ratios) >= 54
    # The same measurements make the same pack.
    measured, weights = (folder / MEASURED).read_bytes(), (target / "weights.npz").read_bytes()
    assert all(json.loads(line)["kernels"] is None for line in measured.splitlines())
    (folder / RULES).unlink()
    build("silent", backend, folder, plan, rounds.append, lambda text: None)
    assert (folder / MEASURED).read_bytes() == measured
    assert (target / "weights.npz").read_bytes() == weights


def test_what_networks_tell_is_not_outvoted_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that take a third less alone than in networks, as some do on real devices."""
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 300)
    rules = parse_rules(TRUE_RULES)

    def observed(seed: int, members: list[str] | None = None, share: float = 1.0) -> Observation:
        graph = random_network(seed) if members is None else piece(seed, tuple(members))
        ms = share * sum(kernel_ms(kernel) for _, kernel in fuse(graph, rules).nodes(data="kernel"))
        return Observation(f"{seed}.{members}", graph, ms, (ms, ms), (), members is not None)

    networks = [observed(seed) for seed in range(12)]
    pieces = [
        observed(seed, kernel.members, 2 / 3)
        for seed in range(100, 106)
        for _, kernel in fuse(random_network(seed), rules).nodes(data="kernel")
        if can_be_alone(kernel)
    ]
    assert len(pieces) > 8 * len(networks)
    table, _ = kernel_table([*networks, *pieces], rules, "mine")
    fitted = quick_fit(table, np.arange(len(table.ids)), seed=0, members=1)
    ratios = (predicted(fitted, table)[0] / table.latency_ms[:, 0])[is_network(table)]
    assert (np.abs(ratios - 1) < 0.1).mean() > 0.8
