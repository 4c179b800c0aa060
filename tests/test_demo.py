"""The demo, as a user runs it: real NNI trials, results that hold, and nothing left running."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("nni.retiarii", reason="needs NNI 2.10.1")

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.estimators.digits import digits, train_on_digits
from nnmeter_nas.search_spaces import spos
from nnmeter_nas.strategies.manager_process import contained, free_port
from nnmeter_nas.strategies.search import build_network, choices_of, sample_latencies

COMMAND = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
DEVICE = "adreno640gpu_tflite21"
BLOCKS = ["k3", "k5", "k7", "xception"]


def small_space() -> object:
    """The space that the demo searches."""
    return spos("small")


class Command:
    """A running ``nnmeter-nas`` in an empty home, whose processes can be told from all others."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        home = folder / "home"
        home.mkdir()
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(folder), "NNMETER_NAS_TEST": self.mark}
        self.process = subprocess.Popen(
            [str(COMMAND), *arguments], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def running(self) -> list[psutil.Process]:
        """Every process that descends from the command and has not ended."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (process.environ().get("NNMETER_NAS_TEST") == self.mark
                        and process.status() != psutil.STATUS_ZOMBIE):
                    found.append(process)
        return found

    def wait_for_trials(self) -> None:
        """Return once a trial trains."""
        while self.process.poll() is None:
            for process in self.running():
                with contextlib.suppress(psutil.Error):
                    if "nni.retiarii.trial_entry" in process.cmdline():
                        return
            time.sleep(0.5)
        pytest.fail(f"the command ended before a trial began: {self.process.communicate()}")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port where somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["py", "graph"])
def test_demo_trains_networks_within_the_limit_and_saves_the_best(
    tmp_path: Path, taken_port: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out put"
    command = Command(tmp_path, "demo", "--predictor", DEVICE, "--trials", "2", "--epochs", "1",
                      "--engine", engine, "--port", str(taken_port), "--output", str(output))
    printed, errors = command.process.communicate()
    assert command.process.returncode == 0, errors
    assert command.running() == []
    assert "Traceback" not in errors

    rows = list(csv.DictReader((output / "trials.csv").open()))
    assert len(rows) == 2
    best = json.loads((output / "best.json").read_text())
    assert max(float(row["accuracy"]) for row in rows) == best["accuracy"] > 0.3
    assert all(float(row["latency_ms"]) <= best["threshold_ms"] for row in rows)
    for row in rows:
        assert f"{100 * float(row['accuracy']):.2f}" in printed
        assert f"{float(row['latency_ms']):.3f}" in printed
    assert f"{best['threshold_ms']:.4g} ms" in printed
    assert (output / "pareto.png").read_bytes().startswith(b"\x89PNG")

    namespace: dict[str, object] = {}
    monkeypatch.chdir(output)
    exec(best["rebuild"], namespace)
    predictor = load_latency_predictor(best["device"], best["pack_version"])
    latency = predictor.predict(namespace["network"], model_type="torch", input_shape=(1, 3, 32, 32))
    assert latency == pytest.approx(best["latency_ms"], rel=1e-6)


@pytest.mark.slow
def test_limit_out_of_reach_ends_with_the_fastest_latency_seen(tmp_path: Path) -> None:
    command = Command(tmp_path, "demo", "--predictor", DEVICE, "--threshold", "0.001", "--patience", "50")
    _, errors = command.process.communicate()
    assert command.process.returncode == 1
    assert command.running() == []
    assert "none within 0.001 ms" in errors
    assert "the fastest takes" in errors
    assert not (tmp_path / "demo-output" / "best.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = Command(tmp_path, "demo", "--predictor", DEVICE, "--epochs", "1000")
    command.wait_for_trials()
    command.process.send_signal(number)
    command.process.communicate()
    expected = -number if number == signal.SIGKILL else 128 + number
    assert command.process.returncode == expected
    if number == signal.SIGKILL:  # nobody is left to wait for NNI's manager to end
        psutil.wait_procs(command.running(), timeout=30)
    assert command.running() == []


@pytest.mark.slow
def test_failed_trials_do_not_end_the_search(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    result = subprocess.run(
        [sys.executable, "-c", "import failing_search; failing_search.main()", str(tmp_path / "nni")],
        env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True, check=True,
    )
    outcome = json.loads(result.stdout.splitlines()[-1])
    failed = [trial for trial in outcome["trials"] if trial["accuracy"] is None]
    trained = [trial for trial in outcome["trials"] if trial["accuracy"] is not None]
    assert len(failed) + len(trained) == 3
    assert failed
    assert trained
    assert {trial["failure"] for trial in failed} == {"MemoryError: this candidate is too large to train"}
    assert {trial["accuracy"] for trial in trained} == {0.5}
    assert outcome["note"] == ""


def test_training_learns_and_repeats_under_a_seed() -> None:
    choices = dict.fromkeys(choices_of(small_space), "k3")
    first, again = (
        train_on_digits(lambda: build_network(small_space, choices), epochs=1, seed=3) for _ in range(2)
    )
    assert first > 0.5  # ten classes: 0.1 is chance
    assert again == first


def test_digits_fit_the_network_and_no_image_is_on_both_sides() -> None:
    images, classes, held_out, held_out_classes = digits((1, 3, 32, 32), seed=0)
    assert images.shape == (1347, 3, 32, 32)
    assert held_out.shape == (450, 3, 32, 32)
    assert abs(float(images.mean())) < 1e-3
    assert set(classes.tolist()) == set(held_out_classes.tolist()) == set(range(10))
    other, *_ = digits((1, 1, 8, 8), seed=1)
    assert other.shape == (1347, 1, 8, 8)
    seen = {image.numpy().tobytes() for image in images}
    assert sum(image.numpy().tobytes() in seen for image in held_out) == 0


def test_random_candidates_depend_on_the_seed_alone() -> None:
    space = choices_of(small_space)
    assert space == {f"layer_{i}": BLOCKS for i in range(1, 7)}

    def price(choices: dict[str, str]) -> float:
        return float(sum(BLOCKS.index(block) * 4**i for i, block in enumerate(choices.values())))

    assert sample_latencies(small_space, price, 5, seed=1) == sample_latencies(small_space, price, 5, seed=1)
    assert sample_latencies(small_space, price, 5, seed=1) != sample_latencies(small_space, price, 5, seed=2)


def test_a_taken_port_is_replaced_and_a_free_one_kept(taken_port: int) -> None:
    assert free_port(taken_port) != taken_port
    wanted = free_port()
    assert free_port(wanted) == wanted


def test_everything_started_in_a_contained_folder_ends_with_it(tmp_path: Path) -> None:
    before = dict(os.environ)
    signals = signal.getsignal(signal.SIGINT)
    with pytest.raises(subprocess.CalledProcessError), contained(tmp_path / "logs") as work:
        # The shell fails at once: its child belongs to nobody and is known by its environment alone.
        subprocess.run(["sh", "-c", "sleep 600 & echo $! > pid; exit 1"], cwd=work, check=True)
    pid = int((tmp_path / "logs" / work.name / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGINT) == signals
    assert not work.exists()
