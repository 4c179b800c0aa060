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
from nnmeter_nas.builder.build import Plan, Round, build
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.observations import observe
from nnmeter_nas.builder.worker import Visit, worker
from nnmeter_nas.builder.workspace import MEASURED, open_workspace
from nnmeter_nas.errors import (
    MeasurementError,
    MissingPackageError,
    SearchError,
    UnknownBackendError,
    WorkspaceError,
)
from nnmeter_nas.packs.registry import find_pack
from nnmeter_nas.predictor import load_latency_predictor
from simulated_device import RULES, kernel_ms

DEVICE = "simulated_device:Device"
SMALL = Plan(networks=16, round_size=16, visits=2, limit_s=5.0, members=2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, where built packs go, and workers that find the simulated device."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
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
    other = {**device, "runtime": "simulated 1.1"}
    with (
        pytest.raises(WorkspaceError, match=r"another runtime: 'simulated 1\.0', not 'simulated 1\.1'"),
        open_workspace(folder, other),
    ):
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
    assert observe("network", graph, [Visit(2.0, None), Visit(40.0, None)]) is None


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("onnxruntim", UnknownBackendError, "did you mean 'onnxruntime'"),
        ("no_such_module:Class", UnknownBackendError, "cannot be found: No module named 'no_such_module'"),
        ("json:Class", UnknownBackendError, "cannot be found: module 'json' has no attribute 'Class'"),
    ],
)
def test_a_backend_that_is_not_there_is_named(
    name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        build("mine", name, tmp_path / "work", SMALL, lambda found: None, lambda text: None)
    assert not (tmp_path / "work").exists()


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
