"""The comparison of searches measures what it says, and goes on where it was interrupted."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnmeter_nas.benchmarks.search.accuracy import CHANCE, NOISE, SHARES, TOP, SyntheticAccuracy
from nnmeter_nas.benchmarks.search.statistics import (
    compare,
    front,
    holm,
    hypervolume,
    hypervolumes,
    signed_rank,
)
from nnmeter_nas.errors import SearchError

pytestmark = pytest.mark.nni3

LIMIT, FLOOR = 9, 2
POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8)


@given(POINTS)
@settings(max_examples=200, deadline=None)
def test_hypervolume_is_the_number_of_unit_squares_that_a_point_dominates(
    points: list[tuple[int, int]],
) -> None:
    squares = [
        (ms, score)
        for ms, score in itertools.product(range(13), range(12))
        if ms < LIMIT and score >= FLOOR and any(p <= ms and a >= score + 1 for p, a in points)
    ]
    latency, accuracy = np.array(points, dtype=float).T
    assert hypervolume(latency, accuracy, LIMIT, FLOOR) == len(squares)
    over_trials = hypervolumes(latency, accuracy, LIMIT, FLOOR)
    assert over_trials[-1] == len(squares)
    assert (np.diff(over_trials) >= 0).all()


@given(POINTS)
@settings(max_examples=200, deadline=None)
def test_a_front_holds_each_undominated_point_once(points: list[tuple[int, int]]) -> None:
    latency, accuracy = np.array(points, dtype=float).T
    found = front(latency, accuracy)
    undominated = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert [points[i] for i in found] == sorted(undominated)


def test_seeds_are_compared_in_pairs_and_corrected_for_their_number() -> None:
    assert signed_rank(np.arange(1, 11)) == pytest.approx(2 / 2**10)
    assert signed_rank(np.zeros(10)) == 1.0
    assert holm([0.001, 0.4, 0.3]) == pytest.approx([0.003, 0.6, 0.6])
    noise = np.random.default_rng(0).normal(0, 1, 10)
    found = {"ours": noise + np.linspace(0.1, 0.2, 10), "same": noise[::-1], "rival": noise}
    ahead, same = compare(found, ["ours", "same"], ["rival"])
    assert (ahead.ahead, ahead.wins, ahead.p_holm) == (True, 10, pytest.approx(4 / 2**10))
    assert ahead.sentence.startswith("ours is ahead of rival with p = 0.0039")
    assert not same.ahead
    assert same.sentence.startswith("same is not ahead of rival: p = ")
    (behind,) = compare(found, ["rival"], ["ours"])
    assert "it is behind with p = 0.002" in behind.sentence


def synthetic(seed: int = 0, **options: Any) -> SyntheticAccuracy:
    names = [("small", "large", "none")] * 3 + [("wide", "small")]
    return SyntheticAccuracy(names, lambda rows: 1.0 + (rows == 1).sum(axis=1), seed, **options)


def test_synthetic_accuracy_is_what_it_is_documented_to_be() -> None:
    rows = np.array(list(itertools.product(range(3), range(3), range(3), range(2))))
    accuracy = synthetic().accuracies(rows)
    assert (synthetic().accuracies(rows) == accuracy).all()
    assert (synthetic(1).accuracies(rows) != accuracy).all()
    assert accuracy.max() < TOP
    # The score is of mean 0 and of about the variance of its three parts, which lie in each other's way by
    # chance.
    score = -np.log(np.expm1((TOP - accuracy) / 0.05))
    assert abs(score.mean()) < 0.1
    assert 0.3 < score.var() < 2 * sum(SHARES.values())
    assert sum(SHARES.values()) == pytest.approx(1)


def test_trials_report_noise_that_an_architecture_has_once_a_seed() -> None:
    rows = np.array(list(itertools.product(range(3), range(3), range(3), range(2))))
    known = synthetic()
    noise = known.reported(rows) - known.accuracies(rows)
    assert (known.reported(rows[::-1])[::-1] == known.reported(rows)).all()
    assert 0.7 * NOISE < noise.std() < 1.3 * NOISE


def test_networks_that_compute_nothing_guess() -> None:
    rows = np.array([[0, 1, 2, 0], [2, 2, 2, 0]])
    known = synthetic(works=lambda rows: (rows[:, :3] != 2).any(axis=1))
    assert known.accuracies(rows)[1] == CHANCE < known.accuracies(rows)[0]


def tiny_space() -> Any:
    from nnmeter_nas.search_spaces import spos

    return spos(
        "small", depths=(1,), channels=(8,), input_size=8, in_channels=1, stem_channels=4, head_channels=8
    )


TINY_TRAINING = {"epochs": 1, "batch_size": 256, "learning_rate": 0.1, "seed": 0, "threads": 1}


def test_trainings_go_on_where_they_were_interrupted(tmp_path: Path) -> None:
    pytest.importorskip("nni.nas.execution.sequential", reason="trains in NNI 3.0's engine")
    from nnmeter_nas.benchmarks.search.digits import trained_accuracies

    file = tmp_path / "work" / "digits.jsonl"
    trained: list[tuple[int, int]] = []
    whole = trained_accuracies(file, tiny_space(), TINY_TRAINING, lambda *done: trained.append(done))
    assert trained == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(whole) == {("k3",), ("k5",), ("k7",), ("xception",)}
    assert all(0 <= accuracy <= 1 for accuracy in whole.values())

    text = file.read_text()
    file.write_text(text[:-5])  # killed while it wrote the last line
    trained.clear()
    assert trained_accuracies(file, tiny_space(), TINY_TRAINING, lambda *done: trained.append(done)) == whole
    assert (trained, file.read_text()) == ([(3, 4), (4, 4)], text)

    with pytest.raises(SearchError, match="of another space or training"):
        trained_accuracies(file, tiny_space(), {**TINY_TRAINING, "seed": 1})
    assert file.read_text() == text


def test_the_filter_of_the_rivals_decides_as_the_latency_filter_does() -> None:
    spaces = pytest.importorskip("nni.nas.space")
    nni_side = pytest.importorskip("nnmeter_nas.benchmarks.search.nni_rivals")
    from nnmeter_nas import load_latency_predictor
    from nnmeter_nas.costs import measures
    from nnmeter_nas.strategies import LatencyFilter
    from nnmeter_nas.supernet.nni_space import space_of

    module = tiny_space()
    predictor = load_latency_predictor("adreno640gpu_tflite21")
    space = space_of(module)
    latency = measures.latency(space, predictor)
    ms = latency.values(np.arange(4)[:, None])
    limit = float(np.sort(ms)[1:3].mean())
    looked_up = nni_side.TableFilter(
        limit, lambda sample: float(ms[space.candidates["layer_1"].index(sample["layer_1"])])
    )
    predicted = LatencyFilter(limit, predictor)
    trials = spaces.SimplifiedModelSpace.from_model(module)
    candidates = [trials.freeze({"layer_1": block}) for block in space.candidates["layer_1"]]
    assert [looked_up(c) for c in candidates] == [predicted(c) for c in candidates]
    assert looked_up.accepted == 2
    assert [c.latency_ms for c in looked_up.candidates] == pytest.approx(
        [c.latency_ms for c in predicted.candidates]
    )


def test_a_comparison_runs_both_sides_within_the_limit_and_writes_what_they_did(tmp_path: Path) -> None:
    pytest.importorskip("nni.nas.execution.sequential", reason="the rivals are NNI 3.0's")
    from nnmeter_nas import load_latency_predictor
    from nnmeter_nas.benchmarks.search import comparison as comparison
    from nnmeter_nas.benchmarks.search.report import write_reports
    from nnmeter_nas.costs import measures
    from nnmeter_nas.search_spaces import spos
    from nnmeter_nas.supernet.nni_space import space_of

    module = spos("small", depths=(2, 2), channels=(8, 16), input_size=16, stem_channels=4, head_channels=8)
    space = space_of(module)
    latency = measures.latency(space, load_latency_predictor("adreno640gpu_tflite21"))
    ms = latency.values(np.array(list(itertools.product(range(4), repeat=4))))
    limit = float(np.quantile(ms, 0.4))

    def accuracy(seed: int) -> SyntheticAccuracy:
        return SyntheticAccuracy(list(space.candidates.values()), latency.values, seed)

    task = comparison.Task("tiny", "tiny", module, space, latency, limit, float(ms.min()), 8, TOP, accuracy)
    outcome = comparison.run_task(task, range(3))
    again = comparison.run_task(replace(task, title="again"), range(1))
    for name, runs in outcome.runs.items():
        assert (runs[0].rows == again.runs[name][0].rows).all(), name
        for run in runs:
            assert 1 <= len(run.rows) <= task.trials
            assert len(np.unique(run.rows, axis=0)) == len(run.rows)
            assert run.latency.max() <= limit
            assert 0 < run.hypervolume[-1] <= 1, name
    page = tmp_path / "page.md"
    page.write_text("# Search\n<!-- search comparison: begin -->\n<!-- search comparison: end -->\n")
    write_reports([outcome], "adreno640gpu_tflite21", tmp_path / "out", page)
    for folder in (tmp_path, tmp_path / "out"):
        assert (folder / "search_comparison.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "out" / "search_comparison.md").read_text()
    assert table.strip() in page.read_text()
    for sentence in (c.sentence for c in outcome.comparisons):
        assert f"- {sentence}\n" in table
    raw = json.loads((tmp_path / "out" / "search_comparison.json").read_text())["tasks"][0]
    assert len(raw["runs"]) == 3 * len(outcome.runs)
    for run in raw["runs"]:
        box = (raw["limit_ms"] - raw["fastest_ms"]) * (raw["ceiling"] - raw["floors"][str(run["seed"])])
        area = hypervolume(
            run["latency_ms"], run["accuracy"], raw["limit_ms"], raw["floors"][str(run["seed"])]
        )
        assert area / box == pytest.approx(run["hypervolume"][-1], rel=1e-3)


def test_the_command_knows_every_task() -> None:
    from nnmeter_nas.benchmarks.__main__ import SEARCH_TASKS
    from nnmeter_nas.benchmarks.search.comparison import TASKS

    assert tuple(TASKS) == SEARCH_TASKS


def test_a_cell_without_a_way_to_its_output_computes_nothing() -> None:
    from types import SimpleNamespace

    from nnmeter_nas.benchmarks.search.comparison import reaches_output

    operations = ("none", "skip_connect", "conv_1x1")
    labels = ("edge_0_1", "edge_0_2", "edge_1_2", "edge_0_3", "edge_1_3", "edge_2_3")
    space: Any = SimpleNamespace(candidates=dict.fromkeys(labels, operations))
    ways = {
        (0, 0, 0, 1, 0, 0): True,
        (1, 0, 2, 0, 0, 1): True,
        (1, 1, 1, 0, 0, 0): False,
        (0, 0, 1, 0, 1, 1): False,
    }
    assert reaches_output(space, np.array(list(ways))).tolist() == list(ways.values())
