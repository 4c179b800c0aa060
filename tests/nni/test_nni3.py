"""NNI 3.0: its graph model space is read, and its Filter middleware takes the latency filter."""

from __future__ import annotations

import functools
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
spaces = pytest.importorskip("nni.nas.space", reason="reads and filters what NNI 3.0 makes")

from nni.nas.evaluator import FunctionalEvaluator  # noqa: E402
from nni.nas.execution.sequential import SequentialExecutionEngine  # noqa: E402
from nni.nas.experiment import NasExperiment  # noqa: E402
from nni.nas.experiment.config import (  # noqa: E402
    NasExperimentConfig,
    SequentialEngineConfig,
    SimplifiedModelFormatConfig,
)
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableReLU, Repeat  # noqa: E402
from nni.nas.space import RawFormatModelSpace, SimplifiedModelSpace  # noqa: E402
from nni.nas.space.pytorch import PytorchGraphModelSpace  # noqa: E402
from nni.nas.strategy import Random, RegularizedEvolution  # noqa: E402
from nni.nas.strategy.middleware import Chain, Filter  # noqa: E402
from nni.nas.utils.serializer import get_default_serializer  # noqa: E402

from experiments import Run, ended  # noqa: E402
from limits import limit_of  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.costs.build import build_table  # noqa: E402
from nnmeter_nas.errors import ReaderError, SearchError  # noqa: E402
from nnmeter_nas.graph.model_graph import output_names  # noqa: E402
from nnmeter_nas.nni import patch, unpatch  # noqa: E402
from nnmeter_nas.nni.events import Ended, Event, Submitted, from_record, to_record, unended  # noqa: E402
from nnmeter_nas.readers.nni.ir import read_nni_ir  # noqa: E402
from nnmeter_nas.search_spaces import spos  # noqa: E402
from nnmeter_nas.strategies import LatencyConstrainedRandom, LatencyFilter  # noqa: E402
from nnmeter_nas.strategies.table_lookup import CHECKED  # noqa: E402
from nnmeter_nas.supernet.nni_space import space_of  # noqa: E402
from work import WorkPredictor  # noqa: E402

pytestmark = pytest.mark.nni3

CPU = "cortexA76cpu_tflite21"
#: The latency that counts multiplications, which 26 of the 64 architectures of the small space are within.
WORK = 1.2


def small() -> Any:
    return spos("small", depths=(2, 1), channels=(16, 32))


@functools.cache
def limit() -> float:
    """The latency limit (ms) that 31 of the 64 architectures of the small space are within."""
    return limit_of(build_table(space_of(small()), load_latency_predictor(CPU)), 31)


def graph_space(space: Any) -> Any:
    return PytorchGraphModelSpace.from_model(space, None, tuple(space.input_shape))


FORMATS = {"graph": graph_space, "simplified": SimplifiedModelSpace.from_model,
           "raw": RawFormatModelSpace.from_model}


def output_shapes(graph: Any) -> list[tuple[int, ...]]:
    return [graph.nodes[name]["out_shapes"][0] for name in output_names(graph)]


class Mixed(ModelSpace):
    """Choices of 3.0: a layer, an argument, a depth."""

    def __init__(self) -> None:
        super().__init__()
        import nni

        width = nni.choice("width", [4, 12])
        self.first = MutableConv2d(3, width, 3, stride=nni.choice("stride", [1, 2]), padding=1)
        self.act = LayerChoice([MutableReLU(), MutableConv2d(width, width, 1)], label="act")
        self.last = MutableConv2d(width, 6, 1)
        self.tail = Repeat(lambda index: MutableConv2d(6, 6, 3), (1, 2), label="depth")

    def forward(self, x):
        return self.tail(self.last(self.act(self.first(x))))


def test_random_candidates_agree_with_torch() -> None:
    for space, shape in ((small(), (1, 3, 32, 32)), (Mixed(), (1, 3, 12, 16))):
        ir = PytorchGraphModelSpace.from_model(space, None, None)
        for _ in range(4):
            candidate = ir.random()
            expected = tuple(candidate.executable_model().eval()(torch.zeros(shape)).shape)
            assert output_shapes(read_nni_ir(candidate, shape)) == [expected]


def test_reading_leaves_the_model_as_it_was() -> None:
    candidate = graph_space(small()).random()
    before = candidate._dump()
    assert output_shapes(read_nni_ir(candidate)) == [(1, 10)]
    assert candidate._dump() == before


def test_a_space_with_an_open_choice_is_refused_by_its_label() -> None:
    with pytest.raises(ReaderError, match=r"layer_1.*still open"):
        read_nni_ir(graph_space(small()))


def test_all_model_formats_give_a_candidate_the_same_latency() -> None:
    accept = LatencyFilter(1e9, WorkPredictor())
    for make in FORMATS.values():
        sample = {"layer_1": "k3", "layer_2": "xception", "layer_3": "k7"}
        space = make(small())
        if make is graph_space:
            sample = {label: f"layerchoice_{label}_{block}" for label, block in sample.items()}
            space.simplify()
        assert accept(space.freeze(sample))
    first, second, third = accept.candidates
    assert first == second == third
    assert accept.latency_of(sample) == first.latency_ms


def search(strategy: Any, model_format: str, trials: int = 3) -> list[Any]:
    """Run ``strategy`` in NNI's own engine; a trial reports the number of its candidate's parameters."""
    space = FORMATS[model_format](small())
    space.evaluator = FunctionalEvaluator(_evaluate)
    engine = SequentialExecutionEngine(max_model_count=trials)
    strategy(space, engine)
    return list(engine.list_models())


def _evaluate(model: Any) -> float:
    import nni

    size = float(sum(p.numel() for p in model.parameters()))
    nni.report_final_result(size)
    return size


@pytest.mark.parametrize("model_format", ["graph", "simplified"])
@pytest.mark.parametrize("main", [Random, lambda: RegularizedEvolution(population_size=2, sample_size=1)],
                         ids=["random", "evolution"])
def test_a_search_tries_only_candidates_within_the_limit(main: Any, model_format: str) -> None:
    accept = LatencyFilter(WORK, WorkPredictor(), patience=200)
    models = search(Chain(main(), Filter(accept)), model_format)
    assert len(models) == accept.accepted == 3
    assert all(accept.latency_of(model.sample) <= WORK for model in models)


@pytest.mark.parametrize("model_format", ["simplified", "raw", "graph"])
def test_latencies_stay_the_same_once_they_are_looked_up(
    model_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    blocks = 3 * 4
    # A graph does not tell its space outside of an experiment.
    accept = LatencyFilter(1e9, CPU, space=small() if model_format == "graph" else None)
    space = FORMATS[model_format](small())
    models = [space.random() for _ in range(blocks + CHECKED + 4)]
    assert all(accept(model) for model in models[: blocks - 1 + CHECKED])
    with monkeypatch.context() as no_reading:
        no_reading.setattr(accept._predictor, "predict", None)
        assert all(accept(model) for model in models[blocks - 1 + CHECKED :])
    for model, one in zip(models, accept.candidates, strict=True):
        alone = LatencyFilter(1e9, CPU)
        assert alone(model)
        assert one.latency_ms == pytest.approx(alone.candidates[0].latency_ms, rel=1e-6)


def test_making_a_filter_leaves_nni_alone_until_an_experiment_starts() -> None:
    from nni.nas.experiment import NasExperiment
    from nni.nas.utils.serializer import TorchSerializer
    from nni.runtime.tuner_command_channel.channel import TunerCommandChannel

    def state() -> list[Any]:
        return [TunerCommandChannel._receive, TorchSerializer.load, TorchSerializer.save, Filter.state_dict]

    unpatch()
    original, start = state(), NasExperiment.start
    accept = LatencyFilter(5.0, WorkPredictor())
    assert state() == original
    with pytest.raises(AttributeError):  # all that runs of the experiment is its very beginning
        NasExperiment.start(accept)
    assert not set(state()) & set(original)
    unpatch()
    assert state() == original
    assert NasExperiment.start is start


def test_a_limit_nothing_meets_ends_the_search_with_the_fastest_seen() -> None:
    accept = LatencyFilter(0.001, WorkPredictor(), patience=5)
    with pytest.raises(SearchError, match=r"5 candidates in a row.*fastest takes"):
        search(Chain(Random(), Filter(accept)), "simplified")
    assert accept.seen == 5


def experiment(strategy: Any, folder: Path, trials: int = 3) -> NasExperiment:
    """An experiment whose trials run in this process."""
    space, evaluator = small(), FunctionalEvaluator(_evaluate)
    config = NasExperimentConfig(SequentialEngineConfig(), SimplifiedModelFormatConfig(), "local")
    config.max_trial_number = trials
    config.experiment_working_directory = folder
    return NasExperiment(space, evaluator, strategy, config)


@pytest.mark.parametrize("ours", [True, False])
def test_an_experiment_that_has_tried_all_candidates_says_why_it_ends(
    ours: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("nnmeter_nas.nni.endless._WARN_S", 0.0)

    def is_fast(candidate: Any) -> bool:
        return False

    accept = LatencyFilter(0.001, WorkPredictor())
    run = experiment(Chain(Random(seed=0), Filter(accept if ours else is_fast)), tmp_path)
    try:
        run.run(0)
    finally:
        run.stop()
        unpatch()
    name = "LatencyFilter" if ours else "is_fast"
    assert (
        f"the experiment ends after 0 of 3 trials: Random has nothing more to try; {name} accepted 0 of "
        in caplog.text
    )
    assert ("the fastest takes" in caplog.text) == ours
    assert ("is_fast rejected the last 9 candidates, and accepted 0 of all 9" in caplog.text) != ours


def test_an_experiment_that_has_run_its_trials_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    accept = LatencyFilter(1e9, WorkPredictor())
    run = experiment(Chain(Random(seed=0), Filter(accept)), tmp_path)
    try:
        run.run(0)
    finally:
        run.stop()
        unpatch()
    assert accept.accepted >= 3
    assert "nothing more to try" not in caplog.text


@pytest.mark.parametrize("model_format", [
    "simplified", "raw", pytest.param("graph", marks=pytest.mark.slow),
])  # fmt: skip
def test_strategies_search_every_model_format(model_format: str) -> None:
    strategy = LatencyConstrainedRandom(limit(), predictor=CPU, seed=0)
    models = search(strategy, model_format)
    ends = [event for event in strategy.events if isinstance(event, Ended)]
    assert [end.metric for end in ends] == [model.metric for model in models]
    assert len(models) == 3


def test_what_a_filter_rejects_is_told_as_failed() -> None:
    strategy = LatencyConstrainedRandom(limit(), predictor=CPU, seed=0)
    accept = LatencyFilter(WORK, WorkPredictor())
    models = search(Chain(strategy, Filter(accept)), "simplified", trials=2)
    ends = [event for event in strategy.events if isinstance(event, Ended)]
    assert accept.rejected > 0
    assert sum(end.failure == "a filter rejected it" for end in ends) == accept.rejected
    assert sum(end.metric is not None for end in ends) == accept.accepted == len(models)


@pytest.mark.parametrize("make", [
    lambda accept: Chain(Random(seed=0), Filter(accept)),
    lambda accept: Chain(
        RegularizedEvolution(population_size=2, sample_size=1, mutation_prob=0.5, seed=0), Filter(accept)
    ),
], ids=["random", "evolution"])  # fmt: skip
def test_a_filter_goes_on_counting_from_a_checkpoint(make: Any, tmp_path: Path) -> None:
    patch()  # as an experiment does when it starts
    accept = LatencyFilter(WORK, WorkPredictor(), patience=200)
    strategy = make(accept)
    models = search(strategy, "simplified")
    serializer = get_default_serializer()
    serializer.save(strategy.state_dict(), tmp_path / "state")
    again = LatencyFilter(WORK, WorkPredictor(), patience=200)
    resumed = make(again)
    resumed.load_state_dict(serializer.load(tmp_path / "state"))
    assert again.state_dict() == accept.state_dict()
    assert all(again.latency_of(model.sample) == accept.latency_of(model.sample) for model in models)
    more = search(resumed, "simplified")
    assert again.accepted == accept.accepted + len(more) == 6
    assert again.seen == again.accepted + again.rejected > accept.seen


def test_a_strategy_goes_on_from_a_checkpoint_whatever_its_seed() -> None:
    whole = LatencyConstrainedRandom(limit(), predictor=CPU)
    search(whole, "simplified", trials=4)
    first = LatencyConstrainedRandom(limit(), predictor=CPU, seed=whole.seed)
    search(first, "simplified", trials=2)
    resumed = LatencyConstrainedRandom(limit(), predictor=CPU)
    space = FORMATS["simplified"](small())
    space.evaluator = FunctionalEvaluator(_evaluate)
    engine = SequentialExecutionEngine(max_model_count=2)
    resumed.initialize(space, engine)
    resumed.load_state_dict(first.state_dict())
    resumed.run()
    assert resumed.events == whole.events


def test_a_strategy_that_cannot_be_resumed_leaves_the_checkpoint_alone() -> None:
    strategy = LatencyConstrainedRandom(limit(), predictor=CPU, seed=0)
    with pytest.raises(SearchError, match="has no state"):
        strategy.state_dict()
    strategy.initialize(FORMATS["simplified"](small()), SequentialExecutionEngine())
    architecture = {"layer_1": "k7", "layer_2": "k7", "layer_3": "xception"}
    with pytest.raises(SearchError, match="cannot be replayed"):
        strategy.load_state_dict({"seed": 0, "events": [to_record(Submitted(1, architecture, {}))]})
    with pytest.raises(SearchError, match="has no state"):
        strategy.state_dict()


def to_line(event: Event) -> str:
    return json.dumps(to_record(event))


def from_line(line: str) -> Event:
    return from_record(json.loads(line))


def interrupt(run: Run) -> None:
    """End an experiment in order, as Ctrl-C does."""
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(120) == 0, run.errors


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "model_format", "end"), [
    ("pareto", "simplified", interrupt), ("constrained", "graph", Run.kill),
], ids=["stopped", "killed"])  # fmt: skip
def test_a_resumed_experiment_neither_loses_nor_repeats_a_trial(
    strategy: str, model_format: str, end: Any, tmp_path: Path
) -> None:
    task = {"strategy": strategy, "format": model_format, "threshold": limit(), "trials": 5, "concurrency": 2}
    with Run("nni3_search", tmp_path, free=2, **task) as first:
        first.wait_for(lambda: ended(first) >= 2 and len(first.records) >= 5)  # a third trial is under way
        end(first)
    (tmp_path / "go").touch()
    with Run("nni3_search", tmp_path, resume=True, **task) as second:
        found = second.finished()
        assert second.left() == []
    before = list(map(from_record, first.records))
    # What was heard of at the very end, and not yet in the checkpoint, is heard of again.
    events = list(dict.fromkeys(map(to_line, before + list(map(from_record, second.records[:-1])))))
    submitted = [event for event in map(from_line, events) if isinstance(event, Submitted)]
    ends = [event for event in map(from_line, events) if isinstance(event, Ended)]
    assert sorted(event.number for event in submitted) == [1, 2, 3, 4, 5]
    assert sorted(event.number for event in ends) == [1, 2, 3, 4, 5]
    assert len({tuple(event.architecture.values()) for event in submitted}) == 5
    assert [job[0] for job in found["jobs"]] == ["SUCCEEDED"] * 5
    assert sorted(metric["default"] for _, metric in found["jobs"]) == sorted(e.metric for e in ends)
    ran = Counter(int(file.name.split("-")[0]) for file in (tmp_path / "ran").iterdir())
    done = [event.metric for event in before if isinstance(event, Ended)]
    assert [ran[int(size)] for size in done] == [1] * len(done)
    assert sum(ran.values()) <= 5 + len(unended(before))  # what was under way ran again


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "model_format"), [("random", "graph"), ("evolution", "simplified")])
def test_a_resumed_experiment_goes_on_filtering(strategy: str, model_format: str, tmp_path: Path) -> None:
    task = {"strategy": strategy, "format": model_format, "threshold": WORK, "trials": 4}
    ran = tmp_path / "ran"
    with Run("nni3_search", tmp_path, free=2, **task) as first:
        first.wait_for(lambda: ran.is_dir() and len(list(ran.iterdir())) >= 3)  # of which two have ended
        interrupt(first)
    (tmp_path / "go").touch()
    with Run("nni3_search", tmp_path, resume=True, **task) as second:
        found = second.finished()
        assert second.left() == []
    assert [job[0] for job in found["jobs"]] == ["SUCCEEDED"] * 4
    assert len(found["models"]) == len(found["latencies"]) == 4
    assert max(found["latencies"]) <= WORK
    assert found["accepted"] >= 4
    assert found["seen"] == found["accepted"] + found["rejected"]
