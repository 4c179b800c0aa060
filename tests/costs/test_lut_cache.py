"""Cached tables are those of the space and device asked for, however many processes share them or die."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from any_tables import with_header
from layout import HELPERS
from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.costs import FactorTable, build_table, cached_table, load_table, save_table
from nnmeter_nas.costs.build import latency_header
from nnmeter_nas.costs.cache import check_table, table_path
from nnmeter_nas.errors import LookupTableError
from nnmeter_nas.files import HOME
from nnmeter_nas.supernet import Space
from toy_supernets import residual_supernet, width_supernet

DEVICE = "cortexA76cpu_tflite21"

ASK_FOR_TABLE = f"""
import sys
from pathlib import Path
from typing import Any
sys.path.insert(0, {str(HELPERS)!r})
from toy_supernets import residual_supernet
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.costs import cached_table

def report(done):
    print("building", flush=True)
    if sys.argv[2] == "stop":
        sys.stdin.read()

table = cached_table(residual_supernet(), load_latency_predictor({DEVICE!r}), sys.argv[1], progress=report)
print(table.constant, flush=True)
"""

SAVE_TABLES = """
import sys
from nnmeter_nas.costs import load_table, save_table

tables = [load_table(path) for path in sys.argv[2:]]
print("saving", flush=True)
while True:
    for table in tables:
        save_table(table, sys.argv[1])
"""


@pytest.fixture(scope="module")
def predictor() -> LatencyPredictor:
    return load_latency_predictor(DEVICE)


@pytest.fixture(scope="module")
def table(predictor: LatencyPredictor) -> FactorTable:
    return build_table(residual_supernet(), predictor)


@contextmanager
def process(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs ``script``; killed in the end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def cached_quietly(predictor: LatencyPredictor, folder: Path) -> FactorTable:
    """The table from the cache, which must not have to be built anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return cached_table(
            residual_supernet(), predictor, folder, progress=lambda n: pytest.fail("built again")
        )


def test_a_table_is_built_once(predictor: LatencyPredictor, tmp_path: Path) -> None:
    first = cached_table(residual_supernet(), predictor, tmp_path)
    second = cached_quietly(predictor, tmp_path)
    assert second.constant == first.constant
    assert all(np.array_equal(second.factors[p], array) for p, array in first.factors.items())


def test_tables_go_to_the_users_cache(
    predictor: LatencyPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))
    cached_table(residual_supernet(), predictor)
    assert len(list(tmp_path.rglob(f"residual/{DEVICE}*_1x3x16x16_*.npz"))) == 1


def test_other_spaces_shapes_and_devices_have_tables_of_their_own(
    predictor: LatencyPredictor, tmp_path: Path
) -> None:
    spaces = [
        residual_supernet(),
        residual_supernet(size=20),
        residual_supernet(channels=8),
        width_supernet(),
    ]
    tables = [cached_table(space, predictor, tmp_path) for space in spaces]
    tables.append(cached_table(spaces[0], load_latency_predictor("adreno640gpu_tflite21"), tmp_path))
    assert len({table.constant for table in tables}) == len(list(tmp_path.rglob("*.npz"))) == 5


@pytest.mark.parametrize(
    ("changed", "tables"), [({"fusion_rules": []}, 2), ({"date": "1999-01-01", "accuracy": {}}, 1)]
)
def test_a_predictor_of_other_latencies_has_a_table_of_its_own(
    changed: dict[str, Any], tables: int, predictor: LatencyPredictor, tmp_path: Path
) -> None:
    pack = predictor.pack
    repacked = LatencyPredictor(dataclasses.replace(pack, card={**pack.card, **changed}))
    space = Space.of_supernet(residual_supernet())
    paths = {table_path(latency_header(space, one), tmp_path) for one in (repacked, predictor)}
    assert len(paths) == tables


@pytest.mark.parametrize("content", [b"", b"PK", b"[{}]"])
def test_a_damaged_table_is_built_anew_and_not_in_silence(
    predictor: LatencyPredictor, tmp_path: Path, content: bytes
) -> None:
    cached_table(residual_supernet(), predictor, tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="built anew"):
        cached_table(residual_supernet(), predictor, tmp_path)
    cached_quietly(predictor, tmp_path)


def test_a_stale_table_is_built_anew_and_not_in_silence(predictor: LatencyPredictor, tmp_path: Path) -> None:
    # As after an update of this package that changes what a kernel is predicted to take.
    table = cached_table(residual_supernet(), predictor, tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    save_table(dataclasses.replace(table, constant=1.01 * table.constant), path)
    with pytest.warns(UserWarning, match="stale"):
        again = cached_table(residual_supernet(), predictor, tmp_path)
    assert again.constant == table.constant


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"device": "adreno640gpu_tflite21"},
            "another device: adreno640gpu_tflite21, not cortexA76cpu_tflite21",
        ),
        ({"pack_version": 1.0}, "another version of the pack"),
        ({"pack_fingerprint": "0"}, "another content of the pack"),
        ({"space": "spos"}, "another space: spos, not residual"),
        ({"space_fingerprint": "0"}, "another content of the space"),
        ({"input_shape": (1, 3, 224, 224)}, "another input shape"),
    ],
)
def test_tables_of_something_else_are_refused(
    table: FactorTable, predictor: LatencyPredictor, change: dict[str, Any], message: str
) -> None:
    space = Space.of_supernet(residual_supernet())
    check_table(table, space, predictor)
    with pytest.raises(LookupTableError, match=message):
        check_table(with_header(table, **change), space, predictor)


def test_a_process_killed_while_building_holds_up_nobody(predictor: LatencyPredictor, tmp_path: Path) -> None:
    with process(ASK_FOR_TABLE, tmp_path, "stop") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "building\n"  # and holds the lock
        with process(ASK_FOR_TABLE, tmp_path, "go on") as second:
            first.kill()
            output = second.communicate(timeout=120)[0].splitlines()
    assert second.returncode == 0
    assert float(output[-1]) == cached_quietly(predictor, tmp_path).constant


@pytest.mark.slow
def test_processes_that_ask_at_once_build_one_table(predictor: LatencyPredictor, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK_FOR_TABLE, str(tmp_path), "go on"]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [one.communicate(timeout=120)[0].split() for one in asking]
    assert sum("building" in output for output in outputs) == 1
    assert len({output[-1] for output in outputs}) == 1
    cached_quietly(predictor, tmp_path)


def test_writers_killed_at_any_moment_leave_a_whole_table(table: FactorTable, tmp_path: Path) -> None:
    other = dataclasses.replace(table, constant=1.0)
    sources = [tmp_path / "one.npz", tmp_path / "other.npz"]
    for source, saved in zip(sources, (table, other), strict=True):
        save_table(saved, source)
    shared = tmp_path / "shared.npz"
    save_table(table, shared)
    for delay in (0.0, 0.003, 0.01, 0.02):
        with process(SAVE_TABLES, shared, *sources) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "saving\n"
            until = time.monotonic() + delay
            while True:
                assert load_table(shared).constant in (table.constant, 1.0)
                if time.monotonic() >= until:
                    break
            writer.kill()
            writer.wait()
        assert load_table(shared).constant in (table.constant, 1.0)
