"""Strategies run in NNI's experiments of either line, and are brought back to where they were."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import json
import logging
import math
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.nas", reason="runs the strategies of NNI's lines")

import nni  # noqa: E402
import nni.nas.nn.pytorch as nas  # noqa: E402
from nni.nas.evaluator import FunctionalEvaluator  # noqa: E402

from experiments import Run  # noqa: E402
from limits import limit_of  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.costs.build import build_table  # noqa: E402
from nnmeter_nas.errors import SearchError, SpaceError  # noqa: E402
from nnmeter_nas.nni import (  # noqa: E402
    MeasuredEvaluator,
    NniStrategy,
    build_network,
    patch,
    sample_of,
    unpatch,
)
from nnmeter_nas.nni.events import Ended, Event, Submitted, from_record, to_record, unended  # noqa: E402
from nnmeter_nas.nni.space_api import ModelSpace, model_space, nn  # noqa: E402
from nnmeter_nas.nni.trial import read_outcome  # noqa: E402
from nnmeter_nas.search_spaces import spos  # noqa: E402
from nnmeter_nas.strategies import LatencyConstrainedRandom, LearnedPareto, ParetoEvolution  # noqa: E402
from nnmeter_nas.supernet.choices import candidate_name  # noqa: E402
from nnmeter_nas.supernet.nni_space import space_of  # noqa: E402
from nnmeter_nas.supernet.space import Space  # noqa: E402

pytestmark = pytest.mark.nni3

LINE_3 = importlib.util.find_spec("nni.mutable") is not None
CPU = "cortexA76cpu_tflite21"


def small() -> Any:
    return spos("small", depths=(2, 1), channels=(16, 32))


@functools.cache
def limit(architectures: int) -> float:
    """The latency limit (ms) that so many of the 64 architectures of the small space are within."""
    return limit_of(build_table(space_of(small()), load_latency_predictor(CPU)), architectures)


@pytest.fixture(scope="module")
def space() -> Space:
    return space_of(small())


class InTurn(NniStrategy):
    """All architectures in turn, ``at_once`` of them at a time; what it is told it keeps."""

    def __init__(self, at_once: int = 2, first: int = 64, **options: Any) -> None:
        super().__init__(**options)
        self.at_once, self.first = at_once, first

    def make_problem(self, space: Space) -> Any:
        return InTurnProblem(space)

    def begin(self, problem: Any) -> None:
        rows = itertools.product(*(range(len(known)) for known in problem.candidates.values()))
        self._rows = itertools.islice(rows, self.first)
        self._asked = 0
        self.told: list[tuple[Any, float | None]] = []

    def ask(self) -> Any:
        if self._asked - len(self.told) >= self.at_once:
            return None
        row = next(self._rows, None)
        self._asked += row is not None
        return row

    @property
    def exhausted(self) -> bool:
        return self._asked == self.first

    def tell(self, row: Any, metric: float | None) -> None:
        self.told.append((tuple(row), metric))


class InTurnProblem:
    """A problem whose one measure is the sum of the candidates' positions."""

    measures: Mapping[str, Any] = {"positions": None}

    def __init__(self, space: Space) -> None:
        self.candidates = space.candidates

    def architecture(self, row: Sequence[int]) -> dict[str, str]:
        return {label: known[i] for (label, known), i in zip(self.candidates.items(), row, strict=True)}

    def row(self, architecture: Mapping[str, str]) -> Any:
        return tuple(known.index(architecture[label]) for label, known in self.candidates.items())

    def values(self, rows: Any) -> Any:
        return [[float(sum(row))] for row in rows]


class Workers:
    """Trials that end at the next look, the youngest first, on so many workers; some of them fail."""

    def __init__(self, workers: int, most: int, failing: Sequence[int] = ()) -> None:
        self.workers, self.most, self.failing = workers, most, failing
        self.started: list[Submitted] = []
        self._running: list[Submitted] = []

    def take_up(self, trials: list[Submitted]) -> list[Submitted]:
        return trials

    def start(self, trial: Submitted) -> None:
        assert self.has_room()
        self.started.append(trial)
        self._running.append(trial)

    def has_room(self) -> bool:
        return len(self._running) < self.workers and len(self.started) < self.most

    def are_running(self) -> bool:
        return bool(self._running)

    def ended(self) -> list[Ended]:
        if not self._running:
            return []
        number = self._running.pop().number
        return [Ended(number, None, "no luck") if number in self.failing else Ended(number, number / 10)]

    def are_over(self) -> bool:
        return len(self.started) == self.most and not self._running


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnmeter_nas.nni.asking.POLL_S", 0.0)


def prepared(space: Space, **options: Any) -> InTurn:
    strategy = InTurn(**options)
    strategy.prepare(space)
    return strategy


# Asking, telling, and coming back


def test_a_search_starts_no_more_than_there_are_workers_and_tells_what_ends(space: Space) -> None:
    strategy = prepared(space, at_once=3)
    workers = Workers(workers=2, most=5, failing=[3])
    strategy.search(workers)
    assert [trial.number for trial in workers.started] == [1, 2, 3, 4, 5]
    assert sorted(metric for _, metric in strategy.told if metric is not None) == [0.1, 0.2, 0.4, 0.5]
    assert [metric for _, metric in strategy.told].count(None) == 1
    assert {e.failure for e in strategy.events if isinstance(e, Ended)} == {"", "no luck"}
    first = strategy.events[0]
    assert isinstance(first, Submitted)
    assert (first.architecture["layer_1"], first.values) == ("k3", {"positions": 0.0})


def test_a_strategy_that_waits_for_its_generation_is_asked_again_when_one_has_ended(space: Space) -> None:
    strategy = prepared(space, at_once=1)
    strategy.search(Workers(workers=4, most=3))
    assert [type(event) for event in strategy.events] == [Submitted, Ended] * 3


def test_a_search_ends_when_the_strategy_is_exhausted(space: Space) -> None:
    strategy = prepared(space, first=3)
    strategy.search(Workers(workers=2, most=9))
    assert len(strategy.told) == 3


def test_a_strategy_that_waits_for_nothing_is_an_error_and_no_endless_wait(space: Space) -> None:
    strategy = prepared(space, at_once=0)
    with pytest.raises(SearchError, match="none runs"):
        strategy.search(Workers(workers=1, most=1))


def test_a_search_that_asks_no_more_ends_with_the_trials_that_it_has_proposed(space: Space) -> None:
    strategy, workers = prepared(space), Workers(workers=2, most=9)
    strategy.listen(lambda event: setattr(strategy, "asks_no_more", event.number == 2))
    strategy.search(workers)
    assert [trial.number for trial in workers.started] == [1, 2]
    assert len(strategy.told) == 2
    resumed = prepared(space)
    resumed.replay(strategy.events[:3])
    [left] = unended(resumed.events)
    resumed.asks_no_more = True
    again = Workers(workers=2, most=9)
    resumed.search(again)
    assert again.started == [left]
    assert len(resumed.told) == 2


def test_listeners_hear_of_an_event_before_anything_follows_from_it(space: Space) -> None:
    strategy, workers = prepared(space), Workers(workers=1, most=2)
    heard: list[tuple[Event, int, int]] = []
    strategy.listen(lambda event: heard.append((event, len(workers.started), len(strategy.told))))
    strategy.search(workers)
    assert [event for event, _, _ in heard] == strategy.events
    assert [(started, told) for _, started, told in heard] == [(0, 0), (1, 0), (1, 1), (2, 1)]


@pytest.mark.parametrize("make", [
    lambda: ParetoEvolution(3, limit(31), predictor=CPU, seed=1),
    lambda: LatencyConstrainedRandom(limit(31), predictor=CPU, seed=1),
    lambda: LearnedPareto(3, limit(31), predictor=CPU, seed=1),
])  # fmt: skip
@pytest.mark.parametrize("known", [1, 6, 11])
def test_a_replayed_strategy_goes_on_as_the_one_that_was_not_interrupted(
    make: Any, known: int, space: Space
) -> None:
    whole = make()
    whole.prepare(space)
    whole.search(Workers(workers=2, most=12, failing=[2, 5]))
    events = [from_record(json.loads(json.dumps(to_record(event)))) for event in whole.events[:known]]
    assert events == whole.events[:known]
    resumed = make()
    resumed.replay(events)  # which waits for the space
    resumed.prepare(space)
    assert resumed.events == events
    done = len(events) - len(unended(events))
    resumed.search(Workers(workers=2, most=12 - done // 2, failing=[2, 5]))
    first = [e.architecture for e in whole.events if isinstance(e, Submitted)]
    again = [e.architecture for e in resumed.events if isinstance(e, Submitted)]
    assert len(again) == 12
    assert again[: 1 + known // 2] == first[: 1 + known // 2]
    assert sorted(e.number for e in resumed.events if isinstance(e, Ended)) == list(range(1, 13))


def test_trials_without_an_end_are_submitted_again_and_not_asked_anew(space: Space) -> None:
    strategy = prepared(space)
    strategy.search(Workers(workers=2, most=4))
    resumed = prepared(space)
    resumed.replay(strategy.events[:3])  # two submissions, one end
    [left] = unended(resumed.events)
    workers = Workers(workers=2, most=3)
    resumed.search(workers)
    assert workers.started[0] == left
    assert [e.number for e in resumed.events if isinstance(e, Submitted)] == [1, 2, 3, 4]


def test_what_the_model_expects_of_a_trial_is_written_down_with_it(space: Space) -> None:
    strategy = LearnedPareto(3, limit(31), predictor=CPU)
    strategy.prepare(space)
    strategy.search(Workers(workers=1, most=8))
    trials = [event for event in strategy.events if isinstance(event, Submitted)]
    assert [trial.expected is None for trial in trials] == [True] * 3 + [False] * 5
    for trial in trials[3:]:
        assert trial.expected == strategy.expected(strategy.problem.row(trial.architecture))
        assert trial.expected is not None
        assert trial.expected.low <= trial.expected.metric <= trial.expected.high
        assert from_record(json.loads(json.dumps(to_record(trial)))) == trial


def test_a_replay_that_the_strategy_does_not_agree_with_says_what_changed(space: Space) -> None:
    other = {**InTurnProblem(space).architecture((0, 0, 0)), "layer_2": "k7"}
    message = r"trial 1 cannot be replayed.*k7.*same arguments, space and predictors"
    with pytest.raises(SearchError, match=message):
        prepared(space).replay([Submitted(1, other, {})])


def test_it_pickles_as_its_arguments_within_the_limit_of_nni(space: Space) -> None:
    strategy = ParetoEvolution(5, 2.0, predictor=CPU, limits={"flops": 1e9})
    strategy.prepare(space)
    strategy.search(Workers(workers=2, most=8))
    data = pickle.dumps(strategy)
    assert len(data) < 1024
    for again in (pickle.loads(data), copy.deepcopy(strategy)):
        assert (again.population, again.limits, again.seed) == (5, {"flops": 1e9}, strategy.seed)
        assert again.events == []


@pytest.mark.parametrize("record", [
    {}, {"event": "began"}, {"event": "ended", "number": 1, "loss": 2.0},
    {"event": "submitted", "number": 1, "architecture": {}, "values": {}, "expected": {"metric": 0.5}},
])  # fmt: skip
def test_a_record_of_something_else_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match="no record of a search"):
        from_record(record)


@pytest.mark.skipif(LINE_3, reason="the checkpoint of 2.10.1 holds the strategy itself")
def test_a_strategy_that_was_given_a_space_fits_into_the_checkpoint() -> None:
    import nni.nas.experiment.pytorch as experiment
    from nni.common.serializer import PayloadTooLarge

    made = LatencyConstrainedRandom(limit(31), predictor=CPU, space=small())
    patch()
    try:
        again = nni.load(experiment.dump(made))
        with pytest.raises(PayloadTooLarge):
            experiment.dump(torch.nn.Linear(100, 100))
    finally:
        unpatch()
    assert isinstance(again, LatencyConstrainedRandom)
    assert again.seed == made.seed


# Networks and models


def as_chosen(layer: Any) -> str:
    """Name of the block of the small space that a network has in the place of a layer."""
    kernels = [m.kernel_size[0] for m in layer.branch.modules() if isinstance(m, torch.nn.Conv2d)]
    return "xception" if len(kernels) == 6 else f"k{max(kernels)}"


def test_the_network_of_an_architecture_has_what_it_chooses() -> None:
    architecture = {"layer_1": "k7", "layer_2": "xception", "layer_3": "k5"}
    network = build_network(small, architecture)
    assert [as_chosen(layer) for layer in network.layers] == list(architecture.values())
    with pytest.raises(SpaceError, match=r"layer_3.*'k9'"):
        build_network(small, {**architecture, "layer_3": "k9"})


def executables() -> dict[str, Any]:
    """NNI's models of the small space, in every format that its engines take."""
    if LINE_3:
        from nni.nas.space import RawFormatModelSpace, SimplifiedModelSpace
        from nni.nas.space.pytorch import PytorchGraphModelSpace

        from nnmeter_nas.nni.nas import Models

        graph = PytorchGraphModelSpace.from_model(small(), None, (1, 3, 32, 32))
        spaces = {"graph": graph, "simplified": SimplifiedModelSpace.from_model(small()),
                  "raw": RawFormatModelSpace.from_model(small())}  # fmt: skip
        return {name: Models(made) for name, made in spaces.items()}
    from nni.nas.experiment.pytorch import preprocess_model

    from nnmeter_nas.nni.retiarii import Models as Models2

    shape = [1, 3, 32, 32]
    return {"py": Models2(*preprocess_model(small(), None, None, full_ir=False)),
            "graph": Models2(*preprocess_model(small(), None, None, full_ir=True, dummy_input=shape))}


def test_every_model_format_makes_what_the_architecture_says_and_has_the_same_space(space: Space) -> None:
    architecture = {"layer_1": "k7", "layer_2": "xception", "layer_3": "k5"}
    for models in executables().values():
        assert sample_of(models.make(architecture)) == architecture
        found = models.space(None)
        assert found.candidates == space.candidates
        assert found.input_shape == space.input_shape
        with pytest.raises(SpaceError, match="layer_9"):
            models.make({**architecture, "layer_9": "k3"})


@model_space
class Inputs(ModelSpace):
    """Choices of one input, of two, and of a value."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 3, 8, 8)
        width = nni.choice("width", [4, 8]) if LINE_3 else nas.ValueChoice([4, 8], label="width")
        convolution = nas.MutableConv2d if LINE_3 else nn.Conv2d
        self.first, self.second = (convolution(3, width, kernel, padding=kernel // 2) for kernel in (1, 3))
        self.one = nas.InputChoice(2, n_chosen=1, label="one")
        self.two = nas.InputChoice(3, n_chosen=2, label="two")

    def forward(self, x: Any) -> Any:
        first, second = self.first(x), self.second(x)
        return self.two([first, second, self.one([first, second])])


def test_choices_of_inputs_and_values_are_made_as_they_are_named() -> None:
    if LINE_3:
        from nni.nas.space import SimplifiedModelSpace

        from nnmeter_nas.nni.nas import Models

        models: Any = Models(SimplifiedModelSpace.from_model(Inputs()))
    else:
        from nni.nas.experiment.pytorch import preprocess_model

        from nnmeter_nas.nni.retiarii import Models as Models2

        models = Models2(*preprocess_model(Inputs(), None, None, full_ir=False))
    found = models.space(None)
    assert found.candidates["one"] == ("0", "1")
    assert {"0+1", "0+2", "1+2"} <= set(found.candidates["two"])
    architecture = {"width": "8", "one": "1", "two": "0+2"}
    sample = sample_of(models.make(architecture))
    assert {label: candidate_name(value) for label, value in sample.items()} == architecture
    network = build_network(Inputs, architecture).eval()
    image = torch.rand(1, 3, 8, 8)
    assert torch.allclose(network(image), network.first(image) + network.second(image), atol=1e-6)
    assert network.first.out_channels == 8


# Trials


def run_trial(function: Any, tmp_path: Path) -> Any:
    """Run an evaluator on a network outside NNI, as a trial would; gives its outcome."""
    file = tmp_path / "trials" / "0001.json"
    evaluator = MeasuredEvaluator(FunctionalEvaluator(function), {"latency_ms": 2.5}, file)
    try:
        evaluator.evaluate(torch.nn.Identity())
    finally:
        outcome = read_outcome(file)
    return outcome


def accurate(network: Any) -> None:
    nni.report_intermediate_result(0.5)
    nni.report_final_result({"default": 0.75, "loss": 1.5})


def crashing(network: Any) -> None:
    nni.report_final_result(0.75)
    raise RuntimeError("out of memory")


def leaving(network: Any) -> None:
    raise SystemExit(0)


def silent(network: Any) -> None:
    return None


def not_a_number(network: Any) -> None:
    nni.report_final_result(math.nan)


def infinite(network: Any) -> None:
    nni.report_final_result({"default": math.inf})


def without_default(network: Any) -> None:
    nni.report_final_result({"accuracy": 0.5})


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Any:
    """What NNI heard outside an experiment: it prints final results."""
    caplog.set_level(logging.INFO)
    return lambda: [line for line in (caplog.text + capsys.readouterr().out).splitlines() if "inal" in line]


def test_a_trial_reports_its_measures_and_keeps_its_outcome(tmp_path: Path, reported: Any) -> None:
    outcome = run_trial(accurate, tmp_path)
    assert (outcome.metric, outcome.failure) == (0.75, "")
    assert outcome.seconds >= 0
    [line] = set(reported())
    for part in ("'default': 0.75", "'latency_ms': 2.5", "'loss': 1.5"):
        assert part in line.replace('"', "'")


@pytest.mark.parametrize("returned", [0.5, {"default": 0.5, "loss": 1.5}])
def test_a_metric_that_an_evaluator_returns_counts(returned: Any, tmp_path: Path, reported: Any) -> None:
    assert run_trial(lambda network: returned, tmp_path).metric == 0.5
    assert "'latency_ms': 2.5" in reported()[-1].replace('"', "'")


@pytest.mark.parametrize(("function", "error", "message"), [
    (crashing, RuntimeError, "out of memory"),
    (leaving, SystemExit, "0"),
    (silent, SearchError, "reported no metric"),
    (not_a_number, SearchError, "nan, which is no finite number"),
    (infinite, SearchError, "inf, which is no finite number"),
    (without_default, SearchError, "without a key 'default'"),
])  # fmt: skip
def test_a_trial_without_a_good_metric_fails_and_nni_hears_of_none(
    function: Any, error: Any, message: str, tmp_path: Path, reported: Any
) -> None:
    with pytest.raises(error, match=message):
        run_trial(function, tmp_path)
    outcome = read_outcome(tmp_path / "trials" / "0001.json")
    assert outcome is not None
    assert outcome.metric is None
    assert outcome.failure.startswith(error.__name__)
    assert message in outcome.failure
    assert reported() == []


def test_the_outcome_of_a_trial_that_did_not_end_is_none(tmp_path: Path) -> None:
    assert read_outcome(tmp_path / "0001.json") is None
    (tmp_path / "0002.json").write_text('{"loss": 1}')
    with pytest.raises(SearchError, match=r"0002\.json is not the outcome"):
        read_outcome(tmp_path / "0002.json")


def test_an_evaluator_reaches_its_trial_as_it_was(tmp_path: Path) -> None:
    evaluator = MeasuredEvaluator(FunctionalEvaluator(accurate), {"latency_ms": 2.5}, tmp_path / "0001.json")
    if LINE_3:
        again = nni.load(nni.dump(evaluator))
    else:
        from nni.nas.evaluator import Evaluator

        again = Evaluator._load(nni.load(nni.dump(evaluator._dump())))
    assert (again.values, again.file) == (evaluator.values, evaluator.file)
    assert again.evaluator.function is accurate


# Real experiments


def start(folder: Path, model_format: str, **task: Any) -> Run:
    """Start an experiment of the installed line; graph and other formats have names of their own in each."""
    if LINE_3:
        return Run("nni3_search", folder, format=model_format, **task)
    engine = {"simplified": "py", "graph": "graph"}[model_format]
    return Run("nni_search", folder, engine=engine, **task)


@pytest.mark.slow
def test_a_real_experiment_goes_on_after_trials_that_crash_or_report_nan(tmp_path: Path) -> None:
    task = {"strategy": "learned", "threshold": limit(31), "trials": 4, "concurrency": 2}
    with start(tmp_path, "simplified", trouble=["crash", "nan"], **task) as run:
        run.wait_for(lambda: bool(run.listening()))
        assert run.listening() == {"127.0.0.1"}  # NNI's manager, which would listen on every address
        jobs = run.finished()["jobs"]
        assert run.left() == []
    events = [from_record(record) for record in run.records[:-1]]
    submitted = {event.number: event for event in events if isinstance(event, Submitted)}
    ends = [event for event in events if isinstance(event, Ended)]
    assert list(submitted) == [1, 2, 3, 4]
    assert sorted(event.number for event in ends) == [1, 2, 3, 4]
    assert [event.failure for event in ends if event.metric is None] == ["the trial failed"] * 2
    assert len({tuple(event.architecture.values()) for event in submitted.values()}) == 4
    assert all(event.values["latency_ms"] <= limit(31) for event in submitted.values())
    assert sorted(job[0] for job in jobs) == ["FAILED"] * 2 + ["SUCCEEDED"] * 2
    # NNI's page shows what its database has: the accuracy and the latency beside it.
    shown = sorted((metric["default"], metric["latency_ms"]) for _, *metrics in jobs for metric in metrics)
    told = [(e.metric, submitted[e.number].values["latency_ms"]) for e in ends if e.metric is not None]
    assert shown == [(metric, pytest.approx(ms)) for metric, ms in sorted(told)]


@pytest.mark.slow
def test_a_real_experiment_of_operators_ends_when_all_within_the_limit_were_tried(tmp_path: Path) -> None:
    with start(tmp_path, "graph", strategy="constrained", threshold=limit(2), trials=4) as run:
        jobs = run.finished()["jobs"]
        assert run.left() == []
    assert [job[0] for job in jobs] == ["SUCCEEDED"] * 2
    assert max(metric["latency_ms"] for _, metric in jobs) <= limit(2)
