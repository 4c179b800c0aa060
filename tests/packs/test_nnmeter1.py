"""Version 1.0: nn-Meter's rules fuse as in nn-Meter, and its forests get the same features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forests import forest
from graphs import graph_of
from nnmeter_nas.errors import PackError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.kernels.fusion import Kernel, fuse
from nnmeter_nas.packs.nnmeter1.predictors import FEATURES, ForestPredictors, forest_name
from nnmeter_nas.packs.nnmeter1.rules import parse_nnmeter_rules

CONV: dict[str, Any] = {"kernel": (3, 3), "padding": "same", "out_channels": 8}
#: Operators that keep the shape of :func:`graph_of`, by nn-Meter's names.
CHAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": ("conv", CONV),
    "dwconv": ("dwconv", {**CONV, "groups": 8}),
    "bn": ("bn", {}),
    "relu": ("relu6", {}),
    "maxpool": ("maxpool", {"kernel": (3, 3), "padding": "same"}),
    "hswish": ("hswish", {}),
    "sigmoid": ("sigmoid", {}),
}
MAP = (1, 24, 56, 56)


def rules(*names: str, mon: int = 0) -> dict[str, dict[str, object]]:
    """Content of a rule file that enables these rules."""
    return {**{f"BF_{name}": {"obey": True} for name in names}, "MON": {"obey": mon}}


def kernels(graph: nx.DiGraph, *names: str, mon: int = 0) -> list[Kernel]:
    fused = fuse(graph, parse_nnmeter_rules(rules(*names, mon=mon)))
    return [kernel for _, kernel in fused.nodes(data="kernel")]


def types(graph: nx.DiGraph, *names: str, mon: int = 0) -> list[str]:
    return sorted(kernel.type for kernel in kernels(graph, *names, mon=mon))


def row(graph: nx.DiGraph, *names: str) -> tuple[str, list[float]]:
    """Forest and features of the last kernel."""
    kernel = kernels(graph, *names)[-1]
    return forest_name(kernel), FEATURES[forest_name(kernel)](kernel)


# Rules


def chain_kernels(
    ops: Sequence[str], pairs: set[tuple[str, str]], chains: Sequence[tuple[str, ...]]
) -> list[str]:
    """Kernel types of a chain of operators, written out from the rules."""
    units: list[tuple[str, bool]] = []
    position = 0
    while position < len(ops):
        whole = next((c for c in chains if tuple(ops[position : position + len(c)]) == c), None)
        units.append(("-".join(whole), True) if whole else (ops[position], False))
        position += len(whole) if whole else 1
    found: list[str] = []
    takes_more = ""
    for name, is_whole in units:
        if takes_more and (takes_more, name) in pairs:
            found[-1] += f"-{name}"
        else:
            found.append(name)
            takes_more = "" if is_whole else name
    return sorted(found)


@given(
    st.lists(st.sampled_from(sorted(CHAINED)), min_size=1, max_size=12),
    st.sets(st.tuples(st.sampled_from(sorted(CHAINED)), st.sampled_from(sorted(CHAINED)))),
    st.lists(
        st.sampled_from(
            [("conv", "bn", "relu"), ("dwconv", "bn", "relu"), ("maxpool", "relu", "bn", "relu")]
        ),
        unique=True,
    ),
)
def test_chain_of_operators_fuses_by_the_rules(
    ops: list[str], pairs: set[tuple[str, str]], chains: list[tuple[str, ...]]
) -> None:
    graph = new_graph()
    last = add_input(graph, "x", (1, 8, 8, 8))
    for i, name in enumerate(ops):
        op, attrs = CHAINED[name]
        last = add_op(graph, f"{name}{i}", op, [last], attrs)
    written = ["_".join(names) for names in (*pairs, *chains)]
    # A ReLU6 right after another is the same ReLU6.
    kept = [op for before, op in zip([None, *ops], ops, strict=False) if (before, op) != ("relu", "relu")]
    assert types(finish(graph), *written) == chain_kernels(kept, pairs, chains)


def test_first_operator_of_a_kernel_decides_what_may_join_it() -> None:
    graph = graph_of(("c", "conv", ["x"], CONV), ("r", "relu", ["c"]), ("a", "add", ["r", "x"]))
    assert types(graph, "conv_relu", "conv_add") == ["conv-relu-add"]
    assert types(graph, "conv_relu", "relu_add") == ["add", "conv-relu"]


def test_nothing_joins_a_complete_pattern() -> None:
    graph = graph_of(
        ("c", "conv", ["x"], CONV), ("b", "bn", ["c"]), ("r", "relu", ["b"]), ("a", "add", ["r", "x"])
    )
    pairs = ("conv_bn", "conv_relu", "conv_add")
    assert types(graph, *pairs) == ["conv-bn-relu-add"]
    assert types(graph, *pairs, "conv_bn_relu") == ["add", "conv-bn-relu"]


def test_disabled_rules_fuse_nothing() -> None:
    graph = graph_of(("c", "conv", ["x"], CONV), ("r", "relu", ["c"]))
    obeyed = {"BF_conv_relu": {"obey": False, "latency": {}}, "RT": {"obey": True}}
    assert [k.type for _, k in fuse(graph, parse_nnmeter_rules(obeyed)).nodes(data="kernel")] == [
        "conv",
        "relu",
    ]


def test_operator_with_two_consumers_fuses_with_neither_by_default() -> None:
    graph = graph_of(("c", "conv", ["x"], CONV), ("r", "relu", ["c"]), ("s", "relu", ["c"]))
    assert types(graph, "conv_relu") == ["conv", "relu", "relu"]
    assert types(graph, "conv_relu", mon=1) == ["conv-relu-relu"]


def test_earlier_of_two_kernels_takes_an_operator() -> None:
    graph = graph_of(
        ("main1", "relu", ["x"]),
        ("main2", "conv", ["main1"], CONV),
        ("short", "dwconv", ["x"], {**CONV, "groups": 8}),
        ("sum", "add", ["main2", "short"]),
    )
    assert types(graph, "conv_add", "dwconv_add") == ["conv", "dwconv-add", "relu"]


@pytest.mark.parametrize("content", [[], {"BF_conv_relu": True}, {"BF_conv_relu": {}}, {"MON": 1}])
def test_invalid_rule_file_is_rejected(content: Any) -> None:
    with pytest.raises(PackError, match="fusion rule"):
        parse_nnmeter_rules(content)


# Features: expected rows are computed by hand from nn-Meter's formulas.


def test_convolution_has_nn_meters_features() -> None:
    graph = graph_of(
        ("c", "conv", ["x"], {"kernel": (3, 3), "stride": (2, 2), "padding": "same", "out_channels": 10}),
        ("b", "bn", ["c"]),
        shape=MAP,
    )
    # 10 * (9 * 24 + 1) = 2170 weights; 2 * 28 * 28 * 2170 = 3402560 operations
    assert row(graph, "conv_bn") == ("conv-bn-relu", [56, 24, 10, 3, 2, 1.70128, 0.00217])


def test_depthwise_convolution_has_nn_meters_features() -> None:
    graph = graph_of(
        ("c", "conv", ["x"], {"kernel": (5, 5), "padding": "same", "out_channels": 24, "groups": 24}),
        shape=MAP,
    )
    # 24 * (25 + 1) = 624 weights; 2 * 56 * 56 * 624 = 3913728 operations
    assert row(graph) == ("dwconv-bn-relu", [56, 24, 24, 5, 1, 1.956864, 0.000624])


def test_stride_that_does_not_divide_the_map_gives_a_fraction() -> None:
    attrs = {"kernel": (1, 1), "stride": (2, 2), "out_channels": 2}
    # 2 * (1 + 1) = 4 weights; 2 * 3.5 * 3.5 * 4 = 98 operations
    assert row(graph_of(("c", "conv", ["x"], attrs), shape=(1, 1, 7, 7)))[1] == [
        7,
        1,
        2,
        1,
        2,
        98 / 2e6,
        4e-6,
    ]


def test_dense_layer_has_nn_meters_features() -> None:
    graph = graph_of(("f", "fc", ["x"], {"out_features": 10}), ("r", "relu", ["f"]), shape=(1, 100))
    # (2 * 100 + 1) * 10 = 2010
    assert row(graph, "fc_relu") == ("fc", [100, 10, 0.001005, 0.00201])


@pytest.mark.parametrize("op", ["maxpool", "avgpool"])
def test_pool_has_nn_meters_features(op: str) -> None:
    attrs = {"kernel": (3, 3), "stride": (2, 2), "padding": "same"}
    assert row(graph_of(("p", op, ["x"], attrs), shape=MAP)) == (op, [56, 24, 24, 3, 2])


def test_average_pool_over_the_whole_map_uses_the_average_pool_forest() -> None:
    graph = graph_of(("p", "avgpool", ["x"], {"kernel": (56, 56)}), shape=MAP)
    assert row(graph) == ("avgpool", [56, 24, 24, 56, 1])


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("globalavgpool", {}), ("mean", {"axes": (2, 3)}), ("adaptiveavgpool", {"output_size": 1})],
)
def test_global_pool_has_nn_meters_features(op: str, attrs: dict[str, Any]) -> None:
    graph = graph_of(("p", op, ["x"], attrs), shape=MAP)
    [kernel] = kernels(graph)
    assert (kernel.type, kernel_type(kernel)) == ("gap", "globalavgpool")
    assert row(graph) == ("global-avgpool", [1, 24])


@pytest.mark.parametrize(("op", "attrs"), [("split", {"sections": 2}), ("channelshuffle", {"groups": 2})])
def test_data_movement_has_nn_meters_features(op: str, attrs: dict[str, Any]) -> None:
    assert row(graph_of(("s", op, ["x"], attrs), shape=MAP)) == (op, [56, 24])


@pytest.mark.parametrize(
    ("op", "forest"), [("bn", "bn"), ("relu", "relu"), ("relu6", "relu"), ("hswish", "hswish")]
)
def test_activation_has_nn_meters_features(op: str, forest: str) -> None:
    assert row(graph_of(("a", op, ["x"]), shape=MAP)) == (forest, [56, 24])
    assert row(graph_of(("a", op, ["x"]), shape=(1, 24))) == (forest, [1, 24])


def test_batch_norm_with_relu_has_its_own_forest() -> None:
    graph = graph_of(("b", "bn", ["x"]), ("r", "relu", ["b"]), shape=MAP)
    assert row(graph, "bn_relu") == ("bnrelu", [56, 24])


@pytest.mark.parametrize(("fused", "forest"), [((), "add"), (("add_relu",), "addrelu")])
def test_sum_has_nn_meters_features(fused: tuple[str, ...], forest: str) -> None:
    graph = graph_of(("y", "bn", ["x"]), ("a", "add", ["x", "y"]), ("r", "relu", ["a"]), shape=MAP)
    found = {forest_name(k): FEATURES[forest_name(k)](k) for k in kernels(graph, *fused)}
    assert found[forest] == [56, 24, 24]


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        (2, [56, 2, 24, 24, 0, 0]),
        (4, [56, 4, 24, 24, 24, 24]),
        (5, [56, 6, 24, 24, 24, 24]),
        (6, [56, 6, 24, 24, 24, 24]),
    ],
)
def test_concatenation_has_nn_meters_features(branches: int, expected: list[float]) -> None:
    sources = [(f"y{i}", "bn", ["x"]) for i in range(branches)]
    graph = graph_of(*sources, ("c", "concat", [name for name, *_ in sources]), shape=MAP)
    assert row(graph) == ("concat", expected)


def test_squeeze_excite_has_nn_meters_features() -> None:
    graph = graph_of(
        ("p", "globalavgpool", ["x"]),
        ("s", "conv", ["p"], {"kernel": (1, 1), "out_channels": 6}),
        ("r", "relu", ["s"]),
        ("e", "conv", ["r"], {"kernel": (1, 1), "out_channels": 24}),
        ("g", "hsigmoid", ["e"]),
        ("m", "mul", ["x", "g"]),
        ("after", "relu", ["m"]),
        shape=MAP,
    )
    assert types(graph, "se_relu") == ["se-relu"]
    assert row(graph, "se_relu") == ("se", [56, 24])


@pytest.mark.parametrize("tail", ["bn", "relu", "hswish", "add"])
@pytest.mark.parametrize("op", ["conv", "dwconv"])
def test_kernel_that_starts_with_a_convolution_uses_the_convolution_forest(op: str, tail: str) -> None:
    graph = graph_of(
        ("c", *CHAINED[op][:1], ["x"], CHAINED[op][1]), ("t", tail, ["c", "x"] if tail == "add" else ["c"])
    )
    assert types(graph, f"{op}_{tail}") == [f"{op}-{tail}"]
    assert row(graph, f"{op}_{tail}")[0] == f"{op}-bn-relu"


def test_kernels_without_a_forest_are_not_covered() -> None:
    predictors = ForestPredictors({"conv-bn-relu": forest(7), "concat": forest(6), "relu": forest(2)})
    graph = graph_of(
        ("c", "conv", ["x"], CONV),
        ("t", "convtranspose", ["c"], {"kernel": (2, 2), "stride": (2, 2), "out_channels": 8}),
        ("d", "dwconv", ["t"], {**CONV, "groups": 8}),
        ("cat", "concat", ["d", "d"]),
        ("r", "relu", ["cat"]),
        ("s", "sigmoid", ["r"]),
    )
    covered = {k.type: predictors.covers(k) for k in kernels(graph, "concat_relu")}
    assert covered == {
        "conv": True, "convtranspose": False, "dwconv": False, "concat-relu": False, "sigmoid": False
    }  # fmt: skip


def test_latencies_are_in_the_order_of_the_kernels() -> None:
    forests = {"conv-bn-relu": forest(7), "relu": forest(2)}
    graph = graph_of(
        ("r1", "relu", ["x"]),
        ("c1", "conv", ["r1"], {**CONV, "out_channels": 64}),
        ("r2", "relu", ["c1"]),
        ("r3", "relu", ["x"]),
        ("c2", "conv", ["r2"], {**CONV, "out_channels": 256}),
        ("r4", "relu", ["c2"]),
    )
    found = kernels(graph)
    latency, bases = zip(*ForestPredictors(forests).latencies(found), strict=True)
    expected = [forests[forest_name(k)].predict([FEATURES[forest_name(k)](k)])[0] for k in found]
    np.testing.assert_array_equal(latency, expected)
    assert len(set(expected)) == 5, "the two relus of the same shape are equal, and only those"
    assert bases == ("measured",) * len(found)
