"""The folder of a search: what is written down comes back, and nobody else writes into it meanwhile."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nnmeter_nas.errors import SearchError
from nnmeter_nas.files import lock_folder
from nnmeter_nas.nni.events import Ended, Event, Expected, Submitted
from nnmeter_nas.predictor import Explanation
from nnmeter_nas.search.manager_process import contained, free_port, orderly_signals
from nnmeter_nas.search.run_folder import RunFolder, Settings

pytestmark = pytest.mark.nni3

SETTINGS = Settings(
    "spos-small", devices=["cortexA76cpu_tflite21"], max_latency={"cortexA76cpu_tflite21": 1.8},
    objectives=["latency"], seed=3,
)  # fmt: skip
FACTS = {"nni": "2.10.1", "packs": {"cortexA76cpu_tflite21": [2.0, "abc"]}}


def submitted(number: int) -> Submitted:
    return Submitted(number, {"layer_1": "k3"}, {"latency_ms": 1.0 + number / 3})


EVENTS: list[Event] = [
    submitted(1), submitted(2), Ended(2, 0.75), submitted(3), Ended(1, None, "MemoryError: too large"),
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A search that was interrupted while its third trial ran."""
    with RunFolder.create(tmp_path / "run", SETTINGS, FACTS) as folder:
        for event in EVENTS:
            folder.record(event)
    return tmp_path / "run"


def test_settings_and_events_come_back(run: Path) -> None:
    with RunFolder.resume(run) as folder:
        assert folder.settings == SETTINGS
        assert folder.facts == FACTS
        assert folder.events == EVENTS
        assert folder.ended == 2
        assert [(trial.number, trial.state, trial.metric) for trial in folder.trials()] == [
            (1, "failed", None), (2, "trained", 0.75), (3, "running", None),
        ]  # fmt: skip
        assert folder.trials()[0].failure == "MemoryError: too large"


def test_what_was_expected_of_a_trial_comes_back(run: Path) -> None:
    with RunFolder.resume(run) as folder:
        folder.record(replace(submitted(4), expected=Expected(0.8, 0.7, 0.85)))
    with RunFolder.resume(run) as folder:
        assert folder.events[-1] == replace(submitted(4), expected=Expected(0.8, 0.7, 0.85))
        assert [trial.expected for trial in folder.trials()] == [None] * 3 + [Expected(0.8, 0.7, 0.85)]
    record = json.loads((run / "journal.jsonl").read_text().splitlines()[-1])
    assert record["expected"] == {"metric": 0.8, "low": 0.7, "high": 0.85}


def test_a_journal_from_before_anything_was_expected_is_read(run: Path) -> None:
    journal = run / "journal.jsonl"
    assert '"expected": null' in journal.read_text()
    journal.write_text(journal.read_text().replace(', "expected": null', ""))
    with RunFolder.resume(run) as folder:
        assert folder.events == EVENTS


def test_a_trial_that_finished_while_nobody_listened_is_taken_down_once(run: Path) -> None:
    (run / "trials").mkdir()
    (run / "trials" / "0003.json").write_text('{"metric": 0.5, "seconds": 12.5, "failure": ""}')
    for _ in range(2):
        with RunFolder.resume(run) as folder:
            folder.recover()
            assert folder.events == [*EVENTS, Ended(3, 0.5)]
            assert folder.trials()[2].seconds == 12.5


def test_more_trials_can_be_asked_for(run: Path) -> None:
    with RunFolder.resume(run, trials=50) as folder:
        assert folder.settings.trials == 50


def test_a_budget_is_spent_by_all_trials_that_ended(run: Path) -> None:
    (run / "trials").mkdir()
    for number, seconds in ((1, 50.0), (2, 70.0), (3, 90.0)):
        outcome = {"metric": None if number == 1 else 0.5, "seconds": seconds, "failure": ""}
        (run / "trials" / f"{number:04}.json").write_text(json.dumps(outcome))
    with RunFolder.resume(run, budget_minutes=2.0, trials=None) as folder:
        assert folder.is_spent
        assert folder.is_unfinished  # the third trial was submitted and has not ended
        folder.recover()
        assert not folder.is_unfinished
    with RunFolder.resume(run, budget_minutes=4.0, trials=None) as folder:
        assert not folder.is_spent
        assert folder.is_unfinished
    with RunFolder.resume(run, budget_minutes=4.0, trials=3) as folder:
        assert not folder.is_unfinished
    with RunFolder.resume(run) as folder:
        assert not folder.is_spent


def test_a_folder_with_a_search_is_not_overwritten_unasked(run: Path) -> None:
    before = (run / "journal.jsonl").read_bytes()
    with pytest.raises(SearchError, match=r"holds a search already; resume it.*overwrite=True"):
        RunFolder.create(run, SETTINGS, FACTS)
    assert (run / "journal.jsonl").read_bytes() == before


def test_overwriting_removes_the_search_and_nothing_else(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "trials").mkdir()
    (run / "trials" / "0003.json").write_text("{}")
    (run / "report.html").write_text("old")
    with RunFolder.create(run, SETTINGS, FACTS, overwrite=True) as folder:
        assert folder.events == []
    assert (run / "notes.txt").read_text() == "mine"
    assert not (run / "trials").exists()
    assert not (run / "report.html").exists()


def test_two_processes_do_not_work_on_one_search(run: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nnmeter_nas.search.run_folder import RunFolder\n"
        "with RunFolder.resume(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SearchError, match="another process works on the search"):
            RunFolder.resume(run)
        other.kill()
    RunFolder.resume(run).close()  # who was killed locks nobody out


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match="file is a file; name a folder"):
        lock_folder(tmp_path / "file", ".lock", "search")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no search in this folder.*start one"),
        ("{", "damaged"),
        ('{"settings": {}}', "damaged"),
    ],
)
def test_what_is_no_search_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "search.json").write_text(content)
    with pytest.raises(SearchError, match=message):
        RunFolder.resume(tmp_path)


def test_a_record_that_is_no_event_is_named(run: Path) -> None:
    with (run / "journal.jsonl").open("a") as file:
        file.write(json.dumps({"event": "paused", "number": 3}) + "\n")
    with pytest.raises(SearchError, match="paused"):
        RunFolder.resume(run)


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


def test_a_signal_is_not_lost_in_a_finalizer() -> None:
    class Signalling:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)  # the signal comes here, and Python drops what a finalizer raises

    def work() -> None:
        made = Signalling()
        del made
        time.sleep(60)

    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with pytest.raises(SystemExit, match="143"), orderly_signals():
        work()
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == (handler, hook)


def test_what_a_killed_context_left_is_ended_and_moved_by_the_next(tmp_path: Path) -> None:
    program = (
        "import os, signal, subprocess, sys; from pathlib import Path\n"
        "from nnmeter_nas.search.manager_process import contained\n"
        "with contained(Path(sys.argv[1])) as work:\n"
        "    child = subprocess.Popen(['sleep', '600'], stdout=open(os.devnull, 'w'), stderr=-2)\n"
        "    print(child.pid, work, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "logs")], capture_output=True, text=True, check=False
    )
    pid, work = killed.stdout.split()
    assert psutil.pid_exists(int(pid))
    assert Path(work).is_dir()
    with contained(tmp_path / "logs") as new:
        assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
        assert not Path(work).exists()
        assert (tmp_path / "logs" / Path(work).name).is_dir()
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == sorted([Path(work).name, new.name])


def test_a_taken_port_is_replaced_and_a_free_one_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port(taken) != taken
    wanted = free_port()
    assert free_port(wanted) == wanted


def test_a_temporary_folder_that_nni_breaks_on_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my files").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "my files"))
    with pytest.raises(SearchError, match="TMPDIR"), contained(tmp_path / "logs"):
        pass
    assert list((tmp_path / "my files").iterdir()) == []


def test_report_tells_how_sure_each_latency_is(tmp_path: Path) -> None:
    pytest.importorskip("nni.nas")
    from nnmeter_nas.search.experiment import Search

    search = Search(SETTINGS)
    choices = {label: names[0] for label, names in search.space.candidates.items()}
    with RunFolder.create(tmp_path / "run", SETTINGS, FACTS) as folder:
        folder.record(Submitted(1, choices, {"latency_ms": 1.0}))
        report = search.report(folder)
    found = search.predictors[0].explain(search.space.model_graph(choices))
    interval = found.interval()
    assert interval is not None
    assert report.intervals == {"latency_ms": {1: (interval.low, interval.high)}}
    shares = {"extrapolated": found.extrapolated_share, "estimated": found.estimated_share}
    assert any(shares.values())
    assert report.not_measured == {"latency_ms": {1: {basis: s for basis, s in shares.items() if s}}}


@pytest.mark.parametrize(("share", "told"), [(0.25, 0.25), (math.nan, None)])
def test_report_tells_what_is_unpredicted(
    share: float, told: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nni.nas")
    from nnmeter_nas.search.experiment import Search

    search = Search(SETTINGS)
    choices = {label: names[0] for label, names in search.space.candidates.items()}
    monkeypatch.setattr(Explanation, "unpredicted", {"topk": "topk"})
    monkeypatch.setattr(Explanation, "unpredicted_share", share)
    with RunFolder.create(tmp_path / "run", SETTINGS, FACTS) as folder:
        folder.record(Submitted(1, choices, {"latency_ms": 1.0}))
        report = search.report(folder)
    assert report.intervals == {"latency_ms": {}}
    assert report.not_measured["latency_ms"][1]["unpredicted"] == told
