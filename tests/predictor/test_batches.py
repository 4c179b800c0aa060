"""A batch that a model makes is priced for all its items; the batch of its inputs must be 1."""

from __future__ import annotations

import networkx as nx
import pytest

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.errors import ShapeError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.packs.registry import devices

pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")
CONV = {"kernel": (3, 3), "padding": "same", "out_channels": 32}
MAP = (1, 32, 28, 28)


@pytest.fixture(params=sorted(devices()))
def predictor(request: pytest.FixtureRequest) -> LatencyPredictor:
    """A predictor of each device."""
    return load_latency_predictor(request.param)


def convolutions(items: int) -> nx.DiGraph:
    """Copies of an input joined along the batch, and two convolutions over all of them."""
    graph = new_graph()
    last = add_input(graph, "x", MAP)
    if items > 1:
        last = add_op(graph, "batch", "concat", [last] * items, {"axis": 0})
    for name in ("first", "second"):
        last = add_op(graph, name, "conv", [last], CONV)
    return finish(graph)


def latency_of(predictor: LatencyPredictor, graph: nx.DiGraph, *names: str) -> float:
    nodes = predictor.explain_many([graph])[0].kernel_graph.nodes
    return sum(nodes[name]["latency_ms"] for name in names)


@pytest.mark.parametrize("items", [2, 8])
def test_every_item_of_a_batch_costs_about_as_much_as_one(predictor: LatencyPredictor, items: int) -> None:
    one = latency_of(predictor, convolutions(1), "first", "second")
    all_items = latency_of(predictor, convolutions(items), "first", "second")
    assert 0.6 * items * one < all_items < 1.3 * items * one


def test_a_batch_is_outside_the_range_measured(predictor: LatencyPredictor) -> None:
    found = predictor.explain_many([convolutions(2)])[0].kernel_graph.nodes
    assert {found[name]["basis"] for name in ("first", "second")} == {"extrapolated"}


def test_a_dense_layer_costs_the_same_wherever_its_positions_are(predictor: LatencyPredictor) -> None:
    latencies = []
    # Positions as a map, and as a batch, as recurrent networks have them.
    for order in ((0, 2, 1), (2, 0, 1)):
        graph = new_graph()
        turned = add_op(graph, "turn", "transpose", [add_input(graph, "x", (1, 64, 25))], {"perm": order})
        add_op(graph, "dense", "fc", [turned], {"in_features": 64, "out_features": 500})
        latencies.append(latency_of(predictor, finish(graph), "dense"))
    assert latencies[0] == pytest.approx(latencies[1])


def test_estimated_work_counts_for_every_item(predictor: LatencyPredictor) -> None:
    graph = new_graph()
    batch = add_op(graph, "batch", "concat", [add_input(graph, "x", MAP)] * 8, {"axis": 0})
    window = {**CONV, "padding": [(1, 1), (1, 1)]}
    add_op(graph, "eight", "convtranspose", [batch], window)
    add_op(graph, "one", "convtranspose", ["x"], window)
    one, eight = (latency_of(predictor, finish(graph), name) for name in ("one", "eight"))
    assert 2 * one < eight <= 8 * one


def inputs_of(*shapes: tuple[int, ...]) -> nx.DiGraph:
    """A graph with an operator on each of several inputs."""
    graph = new_graph()
    for i, shape in enumerate(shapes):
        add_op(graph, f"tanh{i}", "tanh", [add_input(graph, f"x{i}", shape)])
    return graph


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 1, 512), (2, 1, 128)),  # audio, and the state of a recurrent network of two layers
        ((1, 3, 64, 64), (4, 4)),  # an image, and boxes in it
        ((1, 3, 64, 64), (2,)),  # an image, and its size
        ((7,),),
    ],
)
def test_what_is_no_batch_may_have_any_size(shapes: tuple[tuple[int, ...], ...]) -> None:
    graph = finish(inputs_of(*shapes))
    assert [graph.nodes[f"tanh{i}"]["out_shapes"] for i in range(len(shapes))] == [[s] for s in shapes]


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (((8, 3, 64, 64),), "x0"),
        (((1, 4), (8, 3, 64, 64)), "x1"),  # an image tells its batch by itself
        (((32, 10),), "x0"),
        (((2, 16, 10), (2, 4)), "x0"),
    ],
)
def test_several_items_of_an_input_are_refused(shapes: tuple[tuple[int, ...], ...], name: str) -> None:
    with pytest.raises(ShapeError, match=rf"operator '{name}'.*batch is .*pass batch 1"):
        finish(inputs_of(*shapes))


def test_heads_are_multiplied_each_for_itself(predictor: LatencyPredictor) -> None:
    """A batch of products costs what its multiply-adds cost, wherever its axis is."""
    latencies = []
    for lead in ((1, 12), (12,)):
        graph = new_graph()
        factors = []
        for name, matrix in (("q", (196, 64)), ("k", (64, 196))):
            source = add_input(graph, name, (1, 12, *matrix))
            factors.append(add_op(graph, f"{name} seen", "reshape", [source], {"shape": (*lead, *matrix)}))
        add_op(graph, "scores", "matmul", factors)
        latencies.append(latency_of(predictor, finish(graph), "scores"))
    assert latencies[0] == pytest.approx(latencies[1], rel=0.05)
