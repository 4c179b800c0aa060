"""The benchmark of bulk predictions: its files, what it sees of a run, its page."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.benchmarks.bulk import files, measuring
from nnmeter_nas.benchmarks.bulk.measuring import Plan, run_bulk
from nnmeter_nas.benchmarks.bulk.page import write_bulk
from nnmeter_nas.benchmarks.bulk.watching import Watched
from nnmeter_nas.errors import DatasetError, ReaderError

CPU = "cortexA76cpu_tflite21"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth file is broken, and there are seven networks."""
    monkeypatch.setattr(files, "BROKEN_EVERY", 10)
    monkeypatch.setattr(measuring, "BROKEN_EVERY", 10)
    monkeypatch.setattr(files, "_NETWORKS", 7)
    monkeypatch.setattr(files, "_FOLDER", 8)


@pytest.mark.usefixtures("few")
def test_files_are_networks_and_a_few_are_broken(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    folder = files.many_files(tmp_path / "files", 20)
    paths = sorted(folder.rglob("*.onnx"))
    assert len(paths) == 20
    predictor = load_latency_predictor(CPU)
    found = []
    for path in paths:
        if path in (paths[9], paths[19]):
            with pytest.raises(ReaderError):
                predictor.predict(path)
        else:
            found.append(predictor.predict(path))
    assert len(set(found)) == 7
    assert all(predictor.explain(path).unpredicted == {} for path in paths[:7])
    before = paths[0].stat().st_mtime_ns
    assert files.many_files(folder, 20) == folder
    assert paths[0].stat().st_mtime_ns == before, "files that are there are kept"


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_run_is_measured_checked_and_written_into_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "pyarrow", "matplotlib"):
        pytest.importorskip(package)
    from rich.console import Console

    monkeypatch.setattr(measuring, "_OFTEN_S", 0.02)
    monkeypatch.setattr(measuring, "_SELDOM_S", 0.02)
    results, page = tmp_path / "bulk.json", tmp_path / "page.md"
    run_bulk(Plan(CPU, files=200, workers=1, sample=100, jobs=[1]), tmp_path, results, Console(quiet=True))
    page.write_text("# Many\n<!-- bulk: begin -->\n<!-- bulk: end -->\n", encoding="utf-8")
    write_bulk(results, page)
    told = page.read_text(encoding="utf-8")
    assert re.search(r"\n\| 1 \| [\d.]+ \| 1\.00 \| [\d.]+ \|\n", told)
    assert re.search(r"200 files on 1 workers .* 200\s+rows, a file each; the 20 broken files", told)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    row = {"model": "a", "latency_ms": 1.0, "error": None}
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row] * 200), tmp_path / "latencies.parquet")
    with pytest.raises(DatasetError, match="of 200 files, 20 of them broken, 1 have a row, up to 200 each"):
        measuring._check(tmp_path, 200)


def test_speed_is_that_of_most_of_the_run() -> None:
    seen = Watched()
    for second in range(21):  # two seconds to start, then ten files a second; once, all stood still
        seen.seconds.append(second + (30 if second > 10 else 0))
        seen.files.append(max(0, 10 * (second - 2)))
        seen.cpu_seconds.append(max(0.0, second - 2) * 0.5)
    for values, last in ((seen.seconds, 51), (seen.files, 180), (seen.cpu_seconds, 0.3)):
        values.append(last)  # the workers have ended
    assert seen.files_per_second() == pytest.approx(10)
    assert seen.cpu_ms_per_file() == pytest.approx(50)
    assert Watched(**json.loads(json.dumps(asdict(seen)))) == seen
