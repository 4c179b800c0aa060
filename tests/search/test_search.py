"""Searches on NNI as users run them: whatever is killed, no trial is lost or repeated, and nothing stays."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from commands import Command
from limits import limit_in

pytest.importorskip("nni.nas", reason="runs searches on NNI")

from nnmeter_nas.journal import read_journal
from nnmeter_nas.strategies import LatencyConstrainedRandom
from nnmeter_nas.supernet.named import load_space

pytestmark = pytest.mark.slow

DEVICE = "adreno640gpu_tflite21"
CPU = "cortexA76cpu_tflite21"


def limit() -> float:
    """The latency (ms) that half of the architectures are within."""
    return limit_in("spos-small", DEVICE, 0.5)


def search(folder: Path, *more: str, evaluator: str = "slow", trials: int = 5) -> Command:
    return Command(
        folder, "search", "--space", "spos-small", "--predictor", DEVICE, "--max-latency", str(limit()),
        "--strategy", "random", "--evaluator", f"failing_search:{evaluator}", "--trials", str(trials),
        "-o", "run", *more,
    )  # fmt: skip


def resume(folder: Path, *more: str) -> Command:
    return Command(folder, "search", "--resume", "run", *more)


def ended(folder: Path) -> list[int]:
    records = read_journal(folder / "run" / "journal.jsonl")
    return [record["number"] for record in records if record["event"] == "ended"]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "run" / "trials.csv").open()))


def architectures(folder: Path) -> list[dict[str, str]]:
    return [{label: row[label] for label in row if label.startswith("layer_")} for row in rows(folder)]


def expected(trials: int) -> list[dict[str, str]]:
    """What a search that nobody interrupts tries."""
    strategy = LatencyConstrainedRandom(limit(), predictor=DEVICE, seed=0)
    strategy.begin(strategy.make_problem(load_space("spos-small")))
    return [dict(strategy.problem.architecture(strategy.ask())) for _ in range(trials)]


def check_complete(folder: Path, trials: int) -> None:
    """Every trial ran once, was written down once, and is the one that had to be."""
    records = read_journal(folder / "run" / "journal.jsonl")
    for event in ("submitted", "ended"):
        numbers = sorted(record["number"] for record in records if record["event"] == event)
        assert numbers == list(range(1, trials + 1))
    assert architectures(folder) == expected(trials)
    assert [row["state"] for row in rows(folder)] == ["trained"] * trials
    trained = (folder / "trained.log").read_text().split()
    assert sorted(trained) == sorted(str(round(float(row["accuracy"]) * 1e6)) for row in rows(folder))


@pytest.mark.nni3
def test_a_search_that_is_killed_and_resumed_loses_and_repeats_nothing(tmp_path: Path) -> None:
    command = search(tmp_path, trials=4)
    command.wait_until(lambda: len(ended(tmp_path)) >= 2 and command.trials())
    command.process.kill()
    code, _, _ = command.end()
    assert code == -signal.SIGKILL
    assert (tmp_path / "run" / "trials.csv").exists()  # results so far are there to be looked at

    again = resume(tmp_path)
    code, printed, errors = again.end()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert "Best: " in printed
    assert command.running() == again.running() == []
    check_complete(tmp_path, 4)
    assert not list(tmp_path.glob("nnmeter-nas-*"))  # working folders of both are among the logs
    assert len(list((tmp_path / "run" / "nni-logs").iterdir())) == 2


def test_a_search_whose_manager_is_killed_says_how_to_go_on(tmp_path: Path) -> None:
    command = search(tmp_path, trials=3)
    command.wait_until(lambda: len(ended(tmp_path)) >= 1 and command.trials())
    manager = next(process for process in command.processes("main.js") if "node" in process.name())
    manager.kill()
    code, _, errors = command.end()
    assert code == 1
    assert "NNI stopped working" in errors
    assert "nnmeter-nas search --resume" in errors
    assert "Traceback" not in errors
    assert command.running() == []

    again = resume(tmp_path)
    code, _, errors = again.end()
    assert code == 0, errors
    assert again.running() == []
    check_complete(tmp_path, 3)


def test_trials_that_crash_are_killed_or_report_nan_are_marked_failed(tmp_path: Path) -> None:
    command = search(tmp_path, "--concurrency", "1", evaluator="failing", trials=4)
    code, printed, errors = command.end()
    assert code == 0, errors
    assert command.running() == []
    states = [row["state"] for row in rows(tmp_path)]
    assert states == ["failed"] * 3 + ["trained"]
    failures = [row["failure"] for row in rows(tmp_path)]
    assert failures[0] == "MemoryError: this network is too large to train"
    assert "nan" in failures[1]
    assert failures[2]
    assert failures[3] == ""
    assert "this network is too large to train" in printed
    assert architectures(tmp_path) == expected(4)


def test_what_learns_from_trials_goes_on_after_failures_and_after_a_kill(tmp_path: Path) -> None:
    arguments = ("--strategy", "pareto", "--population", "2", "--concurrency", "1")
    command = search(tmp_path, *arguments, evaluator="failing", trials=6)
    command.wait_until(lambda: len(ended(tmp_path)) >= 4)
    command.process.kill()
    command.end()
    code, _, errors = resume(tmp_path).end()
    assert code == 0, errors
    states = [row["state"] for row in rows(tmp_path)]
    assert states == ["failed"] * 3 + ["trained"] * 3
    tried = [tuple(architecture.items()) for architecture in architectures(tmp_path)]
    assert len(set(tried)) == 6


def test_a_search_that_learns_for_devices_and_objectives_keeps_what_it_expected(tmp_path: Path) -> None:
    def submitted() -> list[dict[str, Any]]:
        records = read_journal(tmp_path / "run" / "journal.jsonl")
        return [record for record in records if record["event"] == "submitted"]

    limits = {device: limit_in("spos-small", device, 0.6) for device in (CPU, DEVICE)}
    command = search(
        tmp_path, "--predictor", ",".join(limits), "--max-latency", ",".join(map(str, limits.values())),
        "--objectives", "latency,flops", "--strategy", "learned", "--start", "3", "--hints", "params",
        "--concurrency", "2", trials=7,
    )  # fmt: skip
    command.wait_until(lambda: len(ended(tmp_path)) >= 4 and command.trials())
    command.process.kill()
    command.end()
    before = submitted()
    again = resume(tmp_path)
    code, _, errors = again.end()
    assert code == 0, errors
    assert again.running() == []
    assert submitted()[: len(before)] == before
    assert [record["number"] for record in submitted()] == sorted(ended(tmp_path)) == list(range(1, 8))
    assert [record["expected"] is None for record in submitted()] == [True] * 3 + [False] * 4
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>What was learnt</h2>" in page
    assert "The model of the accuracy proposed 4 of 7 trials" in page
    assert "importance</th>" in page
    found = rows(tmp_path)
    assert len({tuple(architecture.items()) for architecture in architectures(tmp_path)}) == 7
    for row, record in zip(found, submitted(), strict=True):
        assert all(float(row[f"latency_ms_{device}"]) <= limits[device] for device in limits)
        if record["expected"] is not None:
            assert float(row["accuracy_expected"]) == record["expected"]["metric"]


def test_a_search_ends_when_its_trials_have_taken_the_budget_and_goes_on_with_a_larger_one(
    tmp_path: Path,
) -> None:
    command = Command(
        tmp_path, "search", "--space", "spos-small", "--predictor", DEVICE, "--max-latency", str(limit()),
        "--strategy", "random", "--evaluator", "failing_search:slow", "--budget-minutes", "0.1",
        "--concurrency", "1", "-o", "run",
    )  # fmt: skip
    code, printed, errors = command.end()
    assert code == 0, errors
    seconds = [float(row["seconds"]) for row in rows(tmp_path)]
    assert sum(seconds) >= 6 > sum(seconds[:-1])
    assert f"Trials took {sum(seconds) / 60:.1f} minutes of a budget of 0.1" in printed
    assert "no further architectures" not in errors
    assert command.running() == []

    again = resume(tmp_path, "--budget-minutes", str((sum(seconds) + 1) / 60), "--trials", "9")
    code, _, errors = again.end()
    assert code == 0, errors
    assert "of 9 trials: the trials took the" in errors
    assert again.running() == []
    assert len(rows(tmp_path)) == len(seconds) + 1
    check_complete(tmp_path, len(seconds) + 1)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "minutes of trials" in page
    assert "minutes of the budget" in page


def test_a_search_of_failures_alone_says_what_they_failed_with(tmp_path: Path) -> None:
    code, _, errors = search(tmp_path, evaluator="silent", trials=2).end()
    assert code == 1
    assert "none of the 2 trials was trained to its end" in errors
    assert "reported no metric" in errors
    assert [row["state"] for row in rows(tmp_path)] == ["failed"] * 2


def test_a_trial_that_finished_unheard_is_not_run_again(tmp_path: Path) -> None:
    code, _, errors = search(tmp_path, evaluator="quick", trials=2).end()
    assert code == 0, errors
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote the last end down
    again = resume(tmp_path, "--trials", "3")
    code, _, errors = again.end()
    assert code == 0, errors
    check_complete(tmp_path, 3)


@pytest.mark.nni3
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_search_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    command = search(tmp_path)
    command.wait_until(command.trials)
    command.process.send_signal(number)
    code, _, errors = command.end()
    if number == signal.SIGKILL:  # nobody is left to wait for NNI's manager to end
        assert code == -number
        assert command.left() == []
    else:
        assert code == 128 + number
        assert "nnmeter-nas search --resume" in errors
        assert command.running() == []
    assert not (tmp_path / "home" / "nni-experiments").exists()


def test_a_trial_beyond_its_time_is_stopped_and_the_search_goes_on(tmp_path: Path) -> None:
    command = search(tmp_path, "--trial-limit", "1", "--concurrency", "1", trials=1)
    code, _, errors = command.end()
    assert code == 1
    assert "stopped at the limit of 1 s" in errors


def test_a_run_folder_can_be_moved_read_and_resumed(tmp_path: Path) -> None:
    began, moved = tmp_path / "began", tmp_path / "moved"
    began.mkdir()
    (began / "data").mkdir()
    options = ("--space", "spos-small", "--predictor", DEVICE, "--max-latency", str(limit()), "--strategy",
               "random", "--evaluator", "failing_search:quick")  # fmt: skip
    code, _, errors = Command(tmp_path, "search", *options, "--trials", "1", "-o", "run", cwd=began).end()
    assert code == 0, errors
    began.rename(moved)
    links = [path for path in moved.rglob("*") if path.is_symlink()]
    assert [path for path in links if not path.resolve().is_relative_to(moved / "run")] == []
    assert [path for path in links if path.readlink().is_absolute()] == []
    assert sum(len(folders) + len(files) for _, folders, files in os.walk(moved, followlinks=True)) < 100
    (found,) = csv.DictReader((moved / "run" / "trials.csv").open())
    best = json.loads((moved / "run" / "best" / "1.json").read_text())
    assert str(best["metric"]) == found["accuracy"]
    assert str(began) not in (moved / "run" / "report.html").read_text()

    code, _, errors = Command(tmp_path, "search", "--resume", "run", "--trials", "2", cwd=moved).end()
    assert code == 0, errors
    assert f"the search began in {began}, which is not here" in errors
    assert [row["state"] for row in csv.DictReader((moved / "run" / "trials.csv").open())] == ["trained"] * 2
    assert len((moved / "trained.log").read_text().split()) == 2
    assert not began.exists()


@pytest.mark.nni3
def test_results_are_whole_and_rebuild_the_network(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    limits = {device: limit_in("spos-small", device, 0.6) for device in (CPU, DEVICE)}
    command = Command(
        tmp_path, "search", "--space", "spos-small", "--predictor", ",".join(limits),
        "--max-latency", ",".join(map(str, limits.values())), "--max-flops", "1G",
        "--objectives", "latency,params",
        "--strategy", "ranked", "--order", "closest", "--pool-size", "50", "--trials", "2", "--epochs", "1",
        "-o", "my run", cwd=folder,
    )  # fmt: skip
    code, printed, errors = command.end()
    assert code == 0, errors
    run = folder / "my run"
    found = list(csv.DictReader((run / "trials.csv").open()))
    assert len(found) == 2
    for row in found:
        assert all(float(row[f"latency_ms_{device}"]) <= limits[device] for device in limits)
        assert float(row["flops"]) <= 1e9
        assert float(row["accuracy"]) > 0.3
    best = json.loads((run / "best" / "1.json").read_text())
    assert best["metric"] == max(float(row["accuracy"]) for row in found)
    assert f"{best['metric']:.4f}" in printed
    assert (run / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (run / "report.html").read_text().lower()
    settings = json.loads((run / "search.json").read_text())["settings"]
    assert settings["devices"] == ["cortexA76cpu_tflite21", DEVICE]
    shutil.rmtree(run)
