"""A search on machines reached by ssh: one that dies half-way gives its trials back; none counts twice."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import Command
from limits import limit_in
from ssh_hosts import Host, hosts, needs_namespaces
from waiting_training import EVALUATOR, began, let_go, trained, write_training

pytest.importorskip("nni.nas", reason="runs searches on NNI")

from nnmeter_nas.journal import read_journal
from nnmeter_nas.nni import NAS, nni_line

pytestmark = [pytest.mark.slow, pytest.mark.nni3]

DEVICE = "adreno640gpu_tflite21"


def listening(process: psutil.Process) -> set[str]:
    """The addresses that a process listens on."""
    found = process.net_connections("tcp")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def machines_file(folder: Path, machines: list[Host]) -> Path:
    entries = [
        f"- {{host: {one.address}, user: root, key: {one.key}, known_hosts: {one.known_hosts}, "
        f"python: {sys.executable}}}"
        for one in machines
    ]
    file = folder / "machines.yaml"
    file.write_text("\n".join(entries))
    return file


def test_trials_of_a_machine_that_dies_run_elsewhere_and_none_is_lost_or_counted_twice(
    tmp_path: Path,
) -> None:
    if nni_line() != NAS:
        pytest.skip("NNI 2.10.1 does not notice that a machine is gone")
    needs_namespaces()
    code = tmp_path / "code"
    write_training(code, tmp_path)
    with hosts(tmp_path, 2) as (first, second):
        command = Command(
            tmp_path, "search", "--space", "spos-small", "--predictor", DEVICE,
            "--max-latency", str(limit_in("spos-small", DEVICE, 0.5)), "--strategy", "random",
            "--evaluator", EVALUATOR, "--trials", "4", "--training-service", "remote",
            "--machines", str(machines_file(tmp_path, [first, second])), "-o", str(tmp_path / "run"),
            cwd=code,
        )  # fmt: skip
        command.wait_until(lambda: len(began(tmp_path)) == 2)  # one on each
        managers = [process for process in command.processes("main.js") if "node" in process.name()]
        assert {address for manager in managers for address in listening(manager)} == {"127.0.0.1"}
        second.die()
        command.wait_until(lambda: len(began(tmp_path)) == 3)
        let_go(tmp_path)
        code_, printed, errors = command.end()
        assert code_ == 0, errors
        assert "Best: " in printed
        assert "is out of reach; its trials go to others" in errors
        assert command.running() == []
        left = [process for process in first.processes() if "python" in process.name()]
        assert not psutil.wait_procs(left, timeout=60)[1]

    def numbers(event: str) -> list[Any]:
        records = read_journal(tmp_path / "run" / "journal.jsonl")
        return sorted(record["number"] for record in records if record["event"] == event)

    assert numbers("submitted") == numbers("ended") == [1, 2, 3, 4]
    rows = list(csv.DictReader((tmp_path / "run" / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["trained"] * 4
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert trained(tmp_path) == sorted(round(float(row["accuracy"]) * 1e6) for row in rows)
