"""Tuning with TVM: what was measured is kept and never measured again; our cost model learns to rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="the extra 'tvm' is not installed")
pytest.importorskip("xgboost")

from nnmeter_nas.backends.tvm import search
from nnmeter_nas.backends.tvm.compiling import Fused, compiled, fuse, this_machine
from nnmeter_nas.backends.tvm.cost_models import cost_model
from nnmeter_nas.backends.tvm.ranking import Ranking
from nnmeter_nas.backends.tvm.records import FAILED, open_records, quickened, records_of, trials_of
from nnmeter_nas.backends.tvm.tuning import Progress, kernels_to_tune, tune
from nnmeter_nas.errors import SettingsError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.readers.onnx.writer import to_onnx

pytestmark = pytest.mark.tvm


@pytest.fixture(scope="module")
def target() -> Any:
    return this_machine()


@pytest.fixture(scope="module")
def dense(target: Any) -> Fused:
    """A dense layer, fused."""
    graph = new_graph("dense")
    add_input(graph, "x", (1, 32))
    add_op(graph, "fc", "fc", ["x"], {"out_features": 48})
    return fuse(to_onnx(finish(graph)), target)


@pytest.fixture(scope="module")
def task(dense: Fused, target: Any) -> Any:
    """The dense layer, as a task of TVM's search."""
    return kernels_to_tune(dense, target)[-1]


def has_steps(candidate: Any) -> bool:
    return len(candidate.sch.trace.insts) > 0


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes the place of measuring; returns the schedules that were timed, after the kernel as it comes."""
    found: list[str] = []

    def seconds(candidate: Any, _: Any) -> float:
        found.append(search.fingerprint(candidate))
        assert has_steps(candidate) == (len(found) > 1)
        if len(found) == 7:
            raise KeyboardInterrupt
        return 1e-3 * (1 + int(found[-1], 16) % 97)

    monkeypatch.setattr(search, "measured_seconds", seconds)
    return found


def test_an_interrupted_tuning_goes_on_without_losing_or_repeating_trials(
    task: Any, target: Any, timed: list[str], tmp_path: Path
) -> None:
    told, prepared = list[Progress](), list[int]()
    with pytest.raises(KeyboardInterrupt):
        tune([task], target, open_records(tmp_path), 12, told.append, prepare=prepared.append)
    assert prepared == [0]
    path = tmp_path / "database_tuning_record.json"
    assert len(path.read_text().splitlines()) == 6
    path.write_text(path.read_text() + '[0, [[["torn by a cra')
    records = open_records(tmp_path)
    known = records_of(records, task.dispatched[0])
    assert len(known) == len(records) == 6
    assert len(trials_of(known)) == 5
    best = min(float(one.run_secs[0]) for one in known)
    tune([task], target, records, 12, told.append, seed=5)
    assert len(records) == 18
    measured = timed[:6] + timed[7:]
    assert len(set(measured)) == len(measured) == 18
    assert told[-1].trials == 12
    assert told[-1].best_ms <= 1e3 * best
    times = [one.best_ms for one in told]
    assert times == sorted(times, reverse=True)
    assert [(one.trials, one.kernel) for one in told if not one.kernel] == [(0, ""), (0, "")]


@pytest.mark.parametrize(("of_trials", "changes"), [(2e-3, False), (0.5e-3, True)])
def test_only_what_is_quicker_than_the_kernel_as_it_comes_is_applied(
    of_trials: float, changes: bool, dense: Fused, task: Any, target: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(search, "measured_seconds", lambda one, _: of_trials if has_steps(one) else 1e-3)
    records, told = open_records(tmp_path), list[Progress]()
    tune([task], target, records, 4, told.append)
    assert [one.best_ms for one in told] == [1.0, 0.5 if changes else 1.0]
    assert quickened(records, dense.module) == ({str(task.task_name)} if changes else set())
    assert (code(compiled(dense, target, records)) != code(compiled(dense, target))) == changes


def code(made: Any) -> str:
    """The code of the kernels of a compiled model."""
    [library] = made.program.mod.imports
    return str(library.inspect_source("s"))


def test_a_kernel_of_which_no_schedule_runs_is_given_up(
    task: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "measured_seconds", lambda one, _: FAILED if has_steps(one) else 7e-3)
    records, told = open_records(tmp_path), list[Progress]()
    tune([task], target, records, 40, told.append)
    assert told[-1].best_ms == pytest.approx(7.0 * int(task.weight))
    assert 1 < len(records) < 40


def test_a_kernel_that_does_not_run_by_itself_is_left_alone(
    task: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "measured_seconds", lambda *_: FAILED)
    records, told = open_records(tmp_path), list[Progress]()
    tune([task], target, records, 40, told.append)
    assert told == [Progress(0, 0.0, "")]
    assert len(records) == 1


def test_tvm_does_not_warn_of_rules_for_poolings_that_it_lacks(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = new_graph("poolings")
    add_input(graph, "x", (1, 4, 8, 8))
    for op in ("maxpool", "avgpool"):
        add_op(graph, op, op, ["x"], {"kernel": (2, 2), "stride": (2, 2)})
    monkeypatch.setattr(search, "measured_seconds", lambda *_: 1e-3)
    tasks = kernels_to_tune(fuse(to_onnx(finish(graph)), target), target)
    tune(tasks, target, open_records(tmp_path), 2, lambda _: None)
    assert len(tasks) == 2
    assert "Unknown schedule rule" not in capfd.readouterr().err


def test_an_unknown_cost_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean 'ranking'"):
        cost_model("rankin", 0)


def schedules(seed: int, slowness: float) -> tuple[list[Any], list[float]]:
    """Schedules of two stores each, whose times depend on the sum of a feature and the largest other one."""
    rng = np.random.default_rng(seed)
    features = [rng.random((2, 6)) for _ in range(80)]
    return features, [slowness * float(np.exp(2 * one[:, 0].sum() + one[:, 3].max())) for one in features]


def test_it_learns_to_rank_whatever_the_scale_of_a_kernel() -> None:
    ranking = Ranking()
    for kernel, slowness in (("small", 1e-6), ("large", 1.0)):
        features, seconds = schedules(int(slowness), slowness)
        ranking.learn(kernel, features, seconds)
    features, seconds = schedules(7, 1.0)
    scores = ranking.scores(features)
    assert ((scores > 0) & (scores < 1)).all()
    quicker = np.subtract.outer(seconds, seconds) < 0
    right = np.subtract.outer(scores, scores)[quicker] > 0
    assert right.mean() > 0.85


def test_only_the_order_of_times_within_a_kernel_counts() -> None:
    features, seconds = schedules(1, 1.0)
    one, other = Ranking(), Ranking()
    one.learn("kernel", features, seconds)
    other.learn("kernel", features, [1e3 * second for second in seconds])
    np.testing.assert_allclose(one.scores(features), other.scores(features), atol=1e-6)
