"""Builds on a simulated device: its rules are found, its latency is predicted, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="fitting a predictor needs torch")
pytest.importorskip("onnx")
pytest.importorskip("scipy")

from layout import HELPERS
from nnmeter_nas.builder.build import build
from nnmeter_nas.builder.networks import NETWORKS, random_network
from nnmeter_nas.builder.observations import observe, unusable
from nnmeter_nas.builder.plan import Plan
from nnmeter_nas.builder.visits import Visit
from nnmeter_nas.builder.worker import worker
from nnmeter_nas.builder.workspace import MEASURED, REPORT, RULES, Round, open_workspace
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
from simulated_device import RULES as SECRET_RULES
from simulated_device import Device, kernel_ms
from web_page import Page

DEVICE = "simulated_device:Device"
SMALL = Plan(networks=16, round_size=16, visits=2, limit_s=5.0, members=2)
FEW = replace(SMALL, networks=8, round_size=8, members=1)


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of few steps, where only what happens around them matters."""
    monkeypatch.setattr("nnmeter_nas.builder.fitting._STEPS", 40)
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 40)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_simulated_device_is_learnt_from_sixty_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 400)  # the pack has all its steps
    _, rounds = built(tmp_path / "work", Plan(networks=60, round_size=30, members=2))
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


@pytest.mark.usefixtures("quick")
def test_what_a_backend_cannot_write_is_left_out(tmp_path: Path) -> None:
    rounds, plan = list[Round](), replace(FEW, networks=16, round_size=16)
    build("picky", "simulated_device:PickyDevice", tmp_path / "work", plan, rounds.append, lambda text: None)
    assert 0 < rounds[-1].left_out < rounds[-1].networks
    report = (tmp_path / "work" / REPORT).read_text()
    assert "the backend cannot write it: ValueError: no transpose on this board" in report


@pytest.mark.usefixtures("quick")
def test_kernels_of_unknown_operators_are_told_and_not_believed(tmp_path: Path) -> None:
    said: list[str] = []
    build(
        "babbling", "simulated_device:BabblingDevice", tmp_path / "work", FEW, lambda found: None,
        lambda text: None, said.append,
    )  # fmt: skip
    assert any("what 'layer' took, which is no operator" in text for text in said)
    chosen = (tmp_path / "work" / "models.jsonl").read_text().splitlines()
    pieces = [line for line in chosen if "operators" in line]
    assert pieces, "pieces are measured, as on a device that tells nothing"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_build_finds_rules_and_faults_and_goes_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = (
        "network0003=hang network0004=crash:1 network0005=zero network0006=error network0007=nan:1 "
        "network0008=garbage:1 network0010=kernels"
    )
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
    assert (found.networks, found.left_out) == (12, 4)
    reasons = {line["id"]: line["fault"] for line in after if "fault" in line}
    assert reasons["network0003"] == "it did not end within 5 s"
    assert reasons["network0004"] == "the runtime's process ended with exit code 11"
    assert reasons["network0005"] == "it measured 0.0 ms"
    assert reasons["network0006"] == "RuntimeError: operator not supported"
    assert reasons["network0007"] == "it measured nan ms"
    assert reasons["network0008"] == "ValueError: could not convert string to float: '2.5 ms?'"
    assert reasons["network0010"].endswith(" took nan ms")
    page = (folder / REPORT).read_text()
    assert "it did not end within 5 s" in page
    assert "could not convert" not in page, "a fault that went away leaves nothing out"
    rules = set(find_pack("simulated").card["fusion_rules"])
    assert rules <= set(SECRET_RULES), "no rule is made up"
    assert {"conv->bn", "conv->relu", "dwconv->bn", "bn->relu", "conv->add"} <= rules
    # The same measurements make the same pack, and a finished build measures nothing.
    first = (target / "weights.npz").read_bytes()
    (folder / "rules.yaml").unlink()
    built(folder)
    assert visits(folder) == after
    assert (target / "weights.npz").read_bytes() == first
    assert built(folder)[1] == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_rounds_survive_an_interruption(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    _, [first] = built(folder, FEW)
    assert built(folder, FEW)[1] == [], "it is done"
    more = replace(FEW, networks=16)

    def interrupt(text: str) -> None:
        if text.startswith("visit 1: 3 of 8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("simulated", DEVICE, folder, more, lambda found: None, interrupt)
    assert not (folder / RULES).exists(), "it is not done with the new plan"
    before = visits(folder)
    _, rounds = built(folder, more)
    assert visits(folder)[: len(before)] == before
    assert rounds[0] == first, "as it was shown before"
    assert [found.networks for found in rounds] == [8, 16]
    assert rounds[1].minutes > first.minutes
    rows = [text for text in Page((folder / REPORT).read_text()).texts["tr"] if text.startswith(("1", "2"))]
    assert [row[1:5] for row in rows] == [f"{found.minutes:.2f}" for found in rounds]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_latency_that_jumps_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_FAULTS", "network0002=jump:1")
    monkeypatch.setenv("SIMULATED_NOISE", "0")
    folder = tmp_path / "work"
    _, [found] = built(folder, FEW)
    first, *others = (line["ms"] for line in visits(folder) if line["id"] == "network0002")
    assert len(others) == 2
    assert others == pytest.approx([first / 40] * 2)
    assert (found.left_out, found.repeats_5) == (0, 100.0)


#: Lets the disk of the workspace be full, but not that of the model files.
_FULL_DISK = """
import resource
import simulated_device

class Device(simulated_device.Device):
    def write(self, graph, path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        super().write(graph, path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are those of POSIX")
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full_disk.py").write_text(_FULL_DISK)
    script = (
        "import resource, sys; from nnmeter_nas.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY)); sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "build", "simulated", "--backend", "full_disk:Device"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "error: a disk is full ([Errno 27] File too large); make room and give the same command again: all "
        "measurements in build-simulated are kept\n"
    )
    folder = tmp_path / "build-simulated"
    whole, _, half = (folder / MEASURED).read_bytes().rpartition(b"\n")
    assert half, "the last line is cut off"
    before = [json.loads(line) for line in whole.splitlines()]
    assert before
    plan = replace(FEW, networks=24, round_size=24)
    build("simulated", "full_disk:Device", folder, plan, lambda found: None, lambda text: None)
    assert visits(folder)[: len(before)] == before


def test_a_build_tells_what_a_backend_that_writes_slowly_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(self: Device, graph: Any, path: Path, tell: Callable[[str], None]) -> None:
        tell("tuning kernel 1 of 3")
        self.write(graph, path)

    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if text.startswith("visit 1: 1 of 8"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Device, "write_slowly", write_slowly, raising=False)
    with pytest.raises(KeyboardInterrupt):
        build("simulated", DEVICE, tmp_path / "work", FEW, lambda _: None, tell)
    assert told[1] == "visit 1: 0 of 8 networks; tuning kernel 1 of 3, 0.00 of 5 minutes"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_build_waits_for_a_device_that_became_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drift = drifting(tmp_path, monkeypatch)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if text.startswith("visit 1: 7 of 8"):
            drift.write_text("1.6")
        if text.startswith("waiting"):
            drift.write_text("1.0")

    rounds: list[Round] = []
    build("simulated", DEVICE, tmp_path / "work", FEW, rounds.append, tell)
    [waiting] = [text for text in told if text.startswith("waiting")]
    assert "the device is busy, its first network takes 1.60 times as long as mostly" in waiting
    assert rounds[0].repeats_5 >= 80, "it measures what it measured before"


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_drift_shows_in_how_well_the_device_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = drifting(tmp_path, monkeypatch)

    def tell(text: str) -> None:
        if text.startswith("visit"):
            turn = int(text.removeprefix("visit ").partition(":")[0])
            drift.write_text("1.0" if turn % 2 else "1.25")  # too little to wait for

    rounds: list[Round] = []
    folder = tmp_path / "work"
    build("simulated", DEVICE, folder, FEW, rounds.append, tell)
    assert rounds[0].repeats_10 <= 25
    assert sum(line["id"] == "network0003" for line in visits(folder)) == 2 * FEW.visits, "so it looks again"
    text = Page((folder / REPORT).read_text()).texts["main"][0]
    assert "differ by 25.0 % in the median" in text


def drifting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells how much longer everything takes on the simulated device, which has no noise."""
    drift = folder / "drift"
    drift.write_text("1.0")
    monkeypatch.setenv("SIMULATED_DRIFT", str(drift))
    monkeypatch.setenv("SIMULATED_NOISE", "0")
    return drift


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
    kept = (folder / "device.yaml").read_text()
    (folder / "device.yaml").write_text(kept.replace(f"networks: {NETWORKS}", "networks: 0"))
    with pytest.raises(WorkspaceError, match="another version"), open_workspace(folder, device):
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
