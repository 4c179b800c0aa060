"""Builds on a simulated device: its rules are found, its latency is predicted, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="fitting a predictor needs torch")
pytest.importorskip("onnx")
pytest.importorskip("scipy")

from layout import HELPERS
from nnmeter_nas.builder.build import Plan, build
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import observe, unusable
from nnmeter_nas.builder.worker import Visit, worker
from nnmeter_nas.builder.workspace import MEASURED, Round, open_workspace
from nnmeter_nas.errors import (
    MeasurementError,
    MissingPackageError,
    SearchError,
    SettingsError,
    UnknownBackendError,
    WorkspaceError,
)
from nnmeter_nas.packs.registry import find_pack, user_packs
from nnmeter_nas.predictor import load_latency_predictor
from simulated_device import RULES, kernel_ms

DEVICE = "simulated_device:Device"
SMALL = Plan(networks=16, round_size=16, visits=2, limit_s=5.0, members=2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, where built packs go, and workers that find the simulated device."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))


def built(folder: Path, plan: Plan = SMALL, name: str = "simulated") -> tuple[Path, list[Round]]:
    """Build, and return the pack's folder and the rounds."""
    rounds: list[Round] = []
    return build(name, DEVICE, folder, plan, rounds.append, lambda text: None), rounds


def visits(folder: Path) -> list[dict[str, Any]]:
    """Lines of ``measured.jsonl``."""
    return [json.loads(line) for line in (folder / MEASURED).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_simulated_device_is_learnt_from_sixty_networks(tmp_path: Path) -> None:
    _, rounds = built(tmp_path / "work", Plan(networks=60, round_size=20))
    assert rounds[-1].networks <= 60
    predictor = load_latency_predictor("simulated")
    ratios, inside = [], []
    for seed in range(5000, 5100):  # networks that no build draws
        kernels = predictor.pack.kernel_graph(graph := random_network(seed)).nodes(data="kernel")
        truth = sum(kernel_ms(kernel) for _, kernel in kernels)
        found = predictor.predict_interval(graph)
        ratios.append(found.ms / truth)
        inside.append(found.low <= truth <= found.high)
    assert sum(abs(ratio - 1) <= 0.10 for ratio in ratios) >= 90
    assert sum(abs(ratio - 1) <= 0.05 for ratio in ratios) >= 70
    assert sum(inside) >= 80


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_build_finds_rules_and_faults_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = "network0003=hang network0004=crash:1 network0005=zero network0006=error network0007=nan:1"
    monkeypatch.setenv("SIMULATED_FAULTS", faults)
    monkeypatch.setenv("SIMULATED_NOISE", "0")
    folder = tmp_path / "work"
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; from pathlib import Path; from test_build import SMALL, built\n"
        "if __name__ == '__main__': built(Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), str(Path(__file__).parent)])}
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)
    end = time.monotonic() + 200
    while not (folder / MEASURED).exists() or len(visits(folder)) < 12:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = visits(folder)
    target, [found] = built(folder)
    after = visits(folder)
    assert after[: len(before)] == before, "nothing measured is lost"
    assert (found.networks, found.left_out) == (13, 3)
    reasons = {line["id"]: line["fault"] for line in after if "fault" in line}
    assert reasons["network0003"] == "it did not end within 5 s"
    assert reasons["network0004"] == "the runtime's process ended with exit code 11"
    assert reasons["network0005"] == "it measured 0.0 ms"
    assert reasons["network0006"] == "RuntimeError: operator not supported"
    assert reasons["network0007"] == "it measured nan ms"
    rules = set(find_pack("simulated").card["fusion_rules"])
    assert rules <= set(RULES), "no rule is made up"
    assert {"conv->bn", "conv->relu", "dwconv->bn", "bn->relu", "conv->add"} <= rules
    # The same measurements make the same pack, and a finished build measures nothing.
    first = (target / "weights.npz").read_bytes()
    (folder / "rules.yaml").unlink()
    built(folder)
    assert visits(folder) == after
    assert (target / "weights.npz").read_bytes() == first
    assert built(folder)[1] == []


def test_a_workspace_keeps_to_its_device_and_to_one_process(tmp_path: Path) -> None:
    device = {"name": "mine", "backend": DEVICE, "runtime": "simulated 1.0", "machine": "here"}
    folder = tmp_path / "work"
    with open_workspace(folder, device) as workspace:
        workspace.add("network0000", 3, held_out=False)
        workspace.record("network0000", Visit(1.5, None), 0.1)
        with pytest.raises(SearchError, match="another process"), open_workspace(folder, device):
            pass
    with open_workspace(folder, device) as workspace:
        assert workspace.networks["network0000"].visits == [Visit(1.5, None)]
        assert workspace.seconds == 0.1
    for other, message in (
        ({"runtime": "simulated 1.1"}, r"another runtime: 'simulated 1\.0', not 'simulated 1\.1'"),
        ({"name": "yours"}, "another name: 'mine', not 'yours'"),
        ({"machine": "there"}, "another machine: 'here', not 'there'"),
    ):
        with pytest.raises(WorkspaceError, match=message), open_workspace(folder, {**device, **other}):
            pass
    (folder / "device.yaml").write_text("name: [")
    with pytest.raises(WorkspaceError, match="is damaged"), open_workspace(folder, device):
        pass
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("mine")
    with pytest.raises(WorkspaceError, match="is not empty"), open_workspace(strange, device):
        pass


def test_visits_that_jump_do_not_count() -> None:
    graph = random_network(0)
    times = [2.0, 0.0, float("nan"), 2.1, 50.0, 2.2]
    seen = observe("network", graph, [Visit(ms, None) for ms in times])
    assert seen is not None
    assert seen.ms == pytest.approx(2.05)
    assert seen.halves == pytest.approx((2.05, 2.1))
    # A visit may be too quick as well.
    seen = observe("network", graph, [Visit(ms, None) for ms in (0.01, 2.0, 2.1)])
    assert seen is not None
    assert seen.halves == (2.0, 2.1)
    jumping = [Visit(2.0, None), Visit(40.0, None)]
    assert observe("network", graph, jumping) is None
    assert unusable(jumping, []) == "no two of its visits agree: 2, 40 ms"
    once = unusable(jumping[:1], ["it measured 0.0 ms"])
    assert once == "it was measured but once: 2 ms; it measured 0.0 ms"
    assert unusable(jumping, ["a", "b", "it hung"]) == "it hung"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("onnxruntim", UnknownBackendError, "did you mean 'onnxruntime'"),
        ("no_such_module:Class", UnknownBackendError, "No module named 'no_such_module'; .*PYTHONPATH"),
        ("json:Class", UnknownBackendError, "cannot be made: .*module 'json' has no attribute 'Class'"),
        ("fractions:Fraction.of", UnknownBackendError, "cannot be made: AttributeError"),
        ("pathlib:PurePath", UnknownBackendError, "has no 'version'; a backend has name, version, suffix"),
        ("broken_board:Board", UnknownBackendError, "cannot be made: ValueError: the board is off$"),
    ],
)
def test_a_backend_that_is_not_there_is_named(
    name: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a backend may be in the current folder
    (tmp_path / "broken_board.py").write_text("raise ValueError('the board is off')\n")
    with pytest.raises(error, match=message):
        build("mine", name, tmp_path / "work", SMALL, lambda found: None, lambda text: None)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CortexA76CPU_tflite21", "cortexA76cpu_tflite21 2.1 comes with this package; give your device"),
        ("../mine", "needs the name of a device, .*got '../mine'"),
    ],
)
def test_a_name_that_a_device_cannot_have_is_refused_at_once(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        built(tmp_path / "work", name=name)
    assert not (tmp_path / "work").exists()


def test_a_pack_that_was_not_built_is_not_replaced(tmp_path: Path) -> None:
    kept = user_packs() / "mine" / "2.0"
    kept.mkdir(parents=True)
    (kept / "pack.yaml").write_text("name: mine")
    with pytest.raises(SettingsError, match=r"mine 2\.0 is there already and was not built; .*remove mine"):
        built(tmp_path / "work", name="mine")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minutes": 0}, "minutes=0 must be a number above 0"),
        ({"minutes": float("nan")}, "minutes=nan must be"),
        ({"networks": 15, "round_size": 16}, "networks=15 is less than one round measures; give at least 16"),
        ({"round_size": 4}, "round_size=4 must be at least 8"),
        ({"visits": 1}, "visits=1 must be at least 2"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Plan(**values)


def test_a_runtime_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"nnmeter_nas\[onnxruntime\]"):
        build("mine", "onnxruntime", tmp_path / "work", SMALL, lambda found: None, lambda text: None)


def test_a_device_that_runs_nothing_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = " ".join(f"network{i:04d}=error" for i in range(16))
    monkeypatch.setenv("SIMULATED_FAULTS", faults)
    with pytest.raises(MeasurementError, match=r"0 of 16 networks .*operator not supported"):
        built(tmp_path / "work")


def test_a_worker_ends_with_its_process(tmp_path: Path) -> None:
    with worker(DEVICE, 5.0) as running:
        for _ in range(2):  # a fault does not end it
            with pytest.raises(MeasurementError, match=r"missing\.onnx"):
                running.visit(tmp_path / "missing.onnx")
