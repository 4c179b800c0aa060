"""Fusion puts each operator into one kernel, by the device's rules, with work linear in the graph."""

from __future__ import annotations

import copy
import sys
from types import FrameType
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import SHAPE, graph_of
from nnmeter_nas.benchmarks.parity.predictors import nnmeter_rules
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from nnmeter_nas.graph.traversal import topological_order
from nnmeter_nas.kernels import fusion
from nnmeter_nas.kernels.configuration import Configuration, configuration
from nnmeter_nas.kernels.fusion import FusionRules, Kernel, fuse, parse_rules
from nnmeter_nas.ops import VIEW_OPS
from nnmeter_nas.packs.nnmeter1.rules import parse_nnmeter_rules
from nnmeter_nas.packs.registry import devices

CPU, GPU, GPU_630, VPU = (
    "cortexA76cpu_tflite21",
    "adreno640gpu_tflite21",
    "adreno630gpu_tflite21",
    "myriadvpu_openvino2019r2",
)
DEVICES = (CPU, GPU, GPU_630, VPU)
RULES: dict[str, FusionRules] = {
    name: parse_rules(about["fusion_rules"]) for name, about in devices().items()
}
#: The same in nn-Meter's rule files, where pairs have another meaning.
RULES |= {
    f"{name} 1.0": parse_nnmeter_rules(nnmeter_rules(about["fusion_rules"]))
    for name, about in devices().items()
}
#: Those of a device that runs attention as one kernel.
ATTENTION = "attention"
RULES[ATTENTION] = parse_rules(["attention", "conv->bn", "conv->relu", "add->relu"])

CONV: dict[str, Any] = {"kernel": (3, 3), "padding": "same", "out_channels": 8}
ONE_BY_ONE: dict[str, Any] = {"kernel": (1, 1), "out_channels": 8}
#: Operators that keep :data:`SHAPE`, with their attributes.
UNARY: dict[str, dict[str, Any]] = {
    "conv": CONV,
    "dwconv": {**CONV, "groups": 8},
    "bn": {},
    "relu": {},
    "relu6": {},
    "hswish": {},
    "sigmoid": {},
    "maxpool": {"kernel": (3, 3), "padding": "same"},
}
#: Forms of h-swish in models: ``(operator, inputs, attrs)`` after ``x``, named 0, 1, ... in order.
HSWISH_SPELLINGS: dict[str, list[tuple[str, list[str], dict[str, float]]]] = {
    "x * (relu6(x + 3) * 1/6)": [
        ("add", ["x"], {"const": 3.0}),
        ("relu6", ["0"], {}),
        ("mul", ["1"], {"const": 1 / 6}),
        ("mul", ["x", "2"], {}),
    ],
    "(relu6(x + 3) / 6) * x": [
        ("add", ["x"], {"const": 3.0}),
        ("relu6", ["0"], {}),
        ("div", ["1"], {"const": 6.0}),
        ("mul", ["2", "x"], {}),
    ],
    "x * relu6(x + 3) / 6": [
        ("add", ["x"], {"const": 3.0}),
        ("relu6", ["0"], {}),
        ("mul", ["x", "1"], {}),
        ("div", ["2"], {"const": 6.0}),
    ],
    "relu6(x + 3) * x * 0.16667": [
        ("add", ["x"], {"const": 3.0}),
        ("relu6", ["0"], {}),
        ("mul", ["1", "x"], {}),
        ("mul", ["2"], {"const": 0.16667}),
    ],
    "x * clip(x + 3) / 6": [
        ("add", ["x"], {"const": 3.0}),
        ("clip", ["0"], {}),
        ("mul", ["x", "1"], {}),
        ("div", ["2"], {"const": 6.0}),
    ],
    "x * hsigmoid(x)": [("hsigmoid", ["x"], {}), ("mul", ["x", "0"], {})],
    "hsigmoid(x) * x": [("hsigmoid", ["x"], {}), ("mul", ["0", "x"], {})],
    "hswish(x)": [("hswish", ["x"], {})],
}


def add_hswish(graph: nx.DiGraph, prefix: str, source: str, spelling: str) -> list[str]:
    """Add an h-swish and return the names of its operators."""
    name_of = {"x": source}
    for i, (op, inputs, attrs) in enumerate(HSWISH_SPELLINGS[spelling]):
        name_of[str(i)] = add_op(graph, f"{prefix}.{i}", op, [name_of[n] for n in inputs], attrs)
    return [name for key, name in name_of.items() if key != "x"]


def add_squeeze_excite(
    graph: nx.DiGraph, prefix: str, source: str, dense: bool = False, gate: str = "sigmoid"
) -> list[str]:
    """Add a squeeze-excite block of :data:`SHAPE` and return the names of its operators."""
    names = [add_op(graph, f"{prefix}.pool", "globalavgpool", [source], {"keepdims": not dense})]
    for i, width in enumerate((2, 8)):
        attrs = {"out_features": width} if dense else {"kernel": (1, 1), "out_channels": width}
        names.append(add_op(graph, f"{prefix}.{i}", "fc" if dense else "conv", names[-1:], attrs))
        if i == 0:
            names.append(add_op(graph, f"{prefix}.relu", "relu", names[-1:]))
    if gate == "relu6":
        names.append(add_op(graph, f"{prefix}.add", "add", names[-1:], {"const": 3.0}))
        names.append(add_op(graph, f"{prefix}.relu6", "relu6", names[-1:]))
        names.append(add_op(graph, f"{prefix}.sixth", "mul", names[-1:], {"const": 1 / 6}))
    else:
        names.append(add_op(graph, f"{prefix}.gate", gate, names[-1:]))
    if dense:
        names.append(add_op(graph, f"{prefix}.unflatten", "reshape", names[-1:], {"shape": (1, 8, 1, 1)}))
    return [*names, add_op(graph, f"{prefix}.product", "mul", [source, names[-1]])]


def add_shuffle(graph: nx.DiGraph, prefix: str, source: str) -> list[str]:
    """Add a channel shuffle of two groups and return the names of its operators."""
    split = add_op(graph, f"{prefix}.split", "reshape", [source], {"shape": (1, 2, 4, 8, 8)})
    swap = add_op(graph, f"{prefix}.swap", "transpose", [split], {"perm": (0, 2, 1, 3, 4)})
    return [split, swap, add_op(graph, f"{prefix}.join", "reshape", [swap], {"shape": SHAPE})]


#: Where attention scales and masks its scores, in models.
ATTENTIONS = ("scaled scores", "divided scores", "scaled factors", "scaled query", "mask")


def add_attention(
    graph: nx.DiGraph, prefix: str, source: str, spelling: str, turned: bool = True
) -> list[str]:
    """Add an attention over :data:`SHAPE` of eight heads, and return the names of its operators.

    Args:
        graph, prefix, source: where to add it.
        spelling: one of :data:`ATTENTIONS`.
        turned: whether query, value and result are transposed.
    """

    def add(name: str, op: str, *inputs: str, **attrs: Any) -> str:
        return add_op(graph, f"{prefix}.{name}", op, inputs, attrs)

    query = key = value = source
    names = []
    if turned:
        names = [add(name, "transpose", source, perm=(0, 2, 1, 3)) for name in ("query", "value")]
        query, value = names
    if spelling in ("scaled factors", "scaled query"):
        query = add("scale_query", "mul", query, const=0.6)
        names.append(query)
    key = add("key", "transpose", key, perm=(0, 1, 3, 2))
    if spelling == "scaled factors":
        key = add("scale_key", "mul", key, const=0.6)
        names.append(key)
    names.append(add("scores", "matmul", query, key))
    if spelling == "divided scores":
        names.append(add("scale", "div", names[-1], const=2.8))
    if spelling in ("scaled scores", "mask"):
        names.append(add("scale", "mul", names[-1], const=0.35))
    if spelling == "mask":
        names.append(add("mask", "add", names[-1], const_shape=(8, 8)))
    names.append(add("weights", "softmax", names[-1], axis=-1))
    names.append(add("mix", "matmul", names[-1], value))
    return [*names, add("back", "transpose", names[-1], perm=(0, 2, 1, 3))] if turned else names


def kernels(graph: nx.DiGraph, device: str) -> list[Kernel]:
    return [kernel for _, kernel in fuse(graph, RULES[device]).nodes(data="kernel")]


def types(graph: nx.DiGraph, device: str = CPU) -> list[str]:
    """Kernel types, sorted."""
    return sorted(kernel.type for kernel in kernels(graph, device))


@st.composite
def random_graphs(draw: st.DrawFn) -> nx.DiGraph:
    """Finished graphs with branches, joins, views, several outputs and the patterns that fusion matches."""
    graph = new_graph()
    names = [add_input(graph, "x", SHAPE)]
    kinds = [*UNARY, "add", "mul", "concat", "views", "spelt", "se", "attention", "shuffle"]
    for i in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(kinds))
        source = draw(st.sampled_from(names[-4:]))
        if kind in UNARY:
            names.append(add_op(graph, f"{kind}{i}", kind, [source], UNARY[kind]))
        elif kind in ("add", "mul"):
            names.append(add_op(graph, f"{kind}{i}", kind, [source, draw(st.sampled_from(names))]))
        elif kind == "concat":
            joined = add_op(graph, f"concat{i}", "concat", [source, draw(st.sampled_from(names))])
            names.append(add_op(graph, f"narrow{i}", "conv", [joined], ONE_BY_ONE))
        elif kind == "views":
            flat = add_op(graph, f"flat{i}", "reshape", [source], {"shape": (1, 8, 64)})
            names.append(add_op(graph, f"back{i}", "reshape", [flat], {"shape": SHAPE}))
        elif kind == "spelt":
            # Operators inside a pattern may have other consumers; then the pattern does not match.
            names += add_hswish(graph, f"hswish{i}", source, draw(st.sampled_from([*HSWISH_SPELLINGS])))
        elif kind == "se":
            members = add_squeeze_excite(
                graph, f"se{i}", source, draw(st.booleans()), draw(st.sampled_from(["sigmoid", "relu6"]))
            )
            names.append(members[-1])
        elif kind == "attention":
            spelling = draw(st.sampled_from(ATTENTIONS))
            names += add_attention(graph, f"attention{i}", source, spelling, draw(st.booleans()))[-2:]
        else:
            names.append(add_shuffle(graph, f"shuffle{i}", source)[-1])
    if draw(st.booleans()):
        set_outputs(graph, draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=3, unique=True)))
    return finish(graph)


@given(random_graphs(), st.sampled_from(sorted(RULES)))
def test_every_operator_runs_in_exactly_one_kernel(graph: nx.DiGraph, device: str) -> None:
    members = [m for kernel in kernels(graph, device) for m in kernel.members]
    assert len(members) == len(set(members))
    costly = {name for name, op in graph.nodes(data="op") if op not in VIEW_OPS | {"input"}}
    assert costly <= set(members) <= {name for name, op in graph.nodes(data="op") if op != "input"}


@given(random_graphs(), st.sampled_from(sorted(RULES)))
def test_kernel_graph_is_acyclic_and_keeps_every_dependency(graph: nx.DiGraph, device: str) -> None:
    fused = fuse(graph, RULES[device])
    assert nx.is_directed_acyclic_graph(fused)
    owner = {m: name for name, kernel in fused.nodes(data="kernel") for m in kernel.members}
    needed = {
        (owner[a], owner[b])
        for a in owner
        for b in nx.descendants(graph, a)
        if b in owner and owner[a] != owner[b]
    }
    reachable = {(a, b) for a in fused for b in nx.descendants(fused, a)}
    assert needed <= reachable
    for a, b in fused.edges:
        assert (a, b) in needed, "kernels that do not depend on each other are connected"


@given(random_graphs(), st.sampled_from(sorted(RULES)))
def test_other_kernels_read_only_the_last_operator_of_a_kernel(graph: nx.DiGraph, device: str) -> None:
    for kernel in kernels(graph, device):
        inside = set(kernel.members)
        if kernel.op != "attention":
            assert kernel.out_shapes == graph.nodes[kernel.members[-1]]["out_shapes"]
        for name in kernel.members[:-1]:
            assert set(graph.successors(name)) <= inside
            assert name not in graph.graph["outputs"]


@given(random_graphs(), st.sampled_from(sorted(RULES)))
def test_fusing_does_not_change_the_model_graph(graph: nx.DiGraph, device: str) -> None:
    before = copy.deepcopy(graph)
    fuse(graph, RULES[device])
    assert dict(graph.nodes(data=True)) == dict(before.nodes(data=True))
    assert list(graph.edges(data=True)) == list(before.edges(data=True))
    assert graph.graph == before.graph


FUSES = {
    ("bn", "relu"): {CPU, GPU, GPU_630, VPU},
    ("conv", "bn"): set(DEVICES),
    ("dwconv", "bn"): set(DEVICES),
    ("conv", "relu"): set(DEVICES),
    ("conv", "relu6"): set(DEVICES),
    ("dwconv", "relu"): set(DEVICES),
    ("conv", "hswish"): set(DEVICES),
    ("add", "relu"): set(DEVICES),
    ("conv", "add"): {GPU, GPU_630},
    ("dwconv", "add"): {GPU, GPU_630},
    ("add", "add"): {GPU, GPU_630},
    ("relu", "add"): {GPU, GPU_630},
    ("maxpool", "add"): {GPU, GPU_630, VPU},
    ("maxpool", "relu"): {GPU, GPU_630, VPU},
    ("relu", "bn"): set(),
    ("relu", "conv"): set(),
    ("conv", "conv"): set(),
    ("conv", "sigmoid"): set(),
    ("conv", "mul"): set(),
    ("conv", "maxpool"): set(),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("first", "second"), FUSES)
def test_pair_fuses_exactly_on_the_devices_that_fuse_it(first: str, second: str, device: str) -> None:
    pair = {op: UNARY.get(op, {}) for op in (first, second)}
    graph = graph_of(
        ("other", "sigmoid", ["x"]),
        ("first", first, ["x", "other"][: 2 if first == "add" else 1], pair[first]),
        ("second", second, ["first", "other"][: 2 if second in ("add", "mul") else 1], pair[second]),
    )
    together = [k for k in kernels(graph, device) if k.members == ["first", "second"]]
    assert bool(together) == (device in FUSES[first, second])


@pytest.mark.parametrize("device", DEVICES)
def test_concat_fuses_with_its_consumer_only_on_gpus(device: str) -> None:
    graph = graph_of(("a", "sigmoid", ["x"]), ("concat", "concat", ["x", "a"]), ("relu", "relu", ["concat"]))
    assert ("concat-relu" in types(graph, device)) == (device in (GPU, GPU_630))


@pytest.mark.parametrize("device", DEVICES)
def test_convolution_fuses_with_batch_norm_and_relu(device: str) -> None:
    for convolution in ("conv", "dwconv"):
        graph = graph_of(
            ("c", convolution, ["x"], UNARY[convolution]), ("b", "bn", ["c"]), ("r", "relu", ["b"])
        )
        assert types(graph, device) == [f"{convolution}-bn-relu"]


@pytest.mark.parametrize("device", DEVICES)
def test_residual_sum_fuses_into_a_convolution_only_on_gpus(device: str) -> None:
    graph = graph_of(
        ("c", "conv", ["x"], CONV),
        ("b", "bn", ["c"]),
        ("sum", "add", ["x", "b"]),
        ("r", "relu", ["sum"]),
    )
    expected = ["conv-bn-add-relu"] if device in (GPU, GPU_630) else ["add-relu", "conv-bn"]
    assert types(graph, device) == expected


def test_dense_layer_fuses_with_its_relu_on_the_cpu() -> None:
    graph = graph_of(
        ("flat", "flatten", ["x"]), ("fc", "fc", ["flat"], {"out_features": 4}), ("r", "relu", ["fc"])
    )
    assert types(graph) == ["fc-relu"]


@pytest.mark.parametrize("device", DEVICES)
def test_operator_with_two_consumers_fuses_with_neither(device: str) -> None:
    graph = graph_of(("c", "conv", ["x"], CONV), ("r", "relu", ["c"]), ("s", "sigmoid", ["c"]))
    assert types(graph, device) == ["conv", "relu", "sigmoid"]


@pytest.mark.parametrize("device", DEVICES)
def test_model_output_does_not_fuse_with_its_consumer(device: str) -> None:
    graph = graph_of(("c", "conv", ["x"], CONV), ("r", "relu", ["c"]), outputs=["c", "r"])
    assert types(graph, device) == ["conv", "relu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spelling", HSWISH_SPELLINGS)
def test_every_form_of_hswish_is_one_kernel(spelling: str, device: str) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_op(graph, "s", "sigmoid", ["x"])
    add_hswish(graph, "h", "s", spelling)
    assert types(finish(graph), device) == ["hswish", "sigmoid"]


@pytest.mark.parametrize("spelling", HSWISH_SPELLINGS)
def test_every_form_of_hswish_fuses_into_its_convolution(spelling: str) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_op(graph, "c", "conv", ["x"], CONV)
    add_op(graph, "b", "bn", ["c"])
    add_hswish(graph, "h", "b", spelling)
    assert types(finish(graph)) == ["conv-bn-hswish"]


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("spelling", [s for s, steps in HSWISH_SPELLINGS.items() if len(steps) == 4])
def test_hswish_with_another_consumer_inside_is_not_fused(spelling: str, position: int) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    names = add_hswish(graph, "h", "x", spelling)
    add_op(graph, "reader", "tanh", [names[position]])
    assert not any(names[position] in kernel.members[:-1] for kernel in kernels(finish(graph), CPU))


@pytest.mark.parametrize(("shift", "scale"), [(2.0, 1 / 6), (3.0, 0.5)])
def test_other_constants_are_not_hswish(shift: float, scale: float) -> None:
    graph = graph_of(
        ("add", "add", ["x"], {"const": shift}),
        ("clip", "relu6", ["add"]),
        ("scale", "mul", ["clip"], {"const": scale}),
        ("product", "mul", ["x", "scale"]),
    )
    assert "hswish" not in types(graph, VPU)


def test_gate_of_another_tensor_is_not_hswish() -> None:
    graph = graph_of(("y", "tanh", ["x"]), ("gate", "hsigmoid", ["x"]), ("product", "mul", ["y", "gate"]))
    assert types(graph) == ["hsigmoid", "mul", "tanh"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gate", ["sigmoid", "hsigmoid", "relu6"])
@pytest.mark.parametrize("dense", [False, True], ids=["convolutions", "dense layers"])
def test_squeeze_excite_is_one_kernel(dense: bool, gate: str, device: str) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_op(graph, "t", "tanh", ["x"])
    members = add_squeeze_excite(graph, "se", "t", dense, gate)
    add_op(graph, "after", "relu", members[-1:])
    finish(graph)
    [block] = [kernel for kernel in kernels(graph, device) if kernel.op == "se"]
    assert block.type == "se-relu"
    spelt = {"se.add", "se.relu6"} if gate == "relu6" else set()
    assert set(block.members) == {*members, "after"} - spelt
    assert (block.in_shapes, block.out_shapes) == ([SHAPE], [SHAPE])
    assert block.attrs["squeezed"] == 2


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4])
def test_squeeze_excite_with_another_consumer_inside_is_not_fused(position: int) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    members = add_squeeze_excite(graph, "se", "x")
    add_op(graph, "reader", "tanh", [members[position]])
    assert "se" not in types(finish(graph))


def test_gate_of_another_tensor_is_not_squeeze_excite() -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    members = add_squeeze_excite(graph, "se", "x")
    add_op(graph, "y", "tanh", ["x"])
    graph.remove_node(members[-1])
    add_op(graph, members[-1], "mul", ["y", members[-2]])
    assert "se" not in types(finish(graph))


def test_batch_norm_before_squeeze_excite_still_folds_into_its_convolution() -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_op(graph, "c", "dwconv", ["x"], UNARY["dwconv"])
    add_op(graph, "b", "bn", ["c"])
    add_squeeze_excite(graph, "se", "b")
    assert types(finish(graph)) == ["dwconv-bn", "se"]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("spelling", ATTENTIONS)
def test_every_form_of_attention_is_one_kernel_where_the_device_knows_it(spelling: str, turned: bool) -> None:
    graph = new_graph()
    start = add_op(graph, "start", "conv", [add_input(graph, "x", SHAPE)], CONV)
    members = add_attention(graph, "a", start, spelling, turned)
    add_op(graph, "last", "relu", members[-1:])
    finish(graph)
    assert types(graph, ATTENTION) == ["attention", "conv", "relu", "transpose"]
    [whole] = [kernel for kernel in kernels(graph, ATTENTION) if kernel.op == "attention"]
    assert set(whole.members) == set(members)
    assert configuration(whole) == Configuration(
        "attention", (8, 8, 8, 8, 8, 8, *configuration(whole).sizes[6:]), (2 * 8**4, 3 * 512, 1024, 0)
    )
    assert "attention" not in types(graph, CPU), "other devices run its operators"


@pytest.mark.parametrize("inside", ["a.scores", "a.weights", "a.scale"])
def test_attention_with_another_consumer_inside_is_not_fused(inside: str) -> None:
    graph = new_graph()
    members = add_attention(graph, "a", add_input(graph, "x", SHAPE), "scaled scores")
    set_outputs(graph, [members[-1], add_op(graph, "other", "relu", [inside])])
    assert "attention" not in types(finish(graph), ATTENTION)


def test_softmax_over_another_axis_is_no_attention() -> None:
    graph = new_graph()
    add_attention(graph, "a", add_input(graph, "x", SHAPE), "mask")
    graph.nodes["a.weights"]["attrs"]["axis"] = 1
    assert "attention" not in types(finish(graph), ATTENTION)


@pytest.mark.parametrize("device", DEVICES)
def test_channel_shuffle_is_one_kernel(device: str) -> None:
    graph = new_graph()
    add_input(graph, "x", SHAPE)
    add_shuffle(graph, "s", "x")
    assert types(finish(graph), device) == ["channelshuffle"]


def test_other_transpose_is_not_a_channel_shuffle() -> None:
    graph = graph_of(
        ("split", "reshape", ["x"], {"shape": (1, 2, 4, 8, 8)}),
        ("swap", "transpose", ["split"], {"perm": (0, 1, 2, 4, 3)}),
        ("join", "reshape", ["swap"], {"shape": SHAPE}),
    )
    assert types(graph) == ["transpose"]


def test_every_form_of_global_pool_is_one_kernel() -> None:
    for op, attrs in (
        ("globalavgpool", {}),
        ("mean", {"axes": (2, 3)}),
        ("mean", {"axes": (-1, -2), "keepdims": True}),
        ("avgpool", {"kernel": (8, 8)}),
        ("adaptiveavgpool", {"output_size": 1}),
    ):
        assert types(graph_of(("pool", op, ["x"], attrs))) == ["globalavgpool"]


def test_views_are_not_kernels_and_keep_dependencies() -> None:
    graph = graph_of(
        ("pool", "globalavgpool", ["x"]),
        ("flat", "flatten", ["pool"]),
        ("fc", "fc", ["flat"], {"out_features": 9}),
    )
    fused = fuse(graph, RULES[CPU])
    assert set(fused.edges) == {("pool", "fc")}


def opcodes_to_fuse(graph: nx.DiGraph, rules: FusionRules) -> int:
    """Count the bytecode instructions that fusion runs for ``graph``; exact even on busy machines."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != fusion.__file__:
            return None
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fuse(graph, rules)
    finally:
        sys.settrace(before)
    return count


def chain_of_blocks(size: int) -> nx.DiGraph:
    graph = new_graph()
    last = add_input(graph, "x", SHAPE)
    for i in range(size):
        conv = add_op(graph, f"c{i}", "conv", [last], CONV)
        swish = add_hswish(graph, f"h{i}", conv, "x * relu6(x + 3) / 6")[-1]
        gated = add_squeeze_excite(graph, f"s{i}", swish)[-1]
        last = add_op(graph, f"a{i}", "add", [last, gated])
    return finish(graph)


def star(size: int) -> nx.DiGraph:
    return graph_of(("hub", "conv", ["x"], CONV), *((f"r{i}", "relu", ["hub"]) for i in range(size)))


def chain_of_views(size: int) -> nx.DiGraph:
    shapes = [(1, 8, 64), SHAPE]
    return graph_of(
        ("v0", "relu", ["x"]),
        *((f"v{i + 1}", "reshape", [f"v{i}"], {"shape": shapes[i % 2]}) for i in range(size)),
    )


@pytest.mark.parametrize("rules", [GPU, f"{GPU} 1.0"])
@pytest.mark.parametrize("build", [chain_of_blocks, star, chain_of_views])
def test_fusing_work_is_linear_in_the_number_of_operators(build: Any, rules: str) -> None:
    small, large = (opcodes_to_fuse(build(size), RULES[rules]) for size in (60, 120))
    assert large < 2.2 * small


def test_units_are_sorted_only_if_several_kernels_could_take_an_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked: list[int] = []

    def counting(graph: nx.DiGraph) -> list[str]:
        walked.append(len(graph))
        return topological_order(graph)

    monkeypatch.setattr(fusion, "topological_order", counting)
    row = graph_of(("a", "conv", ["x"], CONV), ("b", "relu", ["a"]))
    fuse(row, RULES[f"{GPU} 1.0"])
    assert walked == [3]
    fork = graph_of(("a", "conv", ["x"], CONV), ("b", "conv", ["x"], CONV), ("c", "add", ["a", "b"]))
    fuse(fork, RULES[f"{GPU} 1.0"])
    assert walked == [3, 4, 4]
