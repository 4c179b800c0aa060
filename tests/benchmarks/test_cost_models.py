"""The comparison of cost models: choices are replayed on a pool, and a page says who wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="the extra 'tvm' is not installed")
pytest.importorskip("xgboost")

from nnmeter_nas.backends.tvm import search
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.tuning.comparison import trials_until_near, verdicts
from nnmeter_nas.benchmarks.tuning.pool import Pool
from nnmeter_nas.benchmarks.tuning.replay import BATCH, CONTESTANTS, replayed

pytestmark = pytest.mark.tvm


class KnowsAll:
    """Chooses the quickest first: the first feature is the time."""

    def __init__(self) -> None:
        self.learned: list[tuple[Any, int]] = []

    def learn(self, kernel: Any, features: Any, seconds: Any) -> None:
        assert [one[0, 0] for one in features] == list(seconds)
        self.learned.append((kernel, len(seconds)))

    def scores(self, features: Any) -> Any:
        return np.array([-one[0, 0] for one in features])


def pool(kernel: str, module: Any = None) -> Pool:
    seconds = np.random.default_rng(len(kernel)).uniform(1, 10, 60)
    return Pool(kernel, module or kernel, [np.array([[one, 1.0]]) for one in seconds], seconds)


def test_choices_come_in_batches_and_only_the_first_is_blind() -> None:
    found = replayed(KnowsAll(), pool("a"), 20, seed=3)
    assert len(found) == 20
    assert found[BATCH - 1] == found[0] or found[BATCH - 1] > 1
    assert found[BATCH] == 1, "after the first batch it chooses the quickest one"
    knows = KnowsAll()
    assert replayed(knows, pool("a"), 20, 3, [pool("bc")])[0] == 1, "it knew another kernel, and is not blind"
    assert knows.learned == [("bc", 32), ("a", 8), ("a", 8), ("a", 4)]


def test_all_contestants_choose_each_schedule_once() -> None:
    from nnmeter_nas.backends.tvm.compiling import fuse, this_machine
    from nnmeter_nas.benchmarks.tuning.kernels import kernel_graph
    from nnmeter_nas.readers.onnx.writer import to_onnx

    module = fuse(to_onnx(kernel_graph("conv1x1")), this_machine()).module
    for contestant in CONTESTANTS.values():
        found = replayed(contestant.make(1), pool("a", module), 60, 1)
        assert found[-1] == 1, "nothing is left to choose"
        assert (np.diff(found) <= 0).all()


def test_trials_until_near_and_verdicts() -> None:
    curves = np.array([[2.0, 1.04, 1.0], [1.01, 1.0, 1.0], [3.0, 2.0, 1.1]])
    assert trials_until_near(curves).tolist() == [2, 1, 4]
    quick, slow = np.full((10, 8), 1.0), np.full((10, 8), 2.0)
    [verdict] = verdicts({"slow": {"k": slow}, "quick": {"k": quick}})
    assert (verdict.winner, verdict.rival, verdict.sooner, verdict.later) == ("quick", "slow", 10, 0)
    assert verdict.p < 0.01


def test_the_command_measures_once_and_writes_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed: list[str] = []

    def seconds(candidate: Any, _: Any) -> float:
        if not len(candidate.sch.trace.insts):  # the kernel as it comes, which is in no pool
            return 1.0
        timed.append(search.fingerprint(candidate))
        return 1e-3 * (1 + int(timed[-1], 16) % 97)

    monkeypatch.setattr(search, "measured_seconds", seconds)
    page = tmp_path / "page.md"
    page.write_text("<!-- cost models: begin -->\n<!-- cost models: end -->\n")
    command = ["cost-models", "--kernel", "fc", "conv1x1", "--pool", "10", "--trials", "9", "--seeds", "1",
               "--work", str(tmp_path / "work"), "--page", str(page)]  # fmt: skip
    assert main(command) == 0
    assert len(timed) == 20
    first, said = page.read_text(), capsys.readouterr().out
    assert "Each cost model chose 9 of 10 schedules" in first
    for contestant in CONTESTANTS.values():
        assert f"| {contestant.title} |" in first
        assert contestant.title in said
    assert (tmp_path / "cost_models.png").read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0
    assert len(timed) == 20, "nothing is measured twice"
    assert page.read_text() == first
