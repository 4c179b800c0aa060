"""The journal of a search: nothing written is lost, whenever the writer is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnmeter_nas.errors import SearchError
from nnmeter_nas.journal import Journal, read_journal

RECORDS: list[dict[str, Any]] = [
    {"event": "submitted", "number": 1, "values": {"latency_ms": 0.1 + 0.2}},
    {"event": "ended", "number": 1, "metric": None, "failure": "Speicher voll: größer\nals 8 GB"},
]


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
    return path


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", RECORDS)
    assert read_journal(path) == RECORDS
    with Journal(path) as journal:
        assert journal.records == RECORDS
        journal.append({"event": "more"})
    assert read_journal(path) == [*RECORDS, {"event": "more"}]


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == []
    assert not (tmp_path / "journal.jsonl").exists()


@given(cut=st.integers(min_value=0))
def test_wherever_the_last_write_was_cut_all_before_it_is_kept(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("cut") / "journal.jsonl", RECORDS)
    content = path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    path.write_bytes(kept)
    whole = RECORDS[: kept.count(b"\n")]
    assert read_journal(path) == whole
    with Journal(path) as journal:
        journal.append({"event": "after the crash"})
    assert read_journal(path) == [*whole, {"event": "after the crash"}]


@pytest.mark.parametrize("line", [b"{torn", b"[1, 2]", b"\xff\xfe"])
def test_a_damaged_line_is_named_and_the_file_left_as_it_is(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event": "submitted"}\n' + line + b"\n")
    before = path.read_bytes()
    with pytest.raises(SearchError, match=r"journal\.jsonl, line 2: .* start anew"):
        Journal(path)
    assert path.read_bytes() == before


def test_what_is_no_number_in_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", RECORDS)
    with Journal(path) as journal, pytest.raises(ValueError, match="JSON"):
        journal.append({"metric": float("nan")})
    assert read_journal(path) == RECORDS


def test_records_outlive_a_writer_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from nnmeter_nas.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(3): journal.append({'number': number})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode < 0
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]
