"""Peak memory is what a simulation of the run finds, and what runtimes take on small networks."""

from __future__ import annotations

import math

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import graph_of, squeeze_excite
from nnmeter_nas.graph.memory import (
    ONNXRUNTIME,
    TFLITE,
    MemoryRules,
    execution_order,
    memory_by_step,
    peak_memory,
    size_by_operator,
    unknown_tensors,
    weights_size,
)

CONV = {"kernel": (3, 3), "stride": (1, 1), "padding": "same"}
#: Bytes of the input of most graphs here: 8 channels of 8 times 8 values.
INPUT = 4 * 8 * 8 * 8


@st.composite
def graphs(draw: st.DrawFn) -> nx.DiGraph:
    """Chains and branches of operators that keep the size of the map, or change its channels."""
    made, channels = ["x"], {"x": 8}
    operators = []
    for number in range(draw(st.integers(1, 9))):
        name = f"op{number}"
        kind = draw(st.sampled_from(["conv", "relu", "gelu", "add", "concat", "reshape", "bn"]))
        first = draw(st.sampled_from(made))
        equal = [one for one in made if channels[one] == channels[first]]
        operands, attrs, width = [first], {}, channels[first]
        if kind == "conv":
            width = draw(st.sampled_from([4, 8, 16]))
            attrs = {**CONV, "out_channels": width}
        elif kind in ("add", "concat"):
            operands.append(draw(st.sampled_from(equal)))
            width *= 2 if kind == "concat" else 1
        elif kind == "reshape":
            attrs = {"shape": (1, width, 8, 8)}
        operators.append((name, kind, operands, attrs))
        made.append(name)
        channels[name] = width
    return graph_of(*operators)


def simulated(graph: nx.DiGraph, rules: MemoryRules) -> int:
    """Peak of a run that looks at each step who still needs what, from the end of the run back to it."""
    order = execution_order(graph, rules.last_first)
    nodes = dict(graph.nodes(data=True))
    holds: dict[str, str] = {}
    sizes: dict[str, int] = {}
    peak = 0

    def needed(memory: str, later: list[str]) -> bool:
        """Whether an operator among ``later`` reads this memory, directly or through a view."""
        if any(holds.get(name) == memory and (nodes[name]["op"] == "input" or name in graph.graph["outputs"])
               for name in order):
            return True
        views = {name for name, at in holds.items() if at == memory}
        for name in later:
            if views & {producer for producer, _ in nodes[name]["inputs"]}:
                return True
            if nodes[name]["op"] == "reshape" and views & {nodes[name]["inputs"][0][0]}:
                views.add(name)
        return False

    for step, name in enumerate(order):
        data, later = nodes[name], order[step + 1 :]
        size = 4 * sum(map(math.prod, data["out_shapes"]))
        operands = [producer for producer, _ in data["inputs"]]
        folds = data["op"] == "bn" and nodes[operands[0]]["op"] == "conv" and (
            graph.out_degree(operands[0]) == 1 and operands[0] not in graph.graph["outputs"]
        )
        holds[name] = name
        if data["op"] == "reshape" or folds:
            holds[name] = holds[operands[0]]
        elif data["op"] in rules.in_place:
            for operand in operands:
                alone = graph.out_degree(operand) == 1 or not rules.sole_reader
                memory = holds[operand]
                if alone and sizes[memory] == size and not needed(memory, later):
                    holds[name] = memory
                    break
        sizes.setdefault(holds[name], size)
        reading = {holds[operand] for operand in operands} | {holds[name]}
        there = {memory for memory in sizes if memory in reading or needed(memory, later)}
        peak = max(peak, sum(sizes[memory] for memory in there))
    return peak


@pytest.mark.parametrize("rules", [
    MemoryRules(ONNXRUNTIME.in_place, last_first=True), MemoryRules(frozenset()), TFLITE,
])  # fmt: skip
@given(graph=graphs())
def test_peak_is_that_of_a_simulated_run(rules: MemoryRules, graph: nx.DiGraph) -> None:
    assert peak_memory(graph, rules) == simulated(graph, rules)


@given(graph=graphs())
def test_sums_in_place_never_take_more(graph: nx.DiGraph) -> None:
    apart = MemoryRules(ONNXRUNTIME.in_place, last_first=True)
    assert peak_memory(graph) <= peak_memory(graph, apart)


def test_the_input_stays_and_relu_overwrites_but_gelu_does_not() -> None:
    conv = ("conv", "conv", ["x"], {**CONV, "out_channels": 8})
    assert peak_memory(graph_of(conv, ("y", "relu", ["conv"]))) == 2 * INPUT
    assert peak_memory(graph_of(conv, ("y", "gelu", ["conv"]))) == 3 * INPUT


def test_a_convolution_writes_over_what_it_is_added_to() -> None:
    block = (
        ("before", "conv", ["x"], {**CONV, "out_channels": 8}),
        ("wide", "conv", ["before"], {**CONV, "out_channels": 8}),
        ("bn", "bn", ["wide"]),
        ("y", "add", ["before", "bn"]),
    )
    assert peak_memory(graph_of(*block)) == 2 * INPUT
    assert peak_memory(graph_of(*block), TFLITE) == 3 * INPUT


def test_only_padding_unlike_that_of_tensorflow_makes_a_copy_in_tensorflow_lite() -> None:
    def network(padding: object) -> nx.DiGraph:
        attrs = {"kernel": (3, 3), "stride": (2, 2), "padding": padding, "out_channels": 8}
        return graph_of(("y", "conv", ["x"], attrs))

    out, padded = INPUT // 4, 4 * 8 * 10 * 10
    assert peak_memory(network("same"), TFLITE) == INPUT + out
    assert peak_memory(network([(0, 1), (0, 1)]), TFLITE) == INPUT + out
    assert peak_memory(network([(1, 1), (1, 1)]), TFLITE) == INPUT + padded + out
    assert peak_memory(network([(1, 1), (1, 1)])) == INPUT + out


def test_the_order_of_branches_is_that_of_the_runtime() -> None:
    graph = graph_of(
        ("a", "conv", ["x"], {**CONV, "out_channels": 8}),
        ("b", "conv", ["x"], {**CONV, "out_channels": 8}),
        ("y", "concat", ["a", "b"]),
    )
    assert execution_order(graph) == ["x", "a", "b", "y"]
    assert execution_order(graph, last_first=True) == ["x", "b", "a", "y"]


def test_every_step_names_its_tensors() -> None:
    graph = graph_of(("conv", "conv", ["x"], {**CONV, "out_channels": 4}), ("y", "relu", ["conv"]))
    assert list(memory_by_step(graph)) == [
        ("x", {"x": INPUT}),
        ("conv", {"x": INPUT, "conv": INPUT // 2}),
        ("y", {"x": INPUT, "conv": INPUT // 2}),
    ]


def test_a_model_of_halves_takes_half() -> None:
    graph, halves = squeeze_excite(), squeeze_excite()
    halves.graph["value_bytes"] = 2
    for measure in (peak_memory, weights_size):
        assert 2 * measure(halves) == measure(graph) > 0
    assert sum(size_by_operator(graph).values()) == weights_size(graph)


def test_tensors_of_unknown_size_are_named() -> None:
    graph = graph_of(("odd", "fourier", ["x"]), ("y", "relu", ["odd"]))
    assert set(unknown_tensors(graph)) == {"odd", "y"}
    assert unknown_tensors(squeeze_excite()) == {}
