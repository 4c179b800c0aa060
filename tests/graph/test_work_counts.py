"""No work is repeated or wasted, and work grows linearly with the model; steps are counted, not timed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import networkx as nx
import numpy as np
import pytest

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.benchmarks.speed.synthetic import synthetic_graph
from nnmeter_nas.cli import main
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.traversal import reachable, topological_order
from nnmeter_nas.kernels.fusion import Kernel
from nnmeter_nas.packs import Pack
from nnmeter_nas.packs.latency import KernelLatency, KernelPredictors
from nnmeter_nas.packs.network import KernelNetwork
from nnmeter_nas.packs.registry import bundled_packs

DEVICE = "cortexA76cpu_tflite21"


@dataclass
class Counting:
    """Kernel predictors that record the kernels they are asked for."""

    inner: KernelPredictors
    calls: list[list[Kernel]] = field(default_factory=list)

    def covers(self, kernel: Kernel) -> bool:
        """As ``inner``."""
        return self.inner.covers(kernel)

    def latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """As ``inner``."""
        self.calls.append(list(kernels))
        return self.inner.latencies(kernels)

    @property
    def asked(self) -> list[Kernel]:
        """The kernels of all calls."""
        return [kernel for call in self.calls for kernel in call]


@pytest.fixture
def counting() -> tuple[LatencyPredictor, Counting]:
    """A new predictor, and the counter of the kernels it evaluates."""
    pack = load_latency_predictor(DEVICE).pack
    predictors = Counting(pack.predictors)
    return LatencyPredictor(Pack(pack.card, pack.rules, predictors)), predictors


def block_graph(*widths: int) -> nx.DiGraph:
    """A chain of convolutions with these widths."""
    graph = new_graph()
    last = add_input(graph, "x", (1, 8, 16, 16))
    for i, width in enumerate(widths):
        attrs = {"out_channels": width, "kernel": (3, 3), "padding": "same"}
        last = add_op(graph, f"relu{i}", "relu", [add_op(graph, f"conv{i}", "conv", [last], attrs)])
    return finish(graph)


def test_each_kernel_is_evaluated_once_for_all_candidates(
    counting: tuple[LatencyPredictor, Counting],
) -> None:
    predictor, predictors = counting
    predictor.predict(block_graph(16, 24, 32))
    assert [kernel.attrs["out_channels"] for kernel in predictors.asked] == [16, 24, 32]
    predictor.predict(block_graph(16, 24, 40))
    assert [kernel.attrs["out_channels"] for kernel in predictors.asked[3:]] == [40]
    list(predictor.predict_many([block_graph(16, 24, 32), block_graph(16, 24, 40)]))
    assert len(predictors.asked) == 4


def test_kernels_of_many_candidates_are_evaluated_in_one_call(
    counting: tuple[LatencyPredictor, Counting],
) -> None:
    predictor, predictors = counting
    graphs = [synthetic_graph(60, seed=seed) for seed in range(8)]
    list(predictor.predict_many(graphs))
    [asked] = predictors.calls
    kernels = [
        kernel for graph in graphs for _, kernel in predictor.pack.kernel_graph(graph).nodes(data="kernel")
    ]
    assert len(asked) == len({kernel.form for kernel in kernels})
    assert len({kernel.form for kernel in asked}) == len(asked)


def steps(run: Callable[[], object]) -> int:
    """Count the lines of Python that ``run`` executes, with each iteration of loops and comprehensions."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return local

    before = sys.gettrace()
    sys.settrace(local)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


def test_every_step_of_a_prediction_is_linear_in_the_operators() -> None:
    pack = load_latency_predictor(DEVICE).pack
    taken = []
    for operators in (200, 800):
        graph = synthetic_graph(operators)
        finishing = steps(lambda graph=graph: finish(graph))
        fusing = steps(lambda graph=graph: pack.kernel_graph(graph))
        predicting = steps(lambda graph=graph: LatencyPredictor(pack).predict(graph))
        taken.append((finishing, fusing, predicting))
    for small, large in zip(*taken, strict=True):
        assert large <= 4.4 * small


class Visits(dict[Any, Any]):
    """The outgoing edges of a node; they count how often they are visited."""

    walked = 0

    def __iter__(self) -> Any:
        Visits.walked += len(self)
        return super().__iter__()


class Walked(nx.DiGraph):
    """A graph that counts visits to its edges."""

    adjlist_inner_dict_factory = Visits


def test_traversals_visit_each_edge_a_fixed_number_of_times() -> None:
    graph = Walked(synthetic_graph(3000).edges)
    for walk, times in ((topological_order, 2), (lambda graph: reachable(graph, ["input"]), 1)):
        Visits.walked = 0
        walk(graph)
        assert Visits.walked == times * graph.number_of_edges()


_CHILD = """
import json, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
import nnmeter_nas
nnmeter_nas.load_latency_predictor("{device}")
print(json.dumps([opened, list(sys.modules)]))
"""


@pytest.fixture(scope="module")
def first_predictor() -> tuple[list[str], list[str]]:
    """Files that a new interpreter opens to load its first predictor, and modules it has imported then."""
    code = _CHILD.format(device=DEVICE)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    opened, modules = json.loads(run.stdout)
    return opened, modules


def test_loading_a_predictor_reads_only_its_own_pack(
    first_predictor: tuple[list[str], list[str]],
) -> None:
    packs = bundled_packs()
    opened = {Path(path) for path in first_predictor[0]}
    of_packs = {path for path in opened if packs in path.parents}
    [folder] = {path.parent for path in of_packs}
    assert folder.parent == packs / DEVICE
    assert of_packs == set(folder.iterdir())
    assert not any("luts" in path.parts for path in opened)


def test_loading_a_predictor_imports_nothing_heavy(first_predictor: tuple[list[str], list[str]]) -> None:
    heavy = {"torch", "nni", "sklearn", "scipy", "onnx", "tensorboard", "matplotlib", "httpx", "joblib"}
    assert not heavy & set(first_predictor[1])


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A live list: the number of kernels in each call to a bundled pack."""
    counts: list[int] = []
    latencies = KernelNetwork.latencies

    def counted(self: KernelNetwork, kernels: Sequence[Kernel]) -> Any:
        counts.append(len(kernels))
        return latencies(self, kernels)

    monkeypatch.setattr(KernelNetwork, "latencies", counted)
    return counts


@pytest.mark.parametrize("way", ["--fastest", "--slowest", "--closest=40"])
def test_ranking_a_space_predicts_nothing(
    evaluated: list[int], capsys: pytest.CaptureFixture[str], way: str
) -> None:
    assert main(["lut", "rank", "spos", way, "--top", "3", "--json"]) == 0
    assert "latency_ms" in capsys.readouterr().out
    assert evaluated == []


def test_evaluation_counter_counts_evaluations(evaluated: list[int]) -> None:
    load_latency_predictor(DEVICE).predict(block_graph(16, 24))
    assert evaluated == [2]


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
def test_a_filter_that_trusts_its_table_predicts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nni.retiarii", reason="filters what NNI 2.10 makes")
    from nni.nas.experiment.pytorch import preprocess_model
    from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model

    from nnmeter_nas.search_spaces import spos
    from nnmeter_nas.strategies import LatencyFilter
    from nnmeter_nas.strategies.table_lookup import CHECKED

    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    space = spos("small", depths=(2, 1), channels=(16, 32))
    read = 3 * 4 - 1 + CHECKED  # as many as there are blocks, then those that test the table
    base, mutators = preprocess_model(space, None, None, full_ir=False)
    choices, draw = dry_run_for_search_space(base, mutators), np.random.default_rng(0)
    candidates = [
        get_targeted_model(base, mutators, {key: str(draw.choice(known)) for key, known in choices.items()})
        for _ in range(read + 30)
    ]
    calls: list[str] = []
    for name in ("predict", "explain_many"):
        count_calls(monkeypatch, name, calls)
    accept = LatencyFilter(1e9, DEVICE)
    assert all(accept(candidate) for candidate in candidates[:read])
    assert calls.count("predict") == read
    calls.clear()
    assert all(accept(candidate) for candidate in candidates[read:])
    assert calls == []


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    """Record each call of a predictor's method ``name`` in ``calls``."""
    method = getattr(LatencyPredictor, name)

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return method(*arguments, **options)

    monkeypatch.setattr(LatencyPredictor, name, noted)
