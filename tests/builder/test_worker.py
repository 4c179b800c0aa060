"""A worker's process keeps models loaded between visits, within limits, and never an old one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnmeter_nas.builder import worker


class _Backend:
    """Loads files as their text, and counts how often."""

    name, suffix, version = "text", ".txt", "1"

    def __init__(self) -> None:
        self.loads = 0

    def load(self, path: Path) -> str:
        self.loads += 1
        return path.read_text(encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four files of ten bytes."""
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        path.write_text(path.name * 10, encoding="utf-8")
    return paths


def test_models_stay_loaded_as_long_as_they_are_small_enough_together(files: list[Path]) -> None:
    backend = _Backend()
    loaded = worker._Loaded(backend, 30)  # type: ignore[arg-type]
    assert [loaded.session(path)[0] for path in (*files[:3], *files[:3])] == ["0", "1", "2", "0", "1", "2"]
    assert backend.loads == 3
    assert loaded.session(files[3])[0] == "3"  # in the place of the one that was asked for longest ago
    loaded.session(files[1])
    assert (backend.loads, loaded.given_up) == (4, 1)
    loaded.session(files[0])
    assert (backend.loads, loaded.given_up) == (5, 2)


def test_one_model_is_loaded_however_large_it_is(files: list[Path]) -> None:
    backend = _Backend()
    loaded = worker._Loaded(backend, 0)  # type: ignore[arg-type]
    for path in files:
        assert loaded.session(path) == path.name * 10
    assert (backend.loads, loaded.given_up) == (4, 3)


def test_a_file_that_changes_is_loaded_anew(files: list[Path]) -> None:
    loaded = worker._Loaded(_Backend(), 100)  # type: ignore[arg-type]
    assert loaded.session(files[0]) == "0" * 10
    files[0].write_text("9" * 10, encoding="utf-8")
    os.utime(files[0], ns=(0, 1))
    assert loaded.session(files[0]) == "9" * 10


#: A device away from this machine whose runs take a while, and a program that measures on it.
_SLOW = """
import time

class Device:
    name, suffix, version, machine = "slow", ".txt", "1", "paper"

    def write(self, graph, path):
        pass

    def load(self, path):
        return self

    def visit(self, profiled, limit_s):
        print("it runs", flush=True)
        time.sleep(1)
        print("it ran", flush=True)
        return 1.0, None
"""
_PROGRAM = """
from pathlib import Path
from nnmeter_nas.builder.worker import Worker
Worker("slow_device:Device", 60.0).visit(Path(__file__))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_process_whose_program_is_killed_ends_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "slow_device.py").write_text(_SLOW)
    (tmp_path / "program.py").write_text(_PROGRAM)
    program = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "it runs\n"
    program.send_signal(signal.SIGTERM)
    # The pipes close when the worker's process has ended, too.
    assert program.communicate(timeout=60) == ("it ran\n", "")
