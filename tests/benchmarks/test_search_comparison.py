"""The comparison of searches measures what it says, and goes on where it was interrupted."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from layout import REPOSITORY
from nnmeter_nas.benchmarks.__main__ import SEARCH_STRATEGIES, SEARCH_TASKS, main
from nnmeter_nas.benchmarks.search.accuracy import NOISE, SHARES, TOP, SyntheticAccuracy
from nnmeter_nas.benchmarks.search.comparison import Plan, run_comparison
from nnmeter_nas.benchmarks.search.contestants import CONTESTANTS, Setting
from nnmeter_nas.benchmarks.search.judging import COMPARED, Outcome, Tried, compared, judge
from nnmeter_nas.benchmarks.search.known_front import evolved
from nnmeter_nas.benchmarks.search.one_shot import Landing
from nnmeter_nas.benchmarks.search.optuna_rivals import OptunaSampler
from nnmeter_nas.benchmarks.search.plot import _STYLES
from nnmeter_nas.benchmarks.search.report import sentences, write_reports
from nnmeter_nas.benchmarks.search.samplers import PATIENCE, Row, Values, search_with
from nnmeter_nas.benchmarks.search.statistics import compare, holm, hypervolume, hypervolumes, signed_rank
from nnmeter_nas.benchmarks.search.tasks import TOPICS, Task, make_task, task_names
from nnmeter_nas.errors import SearchError

pytestmark = pytest.mark.nni3

OPTUNA = Path(os.environ.get("OPTUNA_PYTHON", REPOSITORY / ".venv-optuna/bin/python"))
HAS_NNI3 = importlib.util.find_spec("nni.mutable") is not None
CPU = "cortexA76cpu_tflite21"
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


def test_seeds_are_compared_in_pairs_and_corrected_for_their_number() -> None:
    assert signed_rank(np.arange(1, 11)) == pytest.approx(2 / 2**10)
    assert signed_rank(np.zeros(10)) == 1.0
    assert holm([0.001, 0.4, 0.3]) == pytest.approx([0.003, 0.6, 0.6])
    noise = np.random.default_rng(0).normal(0, 1, 10)
    found = {
        "first": {"ours": noise + np.linspace(0.1, 0.2, 10), "rival": noise},
        "second": {"ours": noise[::-1], "rival": noise},
        "third": {"rival": noise, "other": noise},
    }
    ahead, same = compare(found, "ours", 0.05)
    assert (ahead.task, ahead.ahead, ahead.behind, ahead.wins) == ("first", True, False, 10)
    assert ahead.p_holm == pytest.approx(4 / 2**10)
    assert (same.task, same.ahead, same.behind) == ("second", False, False)
    (behind,) = compare({"first": found["first"]}, "rival", 0.05)
    assert behind.behind
    assert not any(test.ahead for test in compare({"first": found["first"]}, "ours", 0.001))


def synthetic(seed: int = 0) -> SyntheticAccuracy:
    names = [("small", "large", "none")] * 3 + [("wide", "small")]
    return SyntheticAccuracy(names, lambda rows: 1.0 + (rows == 1).sum(axis=1), seed)


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
    nothing = nni_side.TableFilter(limit, lambda sample: 0.0)
    assert not any(map(nothing, candidates))
    assert [c.latency_ms for c in looked_up.candidates] == pytest.approx(
        [c.latency_ms for c in predicted.candidates]
    )


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """NAS-Bench-201 with the accuracies of CIFAR-10, on the CPU."""
    return make_task(f"cifar10/{CPU}", tmp_path_factory.mktemp("work"))


def test_the_command_knows_every_task_and_strategy() -> None:
    assert tuple(TOPICS) == SEARCH_TASKS
    assert tuple(CONTESTANTS) == SEARCH_STRATEGIES
    assert set(_STYLES) == set(CONTESTANTS)
    names = task_names(SEARCH_TASKS, [CPU, "adreno640gpu_tflite21"])
    assert sorted(names[:2]) == ["cifar10/adreno640gpu_tflite21", f"cifar10/{CPU}"]
    assert names[6:] == ["spos/adreno640gpu_tflite21", "digits/adreno640gpu_tflite21"]


def test_the_true_hypervolume_is_that_of_all_cells_that_run(cells: Task) -> None:
    truth, known = cells.truth(0), cells.accuracies(0)
    ms, accuracy = cells.latency.values(cells.everything), known.accuracies(cells.everything)
    assert 15_000 < len(cells.everything) < 5**6
    assert 0 < ms.min() <= cells.limit < ms.max() == pytest.approx(cells.slowest)
    assert (ms <= cells.limit).mean() == pytest.approx(0.25, abs=0.01)
    assert truth.floor == 1 / 10  # guessing one of ten classes
    assert truth.hypervolume == hypervolume(ms, accuracy, cells.slowest, truth.floor)
    best = np.flatnonzero(ms <= cells.limit)[accuracy[ms <= cells.limit].argmax()]
    assert (truth.best, truth.best_test) == (accuracy[best], known.tested(cells.everything[[best]])[0])


def test_a_search_is_judged_by_what_it_had_after_each_trial(cells: Task) -> None:
    rng = np.random.default_rng(3)
    rows = cells.everything[rng.permutation(len(cells.everything))[:60]]
    outcome = judge(cells, {"random": [Tried(0, rows, 64, 0.0)]}, [0])
    (run,) = outcome.runs["random"]
    truth, known = outcome.truths[0], cells.accuracies(0)
    for n in (1, 7, 60, 64):
        ms, accuracy = cells.latency.values(rows[:n]), known.accuracies(rows[:n])
        area = hypervolume(ms, accuracy, cells.slowest, truth.floor)
        assert run.share[n - 1] == pytest.approx(area / truth.hypervolume)
        if (ms <= cells.limit).any():
            best = int(np.where(ms <= cells.limit, accuracy, -1).argmax())
            assert run.missed[n - 1] == pytest.approx(truth.best - accuracy[best])
            assert run.tested is not None
            assert run.tested[n - 1] == known.tested(rows[[best]])[0]
        else:
            assert run.missed[n - 1] == np.inf
    assert run.enough == np.inf


def test_the_best_cells_have_all_of_the_hypervolume(cells: Task) -> None:
    found = evolved(cells.problem, cells.accuracies(0).accuracies, cells.everything[:1000], 0)
    (run,) = judge(cells, {"random": [Tried(0, found, len(found), 0.0)]}, [0]).runs["random"]
    assert 0.999 < run.share[-1] <= 1
    assert run.share[int(run.enough) - 1] >= 0.99 > run.share[int(run.enough) - 2]
    assert run.missed[-1] == 0


class Scripted:
    """A sampler that proposes what it is told to, and else repeats itself."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.told: list[tuple[Values | None, Row | None]] = []
        self.then: Row | None = None

    def ask(self) -> Row:
        if self.then is not None:
            return self.then
        return self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]

    def tell(self, values: Values | None, then: Row | None) -> None:
        self.told.append((values, then))
        self.then = then


def test_what_was_tried_or_runs_nothing_costs_a_sampler_no_trial(cells: Task) -> None:
    known = cells.accuracies(0)
    first, second, nothing = (3, 3, 3, 3, 3, 3), (2, 2, 2, 2, 2, 2), (0, 0, 0, 0, 0, 0)
    sampler = Scripted([first, first, nothing, second])
    rows = search_with(sampler, cells, known, 4, seed=0)
    values = {
        row: (float(known.reported(np.array([row]))[0]), float(cells.latency.values([row])[0]))
        for row in (first, second)
    }
    assert [told for told, _ in sampler.told[:4]] == [values[first], values[first], None, values[second]]
    assert rows[:2].tolist() == [list(first), list(second)]
    helped = [at for at, (_, then) in enumerate(sampler.told) if then is not None]
    assert helped == [3 + PATIENCE, 3 + PATIENCE + 1 + PATIENCE]
    assert len(np.unique(rows, axis=0)) == 4
    assert cells.problem.inside(rows).all()


def check_rows(task: Task, rows: Any, trials: int) -> None:
    """A search tried so many architectures, each once, and each runs."""
    assert rows.shape == (trials, len(task.problem.sizes))
    assert len(np.unique(rows, axis=0)) == trials
    assert task.problem.inside(rows).all()


#: LearnedPareto counts the work of all cells first, which is not kept here; GPSampler takes seconds a trial.
SLOW = ("learned", "optuna-gp")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SEARCH_STRATEGIES]
)
def test_each_strategy_searches_by_its_seed(name: str, cells: Task) -> None:
    contestant = CONTESTANTS[name]
    if contestant.nni3 and not HAS_NNI3:
        pytest.skip("the rivals are NNI 3.0's")
    if name.startswith("optuna") and not OPTUNA.exists():
        pytest.skip("needs Optuna: make .venv-optuna/.stamp")
    trials = 14
    found = [
        contestant.search(Setting(cells, cells.accuracies(seed), seed, trials, OPTUNA)) for seed in (0, 0, 1)
    ]
    for rows in found:
        check_rows(cells, rows, trials)
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_optuna_that_does_not_run_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"make compare.* --strategy"):
        OptunaSampler(tmp_path / "python", "TPESampler", [2], 0)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no optuna' >&2\nexit 1\n")
    python.chmod(0o755)
    with (
        OptunaSampler(python, "TPESampler", [2], 0) as sampler,
        pytest.raises(SearchError, match="ModuleNotFoundError: no optuna"),
    ):
        sampler.ask()


PLAN = Plan(["cifar10"], [CPU], ["pareto", "nni-tpe"], range(2), 30)


def test_a_comparison_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    console = Console(record=True, quiet=True)

    def run(plan: Plan = PLAN, **options: Any) -> tuple[list[Any], list[str]]:
        (outcome,) = run_comparison(plan, tmp_path, OPTUNA, 1, console, **options)
        shares = {name: [run.share.tolist() for run in runs] for name, runs in outcome.runs.items()}
        return [shares], (tmp_path / "searches.jsonl").read_text().splitlines()

    whole, lines = run()
    assert len(lines) == 4
    (tmp_path / "searches.jsonl").write_text("\n".join(lines)[:-9])  # killed while it wrote the last search
    again, more = run()
    assert again == whole
    assert more[:3] == lines[:3]
    assert json.loads(more[3])["rows"] == json.loads(lines[3])["rows"]
    # Fewer trials are the first of those; more are a search of their own.
    fewer, same = run(PLAN._replace(trials=10))
    assert same == more
    assert fewer[0]["pareto"] == [shares[:10] for shares in whole[0]["pareto"]]
    _, longer = run(PLAN._replace(trials=31, strategies=["pareto"], seeds=[1]))
    assert longer[:4] == more
    assert json.loads(longer[4])["trials"] == 31
    # What is run afresh replaces what was kept, and nothing else.
    _, fresh = run(PLAN._replace(strategies=["pareto"]), fresh=True)
    assert sorted(json.loads(line)["strategy"] for line in fresh) == ["nni-tpe"] * 2 + ["pareto"] * 2


def test_searches_of_another_task_of_that_name_do_not_count(tmp_path: Path) -> None:
    plan = PLAN._replace(strategies=["nni-tpe"], seeds=[0])
    run_comparison(plan, tmp_path, OPTUNA, 1, Console(quiet=True))
    file = tmp_path / "searches.jsonl"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "fingerprint": "of another pack"}) + "\n")
    run_comparison(plan, tmp_path, OPTUNA, 1, Console(quiet=True))
    assert [json.loads(line)["fingerprint"] for line in file.read_text().splitlines()] == [
        "of another pack",
        record["fingerprint"],
    ]


def test_one_shot_searches_are_judged_by_their_architectures_together(cells: Task, tmp_path: Path) -> None:
    rows = cells.everything[:: len(cells.everything) // 2][:3]
    names = list(cells.space.candidates.values())
    blocks = tuple(tuple(known[i] for known, i in zip(names, row, strict=True)) for row in rows)
    tried = {"learned": [Tried(0, rows, 3, 0.0)]}
    outcome = judge(cells, tried, [0], {0: Landing(blocks, 40.0)})
    share = outcome.runs["learned"][0].share
    assert outcome.landed == [(pytest.approx(share[-1]), 40.0)]
    write_reports([outcome], tmp_path)
    page = (tmp_path / "search_comparison.md").read_text()
    reached = np.flatnonzero(share == share[-1])[0] + 1
    assert f"in the time of 40 trials (seeds: 1). LearnedPareto has as much after {reached} trials." in page


def judged(task: Task, seeds: int = 12) -> Outcome:
    """Searches that try the best cells first, against random ones."""
    rng = np.random.default_rng(0)
    everything = task.everything[np.argsort(task.latency.values(task.everything))]
    accuracy = task.accuracies(0).accuracies(everything)
    below_the_front = np.maximum.accumulate(accuracy) - accuracy
    good = everything[np.argsort(below_the_front)[:60]]
    tried = {
        name: [Tried(s, pool[rng.permutation(len(pool))[:COMPARED]], COMPARED, 0.1) for s in range(seeds)]
        for name, pool in (("learned", good), ("random", everything))
    }
    tried["optuna-gp"] = [replace(one, rows=one.rows[:20], trials=20) for one in tried["random"]]
    return judge(task, tried, range(seeds))


def test_the_report_says_of_each_rival_whether_ours_is_ahead(cells: Task, tmp_path: Path) -> None:
    first = judged(cells)
    second = replace(first, task=replace(cells, name="second", title="second"))
    page = tmp_path / "page.md"
    page.write_text("# Search\n<!-- search comparison: begin -->\n<!-- search comparison: end -->\n")
    said = write_reports([first, second], tmp_path / "out", page)
    tests = compared([first, second])
    assert [(test.task, test.rival) for test in tests] == [(cells.name, "random"), ("second", "random")]
    assert all(test.ahead or test.behind for test in tests)
    assert said == [f"NAS-Bench-201: {sentence}" for sentence in sentences(tests)]
    table = (tmp_path / "out" / "search_comparison.md").read_text()
    assert table.strip() in page.read_text()
    assert f"- {sentences(tests)[0]}\n" in table
    assert "Optuna GPSampler with 20, since it takes long" in table
    middle = np.median([run.share[COMPARED - 1] for run in first.runs["random"]])
    assert f"{100 * middle:.1f} (" in table
    for folder in (tmp_path, tmp_path / "out"):
        assert (folder / "search_comparison.png").read_bytes().startswith(b"\x89PNG")
    raw = json.loads((tmp_path / "out" / "search_comparison.json").read_text())
    assert [len(task["runs"]) for task in raw["tasks"]] == [36, 36]
    assert raw["comparisons"][0]["p_holm"] == tests[0].p_holm


def test_sentences_are_plain(cells: Task) -> None:
    outcome = judged(cells)
    (test,) = compared([outcome])
    ahead = replace(test, difference=0.1, p_holm=0.001, wins=12)
    (sentence,) = sentences([ahead])
    assert sentence.startswith(
        "LearnedPareto is ahead of NNI Random + LatencyFilter (more hypervolume in 12 of"
    )
    other = replace(ahead, task="other", difference=-0.1)
    (sentence,) = sentences([ahead, other])
    assert sentence.startswith(
        "LearnedPareto is not ahead of NNI Random + LatencyFilter in every task: in 1 of 2"
    )
    assert sentence.endswith("; behind in 1 of 2).")


def test_the_command_searches_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- search comparison: begin -->\n<!-- search comparison: end -->\n")
    command = ["search", "--task", "cifar100", "--predictor", CPU, "--strategy", "pareto", "nni-tpe"]
    command += ["--seeds", "2", "--trials", "20", "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "out"), "--page", str(page)]
    assert main(command) == 0
    assert "Each strategy searched each task with 2 seeds and 20 trials." in page.read_text()
    with pytest.raises(SystemExit):
        main(["search", "--task", "spos", "--predictor", CPU])
    assert "no task of ['spos'] runs on" in capsys.readouterr().err
