"""Model graph: pruning keeps every live operator exactly once, and malformed graphs raise clear errors."""

from __future__ import annotations

import math
from functools import partial

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import unfinished_graph
from nnmeter_nas.errors import GraphError, ShapeError
from nnmeter_nas.graph import model_graph as graph_module
from nnmeter_nas.graph.model_graph import (
    add_input,
    add_op,
    finish,
    new_graph,
    output_names,
    set_outputs,
)
from nnmeter_nas.graph.shapes import infer_operator
from nnmeter_nas.graph.traversal import topological_order

SHAPE = (1, 4, 8, 8)
graph_of = partial(unfinished_graph, shape=SHAPE)


def operators(graph: nx.DiGraph) -> list[str]:
    return [name for name, op in graph.nodes(data="op") if op != "input"]


@st.composite
def random_graphs(draw: st.DrawFn) -> nx.DiGraph:
    """Unfinished graphs of operators with one shape: branches, joins, zeros, copies and dead ends."""
    graph = graph_of()
    names = ["x"]
    if draw(st.booleans()):
        names.append(add_input(graph, "y", SHAPE))
    for i in range(draw(st.integers(1, 14))):
        op = draw(st.sampled_from(["tanh", "tanh", "add", "add", "mul", "identity", "times_zero"]))
        inputs = [draw(st.sampled_from(names)) for _ in range(2 if op in ("add", "mul") else 1)]
        if op == "times_zero":
            names.append(add_op(graph, f"zero{i}", "mul", inputs, {"const": 0.0}))
        else:
            names.append(add_op(graph, f"{op}{i}", op, inputs))
    if draw(st.booleans()):
        set_outputs(graph, draw(st.lists(st.sampled_from(names[-3:]), min_size=1, unique=True)))
    return graph


def values(graph: nx.DiGraph, weights: dict[str, float]) -> dict[str, float]:
    """Value of each operator if the input were one positive number and each operator had its own weight."""
    result: dict[str, float] = {}
    for name in nx.topological_sort(graph):
        data = graph.nodes[name]
        operands = [result[producer] for producer, _ in data["inputs"]]
        if data["op"] == "input":
            result[name] = weights[name]
        elif data["op"] == "add":
            result[name] = sum(operands)
        else:
            factor = weights[name] if data["op"] != "identity" else 1.0
            result[name] = math.prod(operands) * factor * data["attrs"].get("const", 1.0)
    return result


@given(random_graphs())
def test_pruning_keeps_every_live_operator_exactly_once(graph: nx.DiGraph) -> None:
    # The logarithms of the weights are rationally independent, so no two paths give equal values.
    weights = {name: 1 + 1 / math.sqrt(i + 2) for i, name in enumerate(graph)}
    original, outputs = graph.copy(), list(output_names(graph))
    try:
        finish(graph)
    except GraphError:
        assert set(outputs) <= {"x", "y"}, "only a graph that hands its inputs on has no operators to keep"
        return
    before, after = values(original, weights), values(graph, weights)

    def is_live(name: str) -> bool:
        changed = values(original, {**weights, name: weights[name] * 2})
        return any(changed[o] != before[o] for o in outputs)

    weighed = {n for n, op in original.nodes(data="op") if op in ("tanh", "mul")}
    assert {n for n in operators(graph) if n in weighed} == {n for n in weighed if is_live(n)}
    assert {after[o] for o in graph.graph["outputs"]} == {before[o] for o in outputs} - {0.0}
    for name in operators(graph):
        data = graph.nodes[name]
        assert data["op"] != "identity"
        assert len(data["inputs"]) == len(original.nodes[name]["inputs"]) == len(data["in_shapes"])


@given(random_graphs())
def test_edges_match_operands(graph: nx.DiGraph) -> None:
    try:
        finish(graph)
    except GraphError:
        return
    for name, data in graph.nodes(data=True):
        slots = [(p, out, into) for p in graph.pred[name] for out, into in graph.edges[p, name]["slots"]]
        assert sorted(slots) == sorted((p, out, into) for into, (p, out) in enumerate(data["inputs"]))


def test_branch_without_output_is_pruned() -> None:
    graph = graph_of(("a", "relu", ["x"]), ("dead", "conv", ["x"], {"kernel": (3, 3), "out_channels": 8}),
                     ("deader", "relu", ["dead"]), outputs=["a"])
    assert operators(finish(graph)) == ["a"]


def test_branch_multiplied_by_zero_is_pruned_with_its_producers() -> None:
    graph = graph_of(("a", "relu", ["x"]), ("pool", "maxpool", ["a"], {"kernel": (1, 1)}),
                     ("none", "mul", ["pool"], {"const": 0.0}), ("bn", "sigmoid", ["x"]),
                     ("sum", "add", ["none", "bn"]), ("out", "relu", ["sum"]))
    finish(graph)
    assert operators(graph) == ["bn", "out"]
    assert graph.nodes["out"]["inputs"] == [("bn", 0)]


def test_zero_propagates_only_through_operators_that_keep_zero() -> None:
    graph = graph_of(("zero", "mul", ["x"], {"const": 0.0}), ("relu", "relu", ["zero"]),
                     ("sigmoid", "sigmoid", ["relu"]), ("live", "tanh", ["x"]),
                     ("join", "concat", ["live", "relu", "sigmoid"]))
    finish(graph)
    assert operators(graph) == ["live", "join"]
    assert graph.nodes["join"]["out_shapes"] == [(1, 12, 8, 8)]


def test_operand_subtracted_from_zero_stays() -> None:
    graph = graph_of(("zero", "mul", ["x"], {"const": 0.0}), ("relu", "relu", ["x"]),
                     ("negative", "sub", ["zero", "relu"]), ("same", "sub", ["relu", "zero"]),
                     outputs=["negative", "same"])
    finish(graph)
    assert operators(graph) == ["relu", "negative"]
    assert graph.graph["outputs"] == ["negative", "relu"]


def test_sum_with_a_broadcast_zero_stays() -> None:
    graph = graph_of(("small", "globalavgpool", ["x"]), ("zero", "mul", ["x"], {"const": 0.0}),
                     ("sum", "add", ["small", "zero"]))
    finish(graph)
    assert operators(graph) == ["small", "sum"]
    assert graph.nodes["sum"]["out_shapes"] == [SHAPE]


def test_all_zero_model_keeps_only_its_input() -> None:
    graph = finish(graph_of(("a", "relu", ["x"]), ("zero", "mul", ["a"], {"const": 0.0})))
    assert operators(graph) == []
    assert graph.graph["outputs"] == []


def test_identity_at_the_output_is_removed() -> None:
    graph = finish(graph_of(("a", "relu", ["x"]), ("b", "identity", ["a"]), ("c", "dropout", ["b"])))
    assert (operators(graph), graph.graph["outputs"]) == (["a"], ["a"])


def test_one_producer_may_feed_several_operands() -> None:
    graph = graph_of(("a", "relu", ["x"]), ("b", "identity", ["a"]), ("square", "mul", ["a", "b"]))
    finish(graph)
    assert graph.nodes["square"]["inputs"] == [("a", 0), ("a", 0)]
    assert graph.edges["a", "square"]["slots"] == [(0, 0), (0, 1)]


def test_outputs_of_a_split_feed_different_operators() -> None:
    graph = graph_of(("s", "split", ["x"], {"axis": 1, "sections": [1, 3]}), ("a", "identity", [("s", 1)]),
                     ("join", "concat", ["a", ("s", 0)]), ("relu", "relu", ["a"]))
    finish(graph)
    assert graph.nodes["join"]["inputs"] == [("s", 1), ("s", 0)]
    assert graph.nodes["relu"]["in_shapes"] == [(1, 3, 8, 8)]


def test_producers_may_come_after_their_consumers() -> None:
    graph = graph_of(("b", "sigmoid", ["a"]), ("a", "relu", ["x"]))
    assert finish(graph).nodes["b"]["out_shapes"] == [SHAPE]


def test_declared_shape_is_checked_and_not_trusted() -> None:
    graph = finish(graph_of(("a", "relu", ["x"], {}, [(1, 4, 9, 9)])))
    assert graph.nodes["a"]["out_shapes"] == [SHAPE]
    assert graph.graph["shape_mismatches"] == [("a", [(1, 4, 9, 9)], [SHAPE])]


def test_unknown_operator_with_a_declared_shape_is_kept() -> None:
    graph = finish(graph_of(("odd", "nonesuch", ["x"], {}, [(1, 2)]), ("relu", "relu", ["odd"])))
    assert operators(graph) == ["odd", "relu"]
    assert graph.nodes["relu"]["out_shapes"] == [(1, 2)]


CONV = {"kernel": (3, 3), "out_channels": 8}


@pytest.mark.parametrize(
    ("graph", "node", "message"),
    [
        (graph_of(), None, "empty"),
        (new_graph(), None, "empty"),
        (graph_of(("a", "relu", ["ghost"])), "a", "operand 'ghost' does not exist"),
        (graph_of(("a", "relu", ["c"]), ("b", "relu", ["a"]), ("c", "relu", ["b"])), "a",
         "cyclic: a -> b -> c -> a"),
        (graph_of(("a", "add", ["a", "x"])), "a", "cyclic: a -> a"),
        (graph_of(("a", "relu", ["x"]), ("c", "constant", [], {"shape": (1, 4)}), outputs=["c"]), None,
         r"disconnected.*\['x'\].*\['c'\]"),
        (graph_of(("a", "relu", ["x"]), outputs=["b"]), None, "declared output 'b' does not exist"),
    ],
)
def test_malformed_graph_is_rejected(graph: nx.DiGraph, node: str | None, message: str) -> None:
    with pytest.raises(GraphError, match=message) as error:
        finish(graph)
    assert error.value.node == node


def test_graph_without_an_input_is_rejected() -> None:
    graph = new_graph()
    add_op(graph, "c", "constant", [], {"shape": (1, 4)})
    with pytest.raises(GraphError, match="no input"):
        finish(graph)


def test_duplicate_name_is_rejected() -> None:
    with pytest.raises(GraphError, match="operator 'a': the name is used twice"):
        graph_of(("a", "relu", ["x"]), ("a", "relu", ["x"]))


@pytest.mark.parametrize(
    ("graph", "node", "message"),
    [
        (graph_of(("a", "relu", ["x"]), shape=(8, 3, 8, 8)), "x", "batch is 8"),
        (graph_of(("a", "relu", ["x"]), shape=(1, 3, -1, 8)), "x", "positive"),
        (graph_of(("a", "conv", ["x"], {**CONV, "in_channels": 3})), "a", "take 3 channels, its input has 4"),
        (graph_of(("a", "conv", ["x"], {**CONV, "groups": 3})), "a", "groups=3 does not divide"),
        (graph_of(("a", "conv", ["x"], {**CONV, "kernel": (3, 9)})), "a", "leaves an empty tensor"),
        (graph_of(("a", "conv", ["x"], {**CONV, "kernel": (3,)})), "a", "do not fit a map of 2 spatial"),
        (graph_of(("a", "conv", ["x"], {**CONV, "stride": (0, 1)})), "a", "stride"),
        (graph_of(("a", "conv", ["x"], {"kernel": (3, 3)})), "a", "KeyError: 'out_channels'"),
        (graph_of(("a", "conv", ["x"], {**CONV, "groups": 0})), "a", "groups=0 does not divide"),
        (graph_of(("a", "relu", ["x", "x"])), "a", "takes one operand, got 2"),
        (graph_of(("a", "relu", [("x", 1)])), "a", "operand 'x' has no output 1"),
        (graph_of(("a", "relu", [("x", -1)])), "a", "operand 'x' has no output -1"),
        (graph_of(("a", "fc", ["x"], {"in_features": 9, "out_features": 2})), "a", "take 9 features"),
        (graph_of(("p", "globalavgpool", ["x"]), ("a", "concat", ["x", "p"])), "a", "differ outside axis 1"),
        (graph_of(("a", "reshape", ["x"], {"shape": (1, 5)})), "a", "cannot reshape"),
        (graph_of(("a", "split", ["x"], {"sections": 3})), "a", "does not split into 3"),
        (graph_of(("a", "conv", ["x"], {**CONV, "groups": 4}), ("b", "add", ["a", "x"])), "b", "broadcast"),
        (graph_of(("a", "channelshuffle", ["x"], {"groups": 3})), "a", "groups=3"),
    ],
)
def test_error_for_a_bad_shape_names_the_operator(graph: nx.DiGraph, node: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as error:
        finish(graph)
    assert error.value.node == node


def test_an_input_without_a_shape_is_an_error() -> None:
    graph = new_graph()
    add_op(graph, "x", "input", [])
    add_op(graph, "a", "relu", ["x"])
    with pytest.raises(ShapeError, match="'x': input shape None is missing"):
        finish(graph)


def test_convolution_with_one_group_per_channel_is_depthwise() -> None:
    graph = graph_of(("a", "conv", ["x"], {**CONV, "groups": 4}), ("b", "conv", ["a"], {**CONV, "groups": 2}))
    finish(graph)
    assert [graph.nodes[n]["op"] for n in "ab"] == ["dwconv", "conv"]


def test_very_long_chain_does_not_recurse() -> None:
    graph = new_graph()
    last = add_input(graph, "x", SHAPE)
    for i in range(20_000):
        last = add_op(graph, f"n{i}", "identity" if i % 2 else "tanh", [last])
    assert len(operators(finish(graph))) == 10_000


def test_very_long_cycle_is_found() -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    for i in range(20_000):
        add_op(graph, f"n{i}", "add", [f"n{(i - 1) % 20_000}", "x"])
    with pytest.raises(GraphError, match="cyclic"):
        finish(graph)


def test_x_times_its_sigmoid_is_a_swish_in_either_order() -> None:
    for operands in (["source", "gate"], ["gate", "source"]):
        graph = new_graph()
        add_input(graph, "x", (1, 3, 8, 8))
        add_op(graph, "source", "relu", ["x"])
        add_op(graph, "gate", "sigmoid", ["source"])
        add_op(graph, "product", "mul", operands)
        finish(graph)
        assert [op for _, op in graph.nodes(data="op")] == ["input", "relu", "swish"]
        assert graph.graph["outputs"] == ["product"]


def test_sigmoid_with_another_consumer_is_kept() -> None:
    graph = new_graph()
    add_input(graph, "x", (1, 3, 8, 8))
    add_op(graph, "gate", "sigmoid", ["x"])
    add_op(graph, "product", "mul", ["x", "gate"])
    set_outputs(graph, ["product", "gate"])
    assert {op for _, op in finish(graph).nodes(data="op")} == {"input", "sigmoid", "mul"}


def test_concat_of_concats_along_one_axis_is_one_concat() -> None:
    graph = finish(graph_of(
        ("a", "relu", ["x"]), ("b", "relu6", ["x"]),
        ("inner", "concat", ["a", "b"]),
        ("outer", "concat", ["x", "inner", "inner"], {"axis": -3}),
    ))  # fmt: skip
    assert graph.nodes["outer"]["inputs"] == [("x", 0), ("a", 0), ("b", 0), ("a", 0), ("b", 0)]
    assert graph.nodes["outer"]["out_shapes"] == [(1, 20, 8, 8)]
    assert "inner" not in graph


def test_concats_along_different_axes_or_with_other_consumers_are_kept() -> None:
    for operators in (
        [("inner", "concat", ["x", "x"], {"axis": 2}), ("outer", "concat", ["inner", "inner"], {"axis": 1})],
        [("inner", "concat", ["x", "x"], {"axis": 1}), ("also", "relu", ["inner"]),
         ("outer", "concat", ["inner", "also"], {"axis": 1})],
    ):  # fmt: skip
        assert "inner" in finish(graph_of(*operators))


def test_concat_of_one_operand_is_removed() -> None:
    graph = finish(graph_of(("alone", "concat", ["x"], {"axis": 1}), ("relu", "relu", ["alone"])))
    assert [op for _, op in graph.nodes(data="op")] == ["input", "relu"]


def test_finish_sorts_the_operators_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[nx.DiGraph] = []

    def counting(graph: nx.DiGraph) -> list[str]:
        walks.append(graph)
        return topological_order(graph)

    monkeypatch.setattr(graph_module, "topological_order", counting)
    graph = new_graph()
    last = add_input(graph, "x", (1, 8, 8, 8))
    for i in range(4):
        relu = add_op(graph, f"relu {i}", "relu", ["x"])
        dropped = add_op(graph, f"dropped {i}", "dropout", [relu])
        last = add_op(graph, f"concat {i}", "concat", [dropped, last])
    finish(graph)
    assert len(walks) == 1
    assert set(graph) == {"x", *(f"relu {i}" for i in range(4)), "concat 3"}


def test_shapes_inferred_by_a_reader_are_kept() -> None:
    graph = new_graph()
    add_op(graph, "y", "reshape", [add_input(graph, "x", (1, 8, 4))], {"shape": (1, -1)})
    for name in graph:
        infer_operator(graph, name)
    graph.nodes["y"]["attrs"]["shape"] = (7,)  # finish would reject it if it inferred again
    assert finish(graph, {"x", "y"}).nodes["y"]["out_shapes"] == [(1, 32)]
