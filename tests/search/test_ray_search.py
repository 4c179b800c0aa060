"""Searches whose trials are tasks of Ray: a machine that dies or lacks something costs no trial."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import Command
from limits import limit_in
from waiting_training import EVALUATOR, began, let_go, trained, write_training

pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("nni.nas", reason="runs searches on NNI")

from ray.cluster_utils import Cluster

from nnmeter_nas.journal import read_journal

pytestmark = pytest.mark.slow

DEVICE = "adreno640gpu_tflite21"


def search(folder: Path, *more: str) -> Command:
    limit = str(limit_in("spos-small", DEVICE, 0.5))
    code = folder / "code"
    write_training(code, folder)
    return Command(
        folder, "search", "--space", "spos-small", "--predictor", DEVICE, "--max-latency", limit,
        "--strategy", "random", "--evaluator", EVALUATOR, "--training-service", "ray",
        "-o", "run", *more, cwd=code,
    )  # fmt: skip


def records(folder: Path, event: str) -> list[dict[str, Any]]:
    return [record for record in read_journal(folder / "code" / "run" / "journal.jsonl")
            if record["event"] == event]  # fmt: skip


def numbers(folder: Path, event: str) -> list[int]:
    return sorted(record["number"] for record in records(folder, event))


def started(cluster: Cluster, **options: Any) -> Any:
    """Add a machine to a cluster. A busy machine may take Ray longer to start than it allows."""
    for attempt in range(4):
        with contextlib.suppress(Exception):
            return cluster.add_node(
                num_cpus=1, object_store_memory=100_000_000, include_dashboard=False, **options
            )
        time.sleep(attempt)
    pytest.fail("Ray did not start")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster without machines."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # An earlier cluster of this process may have asked for a token, which the command does not have.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster()
    yield cluster
    cluster.shutdown()


def kill(node: Any) -> None:
    """Kill all processes of a machine at once, as if its power failed."""
    for entry in node.all_processes.values():
        for info in entry:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(info.process.pid)
                for one in [*process.children(recursive=True), process]:
                    one.kill()


@pytest.mark.timeout(1200)  # two searches, and starting a machine takes Ray long
def test_trials_of_a_machine_that_dies_run_elsewhere_and_none_is_lost_or_counted_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "torch-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    started(cluster)
    second = started(cluster)
    started(cluster, env_vars={"PYTHONPATH": str(other.parent)})  # a machine with another torch
    command = search(tmp_path, "--trials", "5", "--address", cluster.address)
    command.wait_until(lambda: len(began(tmp_path)) == 2)  # one on each that will do
    kill(second)
    let_go(tmp_path)
    command.wait_until(lambda: len(numbers(tmp_path, "ended")) >= 3)
    command.process.kill()
    code, _, errors = command.end()
    assert code == -signal.SIGKILL
    assert "is left out: it has torch 1.0, and the search runs with" in errors
    assert "runs again: the machine" in errors

    again = Command(tmp_path, "search", "--resume", "run", cwd=tmp_path / "code")
    code, printed, errors = again.end()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert "Best: " in printed
    assert numbers(tmp_path, "submitted") == numbers(tmp_path, "ended") == [1, 2, 3, 4, 5]
    metrics = sorted(round(record["metric"] * 1e6) for record in records(tmp_path, "ended"))
    assert set(trained(tmp_path)) == set(metrics)
    assert len(trained(tmp_path)) <= len(metrics) + 1  # one may have ended while nobody listened any more
    outcome = json.loads((tmp_path / "code" / "run" / "trials" / "0001.json").read_text())
    assert outcome["seconds"] > 0
