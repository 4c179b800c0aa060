"""What follows an operator of unknown shape is marked, and known again where the graph tells its shape."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.graph.unknown import UNKNOWN_WORK, is_unknown, mark_unknown
from nnmeter_nas.kernels.fusion import fuse, parse_rules

MAP = (1, 8, 6, 5)
CONV = {"kernel": (1, 1), "in_channels": 8, "out_channels": 4}


def after(*ops: tuple[Any, ...], known: Any = None) -> nx.DiGraph:
    """An unknown operator ``odd`` on the input ``x``, and a chain of operators after it.

    Each is ``(op, attrs)``, with the shape that the model declares for it if there is one.
    """
    graph = new_graph()
    attrs: dict[str, Any] = {}
    if known is not None:
        mark_unknown(attrs, known)
    last = add_op(graph, "odd", "odd", [add_input(graph, "x", MAP)], attrs)
    for i, (op, given, *declared) in enumerate(ops):
        last = add_op(graph, f"{op}{i}", op, [last], given, declared or None)
    return finish(graph)


def operators(graph: nx.DiGraph) -> list[str]:
    return [op for _, op in graph.nodes(data="op")][2:]


def test_an_operator_that_nothing_describes_is_unknown_and_what_follows_keeps_its_name() -> None:
    graph = after(("conv", CONV), ("relu", {}))
    assert graph.nodes["odd"]["attrs"] == {UNKNOWN_WORK: "batch"}
    assert operators(graph) == ["conv of unknown size", "relu of unknown size"]
    assert all(is_unknown(graph, (name, slot)) for name in ("odd", "conv0", "relu1") for slot in (0, 3))


@pytest.mark.parametrize("declared", [MAP, (1, 5)])
def test_a_declared_shape_makes_the_rest_known(declared: tuple[int, ...]) -> None:
    graph = after(("conv", CONV, declared), ("relu", {}))
    assert operators(graph) == ["conv of unknown size", "relu"]
    assert graph.nodes["relu1"]["in_shapes"] == [declared]
    assert graph.nodes["conv0"]["attrs"][UNKNOWN_WORK] == "shape"


def test_views_of_an_unknown_tensor_make_no_kernel() -> None:
    graph = after(("flatten", {}), ("identity", {}), ("reshape", {"shape": (1, 4, 2)}, (1, 4, 2)))
    assert operators(graph) == ["given"] * 3
    assert list(fuse(graph, parse_rules([]))) == ["odd"]


@pytest.mark.parametrize(("known", "last"), [(None, "fc"), ("nothing", "fc of unknown size")])
@pytest.mark.parametrize("rows", ["flatten", "globalavgpool"])
def test_a_layer_knows_the_length_of_a_row_but_not_how_many_data_selects(
    known: Any, last: str, rows: str
) -> None:
    graph = after((rows, {}), ("relu", {}), ("fc", {"in_features": 9, "out_features": 3}), known=known)
    assert operators(graph)[-1] == last
    assert graph.nodes["fc2"]["out_shapes"] == [(1, 3) if last == "fc" else ()]


def test_a_convolution_of_a_map_of_unknown_size_stays_unknown_and_of_a_pooled_one_does_not() -> None:
    assert operators(after(("conv", CONV))) == ["conv of unknown size"]
    graph = after(("globalavgpool", {}), ("conv", CONV))
    assert graph.nodes["conv1"]["out_shapes"] == [(1, 4, 1, 1)]


@pytest.mark.parametrize("shape", [MAP, (1, 8, 1, 1), (8,)])
def test_a_sum_has_the_shape_of_an_operand_that_no_other_can_enlarge(shape: tuple[int, ...]) -> None:
    graph = new_graph()
    add_op(graph, "odd", "odd", [add_input(graph, "x", MAP)])
    other = add_op(graph, "other", "relu", [add_input(graph, "z", shape)])
    add_op(graph, "sum", "add", ["odd", other])
    finish(graph)
    is_told = shape == MAP
    assert graph.nodes["sum"]["op"] == ("add" if is_told else "add of unknown size")
    assert graph.nodes["sum"]["out_shapes"] == [MAP if is_told else ()]


def test_no_rule_fuses_or_rewrites_an_operator_of_unknown_size() -> None:
    graph = after(("conv", CONV), ("sigmoid", {}), ("relu", {}))
    rules = parse_rules(["conv->sigmoid", "conv->relu", "sigmoid->relu", "odd->conv"])
    assert [kernel.type for _, kernel in fuse(graph, rules).nodes(data="kernel")] == [
        "odd", "conv of unknown size", "sigmoid of unknown size", "relu of unknown size",
    ]  # fmt: skip
