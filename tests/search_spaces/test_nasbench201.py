"""NAS-Bench-201 is the published space on both NNI lines and engines; model graphs are of NNI's networks."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nni = pytest.importorskip("nni")

from learning import assert_learns  # noqa: E402
from nni_networks import assert_as_nni_makes_them, frozen  # noqa: E402
from nnmeter_nas import load_latency_predictor, read_model  # noqa: E402
from nnmeter_nas.costs import measures  # noqa: E402
from nnmeter_nas.packs.registry import devices  # noqa: E402
from nnmeter_nas.search_spaces import OPERATIONS, nasbench201  # noqa: E402
from nnmeter_nas.supernet.named import load_space, make_space  # noqa: E402
from work import millions_of_multiplications  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore")]

EDGES = ("edge_0_1", "edge_0_2", "edge_1_2", "edge_0_3", "edge_1_3", "edge_2_3")
#: What each operation does where it is on every edge: parameters of the CIFAR-10 network and, in millions,
#: multiplications, as published with the benchmark for the smallest and the largest.
PUBLISHED = {"skip_connect": (73_306, 7.78), "conv_3x3": (1_531_546, 220.1)}


@pytest.fixture(scope="module")
def space() -> Any:
    return load_space("nasbench201")


def test_a_cell_has_six_edges_of_five_operations(space: Any) -> None:
    assert set(space.candidates) == set(EDGES)
    assert set(space.candidates.values()) == {OPERATIONS}
    assert math.prod(map(len, space.candidates.values())) == 15_625
    assert space.input_shape == (1, 3, 32, 32)
    assert space.values == space.candidates


@pytest.mark.parametrize("operation", PUBLISHED)
def test_the_networks_are_of_the_published_size(space: Any, operation: str) -> None:
    parameters, millions = PUBLISHED[operation]
    network = frozen(nasbench201, dict.fromkeys(EDGES, operation))
    assert sum(p.numel() for p in network.parameters()) == parameters
    graph = space.model_graph(dict.fromkeys(EDGES, operation))
    assert millions_of_multiplications(graph) == pytest.approx(millions, rel=2e-3)


def test_model_graphs_are_of_the_networks_that_nni_makes(space: Any) -> None:
    assert_as_nni_makes_them(space, nasbench201, 3)
    assert_as_nni_makes_them(load_space("nasbench201-small"), lambda: nasbench201("small"), 5)


def test_all_cells_have_the_same_operations(space: Any) -> None:
    graph = space.model_graph({**dict.fromkeys(EDGES, "skip_connect"), "edge_0_3": "avg_pool_3x3"})
    pools = [d for _, d in graph.nodes(data=True) if d["op"] == "avgpool" and d["attrs"]["kernel"] == (3, 3)]
    assert len(pools) == 15


def test_operations_that_nothing_reads_cost_nothing(space: Any) -> None:
    rest = dict.fromkeys(EDGES, "none") | {"edge_0_3": "conv_1x1"}
    lost = space.model_graph(rest | {"edge_0_1": "conv_3x3"})  # a node that hands on to none
    assert len(lost) == len(space.model_graph(rest))


def test_a_network_whose_output_is_a_constant_takes_no_time(space: Any) -> None:
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    for cut in ("edge_0_1", "edge_0_2"):  # neither reaches the last node
        graph = space.model_graph(dict.fromkeys(EDGES, "none") | {cut: "conv_3x3"})
        assert predictor.explain(graph).latency_ms == 0.0


def test_a_network_learns() -> None:
    torch.manual_seed(0)
    chosen = dict.fromkeys(EDGES, "skip_connect") | {"edge_0_1": "conv_3x3", "edge_1_2": "none"}
    network = frozen(lambda: nasbench201("small", in_channels=1), chosen)
    assert_learns(network, (1, 16, 16), 0.01, 25)


MIXED = ("none", "conv_3x3", "avg_pool_3x3", "skip_connect", "conv_1x1", "conv_3x3")


@pytest.mark.slow
@pytest.mark.parametrize("operations", [MIXED, MIXED[::-1]])
def test_the_graph_engine_makes_the_same_networks(operations: tuple[str, ...]) -> None:
    """Cells of all stages share their labels, which the engine takes once it is patched."""
    small = {"input_size": 8, "channels": 4}
    chosen = dict(zip(EDGES, operations, strict=True))
    candidate, built = made_by_the_graph_engine(nasbench201("small", **small), chosen)
    expected = frozen(lambda: nasbench201("small", **small), chosen)
    assert sum(p.numel() for p in built.parameters()) == sum(p.numel() for p in expected.parameters())
    image = torch.rand(2, 3, 8, 8)
    assert built.eval()(image).shape == expected(image).shape == (2, 10)
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    read = [read_model(candidate, input_shape=(1, 3, 8, 8)), read_model(expected, input_shape=(1, 3, 8, 8))]
    latencies = [explained.latency_ms for explained in predictor.explain_many(read)]
    assert latencies[0] == pytest.approx(latencies[1], rel=1e-6)


def made_by_the_graph_engine(module: Any, chosen: dict[str, str]) -> tuple[Any, Any]:
    """The candidate that the graph engine of the installed line makes of a sample, and its network."""
    sample = {label: f"layerchoice_{label}_{name}" for label, name in chosen.items()}
    if hasattr(module, "freeze"):
        graph_space = importlib.import_module("nni.nas.space.pytorch").PytorchGraphModelSpace
        base = graph_space.from_model(module, None, tuple(module.input_shape))
        base.simplify()
        candidate = base.freeze(sample)
        return candidate, candidate.executable_model()
    converter = importlib.import_module("nni.nas.execution.pytorch.converter")
    script, dummy = torch.jit.script(module.eval()), torch.zeros(module.input_shape)
    traced = importlib.import_module(f"{converter.__name__}.graph_gen").GraphConverterWithShape()
    base = converter.convert_to_graph(script, module, traced, dummy_input=dummy)
    mutators = importlib.import_module("nni.nas.nn.pytorch.mutator").process_inline_mutation(base)
    targeted = importlib.import_module("nni.nas.strategy.utils").get_targeted_model
    candidate = targeted(base, mutators, {(mutator, 0): sample[mutator.label] for mutator in mutators})
    codegen = importlib.import_module("nni.nas.execution.pytorch.codegen")
    namespace: dict[str, Any] = {}
    exec(codegen.model_to_pytorch_script(candidate), namespace)
    return candidate, namespace["_model"]()


@pytest.mark.parametrize("size", ["", "-small"])
def test_latencies_of_all_cells_ship_with_the_package(
    size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "learn_tables", None)  # which would list them for minutes
    made = load_space(f"nasbench201{size}")
    predictors = [load_latency_predictor(device) for device in devices()]
    rows = np.random.default_rng(1).integers(5, size=(3, len(EDGES)))
    graphs = [made.model_graph(dict(zip(made.candidates, (OPERATIONS[i] for i in row), strict=True)))
              for row in rows]  # fmt: skip
    for predictor, measure in zip(predictors, measures.latencies(made, predictors), strict=True):
        assert measure.values(rows) == pytest.approx([predictor.predict(graph) for graph in graphs])


def test_the_small_space_is_made_by_name() -> None:
    made = make_space("nasbench201-small")
    assert type(made).__name__ == "NASBench201Space"
    assert made(torch.zeros(2, *made.input_shape[1:])).shape == (2, 10)


def test_overrides_reach_the_constructor() -> None:
    made = nasbench201("small", classes=7, in_channels=1, input_size=8, channels=4)
    labels = {part.label for part in made.modules() if "LayerChoice" in type(part).__name__}
    assert (made.input_shape, labels) == ((1, 1, 8, 8), set(EDGES))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"size": "large"}, "size='large'"),
    ({"input_size": 30}, "input_size=30"),
])
def test_impossible_spaces_are_refused_by_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nasbench201(**arguments)


def test_edges_join_earlier_nodes_to_later_ones() -> None:
    assert set(EDGES) == {f"edge_{start}_{end}" for start, end in itertools.combinations(range(4), 2)}
