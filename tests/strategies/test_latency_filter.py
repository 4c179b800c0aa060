"""A search tries only candidates within the latency limit, and ends when there are none."""

from __future__ import annotations

import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="filters what NNI 2.10 makes; tests/nni has the other line")

from nni.nas.experiment.pytorch import RetiariiExperiment, preprocess_model  # noqa: E402
from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model  # noqa: E402
from nni.retiarii import model_wrapper  # noqa: E402
from nni.retiarii.nn import pytorch as nn  # noqa: E402

from experiments import LIMIT_S, Run  # noqa: E402
from layout import HELPERS, REPOSITORY  # noqa: E402
from nni_candidates import make_candidates  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas import nni as nni_lines  # noqa: E402
from nnmeter_nas.costs.measures import latency  # noqa: E402
from nnmeter_nas.errors import ReaderError, SearchError, SpaceError, UnknownDeviceError  # noqa: E402
from nnmeter_nas.nni import build_module, patch, unpatch  # noqa: E402
from nnmeter_nas.search_spaces import nasbench201, spos  # noqa: E402
from nnmeter_nas.solve.ranking import latency_reach  # noqa: E402
from nnmeter_nas.strategies import LatencyFilter  # noqa: E402
from nnmeter_nas.strategies.table_lookup import CHECKED  # noqa: E402
from nnmeter_nas.supernet.named import load_space  # noqa: E402
from work import WorkPredictor  # noqa: E402

ENGINES = ("graph", "py")
CPU = "cortexA76cpu_tflite21"


@pytest.fixture(scope="module", params=ENGINES)
def candidates(request: pytest.FixtureRequest) -> list[Any]:
    return make_candidates(spos("small", depths=(2, 1), channels=(16, 32)), request.param, 12)


def latencies(candidates: list[Any]) -> list[float]:
    everything = LatencyFilter(1e9, WorkPredictor())
    assert all(everything(model) for model in candidates)
    return [candidate.latency_ms for candidate in everything.candidates]


def test_both_engines_give_a_candidate_the_same_latency() -> None:
    space = spos("small", depths=(2, 1), channels=(16, 32))
    graph, py = (latencies(make_candidates(space, engine, 6)) for engine in ENGINES)
    assert graph == py
    assert len(set(graph)) > 1


def test_only_candidates_within_the_limit_pass_and_all_are_counted(candidates: list[Any]) -> None:
    known = latencies(candidates)
    limit = sorted(known)[5]
    accept = LatencyFilter(limit, WorkPredictor())
    assert [accept(model) for model in candidates] == [latency <= limit for latency in known]
    assert accept.accepted == len(accept.candidates) == sum(latency <= limit for latency in known)
    assert (accept.seen, accept.rejected, accept.unreadable) == (12, 12 - accept.accepted, 0)
    assert (accept.fastest_ms, accept.slowest_ms) == (min(known), max(known))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_confident_filter_keeps_what_is_within_the_limit_with_its_whole_interval(
    candidates: list[Any], reverse: bool
) -> None:
    predictor = load_latency_predictor(CPU)
    every = LatencyFilter(1e9, predictor)
    assert all(every(model) for model in candidates)
    known = [candidate.latency_ms for candidate in every.candidates]
    limit = sorted(known)[8 if reverse else 3] * (0.999 if reverse else 1.001)
    bold, sure = (
        LatencyFilter(limit, predictor, reverse=reverse, confident=confident) for confident in (False, True)
    )
    kept_by_bold, kept_by_sure = ([accept(model) for model in candidates] for accept in (bold, sure))
    assert any(kept_by_bold)
    assert kept_by_sure != kept_by_bold
    assert all(kept for kept, is_sure in zip(kept_by_bold, kept_by_sure, strict=True) if is_sure)
    factor = 0.5 if reverse else 2.0
    assert LatencyFilter(limit * factor, predictor, reverse=reverse, confident=True)(candidates[0])
    assert pickle.loads(pickle.dumps(sure)).confident


def test_a_confident_filter_needs_a_predictor_that_knows_intervals() -> None:
    with pytest.raises(ValueError, match=r"confident=True needs .* from version 2\.1"):
        LatencyFilter(5.0, CPU, 2.0, confident=True)
    with pytest.raises(ValueError, match="confident=True"):
        LatencyFilter(5.0, WorkPredictor(), confident=True)


def test_reverse_really_reverses(candidates: list[Any]) -> None:
    limit = sorted(latencies(candidates))[5]
    accept, reverse = (LatencyFilter(limit, WorkPredictor(), reverse=flag) for flag in (False, True))
    assert [reverse(model) for model in candidates] == [not accept(model) for model in candidates]
    assert 0 < reverse.accepted < len(candidates)


def test_latency_of_an_exported_candidate_is_found(candidates: list[Any]) -> None:
    from nni.nas.execution.common import get_mutation_dict

    accept = LatencyFilter(1e9, WorkPredictor())
    for model in candidates:
        accept(model)
    for model, known in zip(candidates, latencies(candidates), strict=True):
        assert accept.latency_of(get_mutation_dict(model)) == known
    assert set(accept.candidates[0].sample) == {"layer_1", "layer_2", "layer_3"}
    assert accept.candidates[0].sample["layer_1"] in ("k3", "k5", "k7", "xception")
    with pytest.raises(KeyError, match="layer_1=k9"):
        accept.latency_of({"layer_1": "k9"})


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The candidates whose networks were built."""
    found: list[Any] = []

    def counting(candidate: Any) -> Any:
        found.append(candidate)
        return build_module(candidate)

    monkeypatch.setattr(nni_lines, "build_module", counting)
    return found


def predicted(models: list[Any]) -> list[float]:
    """Latencies of candidates without operators, each built and read whole."""
    device = load_latency_predictor(CPU)
    modules = map(build_module, models)
    return [device.predict(module, input_shape=module.input_shape) for module in modules]


def test_a_table_is_built_once_it_pays_and_found_again(
    built: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    space = spos("small", depths=(2, 1), channels=(16, 32))
    blocks = 3 * 4
    models = make_candidates(space, "py", blocks + 20)
    known = predicted(models)
    first = LatencyFilter(1e9, CPU)
    assert all(first(model) for model in models)
    assert len(built) == blocks - 1 + CHECKED
    assert [one.latency_ms for one in first.candidates] == pytest.approx(known, rel=1e-6)
    second = LatencyFilter(1e9, CPU)
    assert all(second(model) for model in models)
    assert len(built) == blocks - 1 + 2 * CHECKED
    assert [one.latency_ms for one in second.candidates] == pytest.approx(known, rel=1e-6)
    # The candidates of another space with the same choices are others.
    wider = make_candidates(spos("small", depths=(2, 1), channels=(32, 64)), "py", 2)
    assert all(second(model) for model in wider)
    assert len(built) == blocks - 1 + 2 * CHECKED + 2
    assert [one.latency_ms for one in second.candidates[-2:]] == pytest.approx(predicted(wider), rel=1e-6)


def test_a_bundled_table_is_used_from_the_start(built: list[Any], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    models = make_candidates(nasbench201("small"), "py", CHECKED + 4)
    known = predicted(models)
    built.clear()
    accept = LatencyFilter(1e9, CPU)
    assert all(accept(model) for model in models)
    assert len(built) == CHECKED
    assert [one.latency_ms for one in accept.candidates] == pytest.approx(known, rel=1e-6)
    assert not list(tmp_path.rglob("*.npz")) + list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("make", [str, load_space, lambda name: nasbench201("small")],
                         ids=["name", "Space", "module"])
def test_candidates_of_the_graph_engine_are_looked_up_in_the_space_given(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = make_candidates(nasbench201("small"), "graph", CHECKED + 2)
    read = LatencyFilter(1e9, CPU)
    assert all(read(model) for model in models)
    looked_up = LatencyFilter(1e9, CPU, space=make("nasbench201-small"))
    assert all(looked_up(model) for model in models[:CHECKED])
    monkeypatch.setattr(looked_up._predictor, "predict", None)
    assert all(looked_up(model) for model in models[CHECKED:])
    found, known = ([one.latency_ms for one in each.candidates] for each in (looked_up, read))
    assert found == pytest.approx(known, rel=1e-6)


def test_candidates_of_the_graph_engine_are_looked_up_in_the_space_of_the_experiment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = nasbench201("small")
    read, looked_up = LatencyFilter(1e9, CPU), LatencyFilter(1e9, CPU)
    models = make_candidates(space, "graph", CHECKED + 2)
    assert all(read(model) for model in models)
    experiment = RetiariiExperiment(space, print, [], None)
    try:
        with pytest.raises(AttributeError):  # all that runs of the experiment is its very beginning
            experiment.run(SimpleNamespace(), 0)
    finally:
        unpatch()
    assert all(looked_up(model) for model in models[:CHECKED])
    monkeypatch.setattr(looked_up._predictor, "predict", None)
    assert all(looked_up(model) for model in models[CHECKED:])
    found, known = ([one.latency_ms for one in each.candidates] for each in (looked_up, read))
    assert found == pytest.approx(known, rel=1e-6)


def test_a_space_that_is_not_the_candidates_own_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    models = make_candidates(nasbench201("small"), "py", 3)
    with caplog.at_level(logging.INFO):
        accept = LatencyFilter(1e9, CPU, space="nasbench201")
        assert all(accept(model) for model in models)
    assert [one.latency_ms for one in accept.candidates] == pytest.approx(predicted(models))
    assert "read whole, and not looked up: the table says" in caplog.text


def test_an_unknown_space_is_an_error() -> None:
    [model] = make_candidates(spos("small", depths=(1,), channels=(16,)), "py", 1)
    with pytest.raises(SpaceError, match="spos-smal"):
        LatencyFilter(1e9, CPU, space="spos-smal")(model)


@model_wrapper
class Joined(torch.nn.Module):
    """A space that adds up two of its tensors, as DARTS cells do."""

    input_shape = (1, 3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.pick = nn.InputChoice(n_candidates=2, n_chosen=2, reduction="sum", label="pick")
        self.c = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.c(self.pick([x, self.b(x)]))


def test_candidates_of_both_engines_cost_the_same() -> None:
    costs = []
    for engine in ENGINES:
        accept = LatencyFilter(1e9, CPU, strict=True)
        assert all(accept(model) for model in make_candidates(Joined(), engine, 3))
        costs.append([one.latency_ms for one in accept.candidates])
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)


@pytest.mark.parametrize("candidates", ["graph"], indirect=True)
def test_candidates_with_operators_are_read(candidates: list[Any]) -> None:
    accept = LatencyFilter(1e9, CPU)
    assert all(accept(model) for _ in range(3) for model in candidates)
    assert accept.accepted == 3 * len(candidates)


def test_a_limit_nothing_meets_ends_the_search_with_the_fastest_seen(candidates: list[Any]) -> None:
    fastest = f"{min(latencies(candidates[:4])):.4g} ms"
    accept = LatencyFilter(0.001, WorkPredictor(), patience=4)
    assert [accept(model) for model in candidates[:3]] == [False] * 3
    with pytest.raises(SearchError, match=rf"4 candidates in a row.*0\.001 ms.*fastest takes {fastest}"):
        accept(candidates[3])


def test_a_limit_that_no_architecture_of_the_table_meets_ends_the_search_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    models = make_candidates(nasbench201("small"), "py", CHECKED + 4)
    accept = LatencyFilter(1e6, CPU, reverse=True)
    with pytest.raises(SearchError, match=r"slower than 1e.06 ms: the slowest takes .*set threshold below"):
        any(accept(model) for model in models)
    accept = LatencyFilter(0.5, CPU)
    monkeypatch.setattr(accept._table, "reach", lambda: (0.75, 2.0))
    monkeypatch.setattr(accept, "_latency", lambda model, sample: 1.0)
    with pytest.raises(SearchError, match=r"within 0\.5 ms: the fastest takes 0\.75 ms.*at or above"):
        accept(models[0])


def test_what_runs_nothing_meets_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cell whose output is zero, nothing runs; a limit that only such cells meet is met by none."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    base, mutators = preprocess_model(nasbench201("small"), None, None, full_ir=False)
    choices = dry_run_for_search_space(base, mutators)
    [empty] = [get_targeted_model(base, mutators, {key: names[0] for key, names in choices.items()})]
    accept = LatencyFilter(1e9, CPU)
    assert not accept(empty)
    assert accept.fastest_ms is None
    assert "all that could be read run nothing" in accept.verdict()
    tight = LatencyFilter(0.05, CPU)
    with pytest.raises(SearchError, match=r"within 0\.05 ms: the fastest takes 0\.0838\d? ms"):
        any(tight(model) for model in make_candidates(nasbench201("small"), "py", CHECKED + 30))
    assert tight.seen < CHECKED + 10


def test_page_on_searches_quotes_what_the_filter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load_latency_predictor(CPU)
    table = latency(load_space("spos-small"), predictor).table
    assert table is not None
    accept = LatencyFilter(0.5, predictor)
    monkeypatch.setattr(accept._table, "reach", lambda: latency_reach(table))
    monkeypatch.setattr(accept, "_latency", lambda model, sample: 1.0)
    monkeypatch.setattr("nnmeter_nas.nni.sample_of", lambda model: {})
    with pytest.raises(SearchError) as error:
        accept(object())
    page = (REPOSITORY / "docs" / "search.md").read_text(encoding="utf-8")
    before, fastest, after = re.split(r"([\d.]+)(?= ms, predicted)", str(error.value))
    quoted = re.search(rf"{re.escape(before)}([\d.]+){re.escape(after)}", " ".join(page.split()))
    assert quoted is not None
    # Packs that are trained anew may move the figure by a little.
    assert float(quoted[1]) == pytest.approx(float(fastest), rel=0.1)


def test_long_silence_is_broken_by_a_warning(
    candidates: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnmeter_nas.strategies.latency_filter._WARN_S", 0.0)
    accept = LatencyFilter(0.001, WorkPredictor())
    assert not accept(candidates[0])
    assert "none within 0.001 ms" in caplog.text
    assert "raise the threshold" in caplog.text


def test_a_long_trial_is_no_silence(candidates: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    known = latencies(candidates)
    fast, slow = candidates[known.index(min(known))], candidates[known.index(max(known))]
    accept = LatencyFilter(min(known), WorkPredictor())
    assert accept(fast)
    accept._quiet_since -= 1000  # the trial of the fast one took so many seconds
    assert not accept(slow)
    assert "the search goes on" not in caplog.text


def test_patience_counts_rejections_in_a_row_only(candidates: list[Any]) -> None:
    known = latencies(candidates)
    fast, slow = candidates[known.index(min(known))], candidates[known.index(max(known))]
    accept = LatencyFilter(min(known), WorkPredictor(), patience=2)
    assert [accept(model) for model in (slow, fast, slow, fast, slow)] == [False, True, False, True, False]
    with pytest.raises(SearchError):
        accept(slow)


@model_wrapper
class Unreadable(torch.nn.Module):
    """A space with one candidate that cannot be built."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.LayerChoice([nn.ReLU(), nn.Sigmoid()], label="act")
        if not isinstance(self.act, (nn.LayerChoice, nn.ReLU)):
            raise RuntimeError("no memory for this one")

    def forward(self, x: Any) -> Any:
        return self.act(x)


def test_an_unreadable_candidate_is_rejected_by_name_or_raises_when_strict(
    caplog: pytest.LogCaptureFixture,
) -> None:
    base, mutators = preprocess_model(Unreadable(), None, None, full_ir=False)
    [(key, names)] = dry_run_for_search_space(base, mutators).items()
    relu, sigmoid = (get_targeted_model(base, mutators, {key: name}) for name in names)
    accept = LatencyFilter(1.0, WorkPredictor(), input_shape=(1, 3, 8, 8), patience=2)
    with caplog.at_level(logging.WARNING):
        assert accept(relu)
        assert not accept(sigmoid)
    assert (accept.seen, accept.accepted, accept.rejected, accept.unreadable) == (2, 1, 1, 1)
    assert "act=1" in caplog.text
    assert "no memory for this one" in caplog.text
    with pytest.raises(ReaderError, match="no memory for this one"):
        LatencyFilter(1.0, WorkPredictor(), input_shape=(1, 3, 8, 8), strict=True)(sigmoid)
    with pytest.raises(SearchError, match="no candidate could be read"):
        LatencyFilter(1.0, WorkPredictor(), input_shape=(1, 3, 8, 8), patience=1)(sigmoid)


def test_a_module_without_a_known_input_shape_asks_for_one() -> None:
    base, mutators = preprocess_model(Unreadable(), None, None, full_ir=False)
    [(key, names)] = dry_run_for_search_space(base, mutators).items()
    with pytest.raises(ValueError, match="pass input_shape"):
        LatencyFilter(1.0, WorkPredictor())(get_targeted_model(base, mutators, {key: names[0]}))


def test_it_pickles_as_its_arguments_within_the_limit_of_nni(candidates: list[Any]) -> None:
    shape = (1, 3, 32, 32)
    accept = LatencyFilter(1e9, WorkPredictor(), None, True, patience=7, strict=True, input_shape=shape)
    accept(candidates[0])
    data = cloudpickle.dumps(accept)
    assert len(data) < 1024
    again = pickle.loads(data)
    assert (again.threshold, again.reverse, again.patience, again.strict) == (1e9, True, 7, True)
    assert again.input_shape == shape
    assert again.seen == 0


@pytest.mark.parametrize(("arguments", "message"), [
    ({"threshold": 0}, "threshold=0"),
    ({"threshold": float("nan")}, "threshold=nan"),
    ({"threshold": "5ms"}, "threshold='5ms'"),
    ({"threshold": 5.0, "patience": 0}, "patience=0"),
])
def test_impossible_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyFilter(predictor=WorkPredictor(), **arguments)


def test_something_that_cannot_predict_is_refused() -> None:
    with pytest.raises(TypeError, match="predictor=42"):
        LatencyFilter(5.0, 42)


def test_an_unknown_device_is_refused_before_the_search_starts() -> None:
    with pytest.raises(UnknownDeviceError, match="cortexA76"):
        LatencyFilter(5.0, "cortexA77")


def test_making_a_filter_leaves_nni_alone_until_an_experiment_starts() -> None:
    """Guards the patches: remove one once NNI no longer needs it."""
    code = """
import gc, sys, types
from nni.common.serializer import PayloadTooLarge
import nni.nas.experiment.pytorch as experiment
from nni.nas.execution.common.integration import RetiariiAdvisor
from nnmeter_nas.nni import patch, unpatch
from nnmeter_nas.search_spaces import nasbench201, spos
from nnmeter_nas.strategies import LatencyFilter
from work import WorkPredictor

space = spos("small", depths=(1,), channels=(16,))
_, mutators = experiment.preprocess_model(space, None, None, dummy_input=[1, 3, 32, 32])

class Large:
    def __init__(self):
        self.data = bytes(range(256)) * 64

def fails(payload):
    try:
        return not experiment.dump(payload)
    except PayloadTooLarge:
        return True

def state():
    return experiment.dump, RetiariiAdvisor.process_queued_callbacks

def start_experiment():
    # All that runs of an experiment is its very beginning, which finds no configuration.
    try:
        experiment.RetiariiExperiment(space, print, [], None).run(types.SimpleNamespace(), 0)
    except AttributeError:
        pass

original, run = state(), experiment.RetiariiExperiment.run
start_experiment()
assert state() == original and fails(mutators)
accept = LatencyFilter(5.0, WorkPredictor())
assert state() == original and fails(mutators)
start_experiment()
patched = state()
assert not set(patched) & set(original)
assert not fails(mutators) and fails([Large()]) and fails(Large())
LatencyFilter(5.0, WorkPredictor())
start_experiment()
patch()
assert state() == patched
unpatch()
assert state() == original and experiment.RetiariiExperiment.run is run
again = LatencyFilter(5.0, WorkPredictor())
del accept, again
gc.collect()
start_experiment()
assert state() == original  # an experiment that none of ours is part of
"""
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "strategy"), [("graph", "random"), ("py", "evolution"),
                                                  ("graph", "evolution"), ("py", "random")])
def test_a_real_experiment_tries_only_candidates_within_the_limit(
    engine: str, strategy: str, tmp_path: Path
) -> None:
    with Run("nni_search", tmp_path, engine=engine, strategy=strategy, threshold=2.9) as run:
        report = run.finished()
        assert run.left() == []
    assert report["accepted"] == 2
    assert report["seen"] == report["accepted"] + report["rejected"]
    assert report["unreadable"] == 0
    assert max(report["latencies"]) <= 2.9
    assert report["best_latency_ms"] in report["latencies"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_real_experiment_that_cannot_meet_the_limit_ends_and_says_why(engine: str, tmp_path: Path) -> None:
    task = {"engine": engine, "strategy": "random", "threshold": 0.5, "patience": 10}
    with Run("nni_search", tmp_path, **task) as run:
        assert run.process.wait(LIMIT_S) == 1
        assert "SearchError: 10 candidates in a row were rejected, none within 0.5 ms" in run.errors
        assert run.left() == []


@pytest.mark.slow
def test_a_real_experiment_that_has_tried_all_candidates_ends_and_says_why(tmp_path: Path) -> None:
    task = {"engine": "py", "strategy": "random", "small": True, "threshold": 0.1}
    with Run("nni_search", tmp_path, **task) as run:
        report = run.finished()
        assert run.left() == []
    assert report["seen"] == report["rejected"] > 50  # of 64, so patience lasts
    assert report["jobs"] == []
    assert "ends after 0 of 2 trials: Random has nothing more to try; LatencyFilter accepted 0" in run.errors
    assert "the fastest takes" in run.errors


@pytest.fixture
def patched_nni() -> Iterator[None]:
    patch()
    yield
    unpatch()


@pytest.mark.usefixtures("patched_nni")
def test_silence_of_a_filter_of_ones_own_is_broken_by_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nni.nas.strategy import bruteforce, evolution

    monkeypatch.setattr("nnmeter_nas.nni.endless._WARN_S", 0.0)

    def below(limit: float) -> Callable[[float], bool]:
        def is_fast(ms: float) -> bool:
            return ms < limit

        return is_fast

    is_fast, accept = below(2.0), LatencyFilter(0.001, WorkPredictor())
    monkeypatch.setattr(LatencyFilter, "__call__", lambda self, model: False)
    assert [evolution.filter_model(is_fast, ms) for ms in (1.0, 3.0)] == [True, False]
    assert "is_fast rejected the last 1 candidates, and accepted 1 of all 2" in caplog.text
    caplog.clear()
    assert not bruteforce.filter_model(accept, 1.0)
    assert bruteforce.filter_model(None, 1.0)
    assert caplog.text == ""
