"""NNI 3.0: its graph model space is read, and its Filter middleware takes the latency filter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
spaces = pytest.importorskip("nni.nas.space", reason="reads and filters what NNI 3.0 makes")

from nni.nas.execution.sequential import SequentialExecutionEngine  # noqa: E402
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableReLU, Repeat  # noqa: E402
from nni.nas.space import RawFormatModelSpace, SimplifiedModelSpace  # noqa: E402
from nni.nas.space.pytorch import PytorchGraphModelSpace  # noqa: E402
from nni.nas.strategy import Random, RegularizedEvolution  # noqa: E402
from nni.nas.strategy.middleware import Chain, Filter  # noqa: E402
from work import WorkPredictor  # noqa: E402

from nnmeter_nas.errors import ReaderError, SearchError  # noqa: E402
from nnmeter_nas.graph import output_names  # noqa: E402
from nnmeter_nas.readers.nni_ir import read_nni_ir  # noqa: E402
from nnmeter_nas.search_spaces import spos  # noqa: E402
from nnmeter_nas.strategies import LatencyFilter  # noqa: E402

pytestmark = pytest.mark.nni3

TESTS = Path(__file__).resolve().parents[1]


def small() -> Any:
    return spos("small", depths=(2, 1), channels=(16, 32))


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
    from nni.nas.evaluator import FunctionalEvaluator

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
    accept = LatencyFilter(2.0, WorkPredictor(), patience=200)
    models = search(Chain(main(), Filter(accept)), model_format)
    assert len(models) == accept.accepted == 3
    assert all(accept.latency_of(model.sample) <= 2.0 for model in models)


def test_a_limit_nothing_meets_ends_the_search_with_the_fastest_seen() -> None:
    accept = LatencyFilter(0.001, WorkPredictor(), patience=5)
    with pytest.raises(SearchError, match=r"5 candidates in a row.*fastest takes"):
        search(Chain(Random(), Filter(accept)), "simplified")
    assert accept.seen == 5


@pytest.mark.slow
def test_a_real_experiment_ends_within_the_limit(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "nni3")]),
                   "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-c", "import nni3_search; nni3_search.main()", str(tmp_path), "2.0"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    assert report["models"] == report["accepted"] == 2
    assert max(report["latencies"]) <= 2.0
