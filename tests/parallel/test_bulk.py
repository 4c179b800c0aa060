"""Bulk work is the same on any workers: nothing lost, nothing twice, whatever dies or is interrupted."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import bulk_tasks
from bulk_results import assert_same
from ir import small_cnn
from layout import HELPERS
from nnmeter_nas import LatencyWarning, load_latency_predictor, read_model
from nnmeter_nas.benchmarks import __main__ as commands
from nnmeter_nas.benchmarks.packs import evaluation
from nnmeter_nas.benchmarks.packs.evaluation import compare_dataset
from nnmeter_nas.errors import (
    DatasetError,
    GraphError,
    MissingPackageError,
    ReaderError,
    UnpredictedOperatorError,
    WorkerError,
)
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.parallel.bulk import TravellingPredictor, spread, workers
from nnmeter_nas.predictor import BATCH
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from synthetic_bench import CPU, VPU, write_bench

pytest.importorskip("joblib")

# Made-up models lie outside the range measured.
pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")




@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up dataset that is evaluated in a dozen parts."""
    monkeypatch.setattr(evaluation, "RANGE_BYTES", 20_000)
    (tmp_path / "bench").mkdir()
    return write_bench(tmp_path / "bench", models=8)


# --- Many models, one predictor ---


def test_many_models_have_the_latencies_that_each_has_alone(bench: Path) -> None:
    graphs = [model.graph for path in dataset_files(bench) for model in iter_models(path)] * 3
    assert len(graphs) > BATCH
    found = list(load_latency_predictor(CPU).predict_many(graphs))
    predictor = load_latency_predictor(CPU)
    assert found == pytest.approx([predictor.predict(graph) for graph in graphs], rel=1e-12)
    assert list(predictor.predict_many([])) == []


def test_models_without_end_are_taken_a_batch_at_a_time() -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield graph

    graph = read_model(small_cnn(blocks=1))
    latencies = load_latency_predictor(CPU).predict_many(endless())
    assert taken == 0
    assert len(set(itertools.islice(latencies, 2 * BATCH))) == 1
    assert taken == 2 * BATCH


@pytest.mark.parametrize("place", [0, 3, BATCH, BATCH + 1])
def test_broken_model_is_named_after_all_before_it_are_given(place: int, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    models: list[Any] = [small_cnn(blocks=1)] * place + [broken] + [small_cnn(blocks=1)]
    latencies = load_latency_predictor(CPU).predict_many(models)
    assert len(list(itertools.islice(latencies, place))) == place
    with pytest.raises(ReaderError, match=rf"models\[{place}\].*broken\.json"):
        next(latencies)


def test_trouble_of_where_models_come_from_is_not_a_models() -> None:
    def models() -> Iterator[Any]:
        yield small_cnn(blocks=1)
        raise DatasetError("the disk is gone")

    latencies = load_latency_predictor(CPU).predict_many(models())
    assert next(latencies) > 0
    with pytest.raises(DatasetError, match=r"^the disk is gone$"):
        next(latencies)


def test_many_models_warn_once_and_fail_where_predict_does_under_strict() -> None:
    graph = new_graph()
    add_op(graph, "odd", "sorcery", [add_input(graph, "x", (1, 3, 8, 8))], {}, [(1, 3, 8, 8)])
    odd = finish(graph)
    with pytest.warns(LatencyWarning, match="sorcery") as caught:
        assert len(list(load_latency_predictor(CPU).predict_many([odd] * 5))) == 5
    assert len([w for w in caught if "sorcery" in str(w.message)]) == 1
    assert caught[0].filename == __file__
    latencies = load_latency_predictor(CPU).predict_many([small_cnn(blocks=1), odd], strict=True)
    assert next(latencies) > 0
    with pytest.raises(UnpredictedOperatorError, match=r"models\[1\]: .*sorcery"):
        next(latencies)


# --- Parts of a dataset ---


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
def test_parts_of_a_file_hold_each_model_once(tmp_path: Path, size: int) -> None:
    path = tmp_path / "nets.jsonl"
    path.write_text("\n" + "\n\n".join(f'{{"id": "{i}", "graph": {{}}}}' for i in range(9)), encoding="utf-8")
    every = [model.id for model in iter_models(path)]
    bounds = [*range(0, path.stat().st_size, size), path.stat().st_size]
    found = [model.id for start, end in itertools.pairwise(bounds) for model in iter_models(path, start, end)]
    assert found == every == [*"012345678"]


def test_malformed_line_is_numbered_in_the_file_and_not_in_its_part(tmp_path: Path) -> None:
    path = dataset_files(write_bench(tmp_path, models=3))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\n" + lines[1] + b"nonsense\n" + lines[2])
    with pytest.raises(DatasetError, match=r"plainnets\.jsonl:4: "):
        list(iter_models(path, len(lines[0]) + 5))


# --- Workers ---


@pytest.mark.timeout(120)
def test_processes_give_what_this_process_does_though_one_is_killed(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = [load_latency_predictor(CPU), load_latency_predictor(VPU)]
    expected = compare_dataset(bench, predictors)
    assert len(expected[CPU].predicted) == 16
    assert len(expected[VPU].predicted) < 16, "the VPU lacks some figures"
    monkeypatch.setattr(evaluation, "compare_range", bulk_tasks.compare_range_or_die)
    with workers(2), pytest.warns(UserWarning, match=r"a worker died at chunk .* next to it; they run again"):
        assert_same(compare_dataset(bench, predictors), expected)
    assert (bench / "killed").exists()


@pytest.mark.timeout(300)
def test_chunk_that_kills_every_worker_is_told_with_what_to_do() -> None:
    found: list[int] = []
    message = r"workers die again and again at chunk 4 of 9: 3; .*: take fewer jobs"
    with workers(2), pytest.warns(UserWarning, match="died"), pytest.raises(WorkerError, match=message):
        found.extend(spread(bulk_tasks.die_at_three, range(9)))
    assert found == [0, 1, 4][: len(found)], "what is given is in order, and nothing twice"


@pytest.mark.parametrize("jobs", [1, 2])
def test_error_of_a_chunk_comes_as_it_is_after_the_results_before_it(jobs: int) -> None:
    with workers(jobs):
        results = spread(bulk_tasks.fail_at_two, range(5))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(GraphError, match="operator 'two': two is refused") as caught:
            next(results)
    assert caught.value.node == "two"


@pytest.mark.parametrize("jobs", [1, 2])
def test_warnings_of_workers_are_told_once(jobs: int) -> None:
    with workers(jobs), pytest.warns(UserWarning, match="is odd or even") as caught:
        assert list(spread(bulk_tasks.warn_each_time, range(4))) == [0, 1, 4, 9]
    # Joblib may still warn of what an earlier test left undone.
    told = [str(w.message) for w in caught if "odd or even" in str(w.message)]
    assert told == ["0 of 4 is odd or even, 0.00%"]


def test_work_leaves_this_process_only_if_it_is_asked_to() -> None:
    assert set(spread(bulk_tasks.process_of, range(3))) == {os.getpid()}
    with workers(1):
        assert set(spread(bulk_tasks.process_of, range(3))) == {os.getpid()}
    with workers(2):
        others = set(spread(bulk_tasks.process_of, range(3)))
    assert os.getpid() not in others
    assert not any(map(psutil.pid_exists, others)), "they wait for work that never comes"
    assert set(spread(bulk_tasks.process_of, range(3))) == {os.getpid()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "slurm"}, "backend='slurm' is unknown; take one of loky, dask, ray"),
        ({"jobs": 0}, "jobs=0 must be at least 1"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "is for backend 'dask' or 'ray'"),
    ],
)
def test_workers_that_there_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message), workers(**arguments):
        pass


@pytest.mark.parametrize(("backend", "module"), [("loky", "joblib"), ("dask", "distributed"), ("ray", "ray")])
def test_missing_package_is_told_with_the_extra_that_brings_it(
    backend: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    extra = "bulk" if backend == "loky" else backend
    with pytest.raises(MissingPackageError, match=rf"nnmeter_nas\[{extra}\]"), workers(2, backend):
        pass


def test_predictor_that_a_worker_lacks_is_told_with_the_way_to_bring_it() -> None:
    predictor = load_latency_predictor(CPU)
    travelling = TravellingPredictor.of(predictor)
    assert travelling.load().version == predictor.version
    for other in (
        TravellingPredictor("my_board", 3.0, travelling.fingerprint),
        TravellingPredictor(CPU, predictor.version, "0"),
    ):
        with pytest.raises(WorkerError, match=r"on the worker .* NNMETER_NAS_HOME"):
            other.load()


# --- Evaluations that are interrupted ---


def test_interrupted_evaluation_goes_on_where_it_was(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictors = [load_latency_predictor(CPU)]
    expected, journal = compare_dataset(bench, predictors), bench.parent / "journal.jsonl"
    worked_on: list[str] = []

    def interrupted(part: evaluation.FileRange) -> evaluation.Pairs:
        worked_on.append(str(part))
        if len(worked_on) == 4:
            raise KeyboardInterrupt
        return bulk_tasks.compare_range(part)

    monkeypatch.setattr(evaluation, "compare_range", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare_dataset(bench, predictors, journal)
    journal.write_bytes(journal.read_bytes()[:-20])  # as a crash may leave it
    assert_same(compare_dataset(bench, predictors, journal), expected)
    assert worked_on[4] == worked_on[2], "the third was not on the disk as a whole"
    assert len(set(worked_on)) == len(worked_on) - 2
    before = len(worked_on)
    assert_same(compare_dataset(bench, predictors, journal), expected)
    assert len(worked_on) == before
    with pytest.raises(DatasetError, match="of another dataset or of other predictors"):
        compare_dataset(bench, [load_latency_predictor(VPU)], journal)


def test_evaluation_by_command_prints_the_same_with_workers(
    bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["evaluate", str(bench), "--predictor", CPU]) == 0
    expected = capsys.readouterr().out
    assert "plainnet" in expected
    assert commands.main(["evaluate", str(bench), "--predictor", CPU, "--jobs", "2"]) == 0
    assert capsys.readouterr().out == expected


def test_devices_given_one_by_one_are_all_evaluated(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["evaluate", str(bench), "--predictor", CPU, VPU]) == 0
    expected = capsys.readouterr().out
    assert CPU in expected
    assert VPU in expected
    assert commands.main(["evaluate", str(bench), "--predictor", CPU, "--predictor", VPU]) == 0
    assert capsys.readouterr().out == expected


SPREAD_AND_DIE = """
import os, signal
import bulk_tasks
from nnmeter_nas.parallel.bulk import spread, workers

with workers(2):
    for process in spread(bulk_tasks.process_of, range(4)):
        print(process, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_end_with_the_process_that_is_killed() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", SPREAD_AND_DIE], env={**os.environ, "PYTHONPATH": str(HELPERS)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode < 0
    started = {int(process) for process in killed.stdout.split()}
    assert started
    while any(psutil.pid_exists(process) for process in started):
        time.sleep(0.2)
