"""A cluster of Dask or Ray gives what this process does, to the bit, though a worker is killed half-way."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest

import bulk_tasks
from any_tables import random_table
from bulk_results import assert_same
from layout import HELPERS
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.benchmarks import __main__ as commands
from nnmeter_nas.benchmarks.packs import evaluation
from nnmeter_nas.benchmarks.packs.evaluation import compare_dataset
from nnmeter_nas.cli import main
from nnmeter_nas.errors import GraphError, WorkerError
from nnmeter_nas.parallel.bulk import spread, workers
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files
from nnmeter_nas.solve import survey as survey_module
from nnmeter_nas.solve.survey import survey
from synthetic_bench import CPU, VPU, write_bench

pytest.importorskip("joblib")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning"),
    pytest.mark.filterwarnings("ignore:a worker died:UserWarning"),
]
#: Models of each family.
MODELS = 3


@pytest.fixture(params=["dask", "ray"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A backend that is installed; none of its processes may be left."""
    module = {"dask": "distributed", "ray": "ray"}[request.param]
    pytest.importorskip(module, reason=f"needs the extra {request.param}")
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))  # Ray's workers import the chunks from there
    before = set(psutil.Process().children(recursive=True))
    yield request.param
    new = [p for p in psutil.Process().children(recursive=True) if p not in before]
    left = [p for p in new if "resource_tracker" not in " ".join(p.cmdline())]  # ends with this process
    assert not psutil.wait_procs(left, timeout=20)[1]


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured models of each family if they are there, else made-up ones."""
    folder = tmp_path_factory.mktemp("clusters")
    try:
        measured: Path = request.getfixturevalue("bench_dir")
    except pytest.skip.Exception:
        return write_bench(folder, models=8)
    for path in dataset_files(measured):
        with path.open("rb") as lines:
            (folder / path.name).write_bytes(b"".join(islice(lines, MODELS)))
    return folder


def test_cluster_gives_what_this_process_does_though_a_worker_is_killed_and_tells_errors(
    backend: str, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cluster for all, as Ray takes long to start."""
    monkeypatch.setattr(evaluation, "RANGE_BYTES", 150_000)
    monkeypatch.setattr(survey_module, "_CHUNK", 2**16)
    predictors = [load_latency_predictor(CPU), load_latency_predictor(VPU)]
    compared = compare_dataset(bench, predictors)
    terms = random_table((4,) * 9, [(i, i + 1) for i in range(8)], seed=4)
    surveyed = survey(terms, 30)
    (bench / "killed").unlink(missing_ok=True)
    with workers(2, backend), warnings.catch_warnings():
        assert_same(compare_dataset(bench, predictors), compared)
        monkeypatch.setattr(evaluation, "compare_range", bulk_tasks.compare_range_or_die)
        assert_same(compare_dataset(bench, predictors), compared)
        found = survey(terms, 30)
        with pytest.raises(GraphError, match="two is refused") as caught:
            list(spread(bulk_tasks.fail_at_two, range(5)))
        with pytest.raises(WorkerError, match="workers die again and again"):
            list(spread(bulk_tasks.die_at_three, range(9)))
    assert (bench / "killed").exists()
    assert caught.value.node == "two"
    for field in ("least", "edges", "counts"):
        np.testing.assert_array_equal(getattr(found, field), getattr(surveyed, field))


def test_cluster_that_does_not_answer_is_told(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = {"dask": "tcp://127.0.0.1:9", "ray": "127.0.0.1:9"}[backend]
    with pytest.raises(WorkerError, match=r"answers at .*127\.0\.0\.1:9"), workers(2, backend, scheduler):
        pass


@pytest.mark.parametrize("backend", ["dask"], indirect=True)
def test_commands_write_the_same_with_a_cluster(
    backend: str, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("nni", reason="reads a search space")
    spread_out = ["--jobs", "2", "--backend", backend]
    evaluate = ["evaluate", str(bench), "--predictor", CPU]
    assert commands.main(evaluate) == 0
    expected = capsys.readouterr().out
    assert commands.main([*evaluate, *spread_out]) == 0
    assert capsys.readouterr().out == expected
    build = ["lut", "build", "--space", "spos-small", "--predictor", CPU, VPU, "-o"]
    assert main([*build, str(tmp_path / "here")]) == 0
    assert main([*build, str(tmp_path / "there"), *spread_out]) == 0
    here, there = (sorted((tmp_path / name).rglob("*.npz")) for name in ("here", "there"))
    assert len(here) == 2
    assert [path.read_bytes() for path in there] == [path.read_bytes() for path in here]
