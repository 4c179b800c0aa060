"""Candidates of NNI's graph engine take what the whole model would, though only what is new is read."""

from __future__ import annotations

import hashlib
import math
import pickle
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="reads what NNI 2.10 makes")

from nni.nas.execution.pytorch.converter import convert_to_graph  # noqa: E402
from nni.nas.execution.pytorch.converter.graph_gen import GraphConverterWithShape  # noqa: E402
from nni.nas.nn.pytorch.mutator import process_inline_mutation  # noqa: E402
from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model  # noqa: E402
from nni_cells import RACES, SHAPE, TRAPS, Program, Step, nni_model, programs, sequences  # noqa: E402

from nnmeter_nas import LatencyPredictor, LatencyWarning, load_latency_predictor  # noqa: E402
from nnmeter_nas.benchmarks.parity import import_forests  # noqa: E402
from nnmeter_nas.benchmarks.parity_predictors import nnmeter_rules, write_predictor  # noqa: E402
from nnmeter_nas.errors import NnMeterNasError, ReaderError, UnpredictedOperatorError  # noqa: E402
from nnmeter_nas.fusion import FusionRules, Kernel, fuse, parse_rules  # noqa: E402
from nnmeter_nas.nnmeter_rules import parse_nnmeter_rules  # noqa: E402
from nnmeter_nas.packs.registry import devices  # noqa: E402
from nnmeter_nas.readers.nni_content import Contents, OpaqueError  # noqa: E402
from nnmeter_nas.readers.nni_ir import GraphBuilder, read_nni_ir  # noqa: E402
from nnmeter_nas.readers.nni_operators import Weight  # noqa: E402
from nnmeter_nas.reuse import UnitLatencies, division, latencies  # noqa: E402
from nnmeter_nas.reuse.application import Application, Source, UnitTensor  # noqa: E402
from nnmeter_nas.reuse.arguments import Arguments  # noqa: E402
from nnmeter_nas.reuse.summary import InseparableError, Summary  # noqa: E402
from nnmeter_nas.search_spaces import nasbench201, proxylessnas, spos  # noqa: E402

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"
pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")


def open_space(space: Any) -> Any:
    """NNI's graph IR of a space."""
    script, dummy = torch.jit.script(space.eval()), torch.zeros(space.input_shape)
    return convert_to_graph(script, space, GraphConverterWithShape(), dummy_input=dummy)


def candidates(base: Any, count: int, seed: int = 0) -> list[Any]:
    """Random candidates of a space in graph IR, as a strategy makes them."""
    mutators = process_inline_mutation(base)
    choices, draw = dry_run_for_search_space(base, mutators), random.Random(seed)
    return [get_targeted_model(base, mutators, {k: draw.choice(v) for k, v in choices.items()})
            for _ in range(count)]  # fmt: skip


@pytest.fixture(scope="module")
def base() -> Any:
    return open_space(spos("small", depths=(2, 1), channels=(16, 32)))


@pytest.fixture(scope="module")
def small_spos(base: Any) -> list[Any]:
    return candidates(base, 16)


@pytest.fixture(scope="module")
def forests(tmp_path_factory: pytest.TempPathFactory) -> list[LatencyPredictor]:
    """Predictors under nn-Meter's rules for a CPU and a GPU."""
    folder = tmp_path_factory.mktemp("forests")
    return import_forests({d: write_predictor(folder / d, d, trees=3) for d in (CPU, GPU)}, folder / "home")


@pytest.fixture
def predictors(forests: list[LatencyPredictor]) -> list[LatencyPredictor]:
    """Fresh ones of each kind of pack."""
    bundled = [load_latency_predictor(device, 2.0) for device in (CPU, GPU)]
    return [*bundled, *(LatencyPredictor(predictor.pack) for predictor in forests)]


def assert_as_whole(predictor: LatencyPredictor, models: Sequence[Any]) -> int:
    """Each is predicted as its explanation says; returns how many were not read as a whole for it."""
    answers = 0
    for model in models:
        parts, found = predictor._units.parts(model, None), predictor.explain(model)
        assert predictor.predict(model) == found.latency_ms
        if parts is not None:
            answers += 1
            assert parts.latency_ms == found.latency_ms
            assert parts.unpredicted == frozenset(found.unpredicted.values())
            assert parts.kernels == len(found.kernel_graph)
            share = parts.extrapolated_ms / parts.latency_ms
            assert share == pytest.approx(found.extrapolated_share, rel=1e-9)
    return answers


def test_spos_candidates_take_what_they_take_as_a_whole(
    predictors: list[LatencyPredictor], small_spos: list[Any]
) -> None:
    for predictor in predictors:
        assert assert_as_whole(predictor, small_spos) == len(small_spos)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "count", "least"),
    [
        (lambda: spos("small"), 100, 100),
        (lambda: spos("imagenet"), 40, 40),
        (lambda: proxylessnas("small"), 100, 100),
        (lambda: nasbench201("small"), 150, 100),
        (lambda: nasbench201("full", input_size=16, cells=2), 30, 15),
    ],
    ids=["spos-small", "spos", "proxylessnas", "nasbench201-small", "nasbench201"],
)
def test_candidates_of_other_spaces_take_what_they_take_as_a_whole(
    predictors: list[LatencyPredictor], space: Any, count: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latencies, "PATIENCE", 10**9)
    models = candidates(open_space(space()), count)
    answers = [assert_as_whole(predictor, models) for predictor in predictors]
    # nn-Meter's way to choose between kernels needs the whole model where a sum could join several.
    assert min(answers[:3]) >= least


MANY_PAIRS = [
    f"{first}->{second}"
    for first in ("conv", "dwconv", "bn", "relu", "add", "pool", "hswish", "se", "mul", "concat")
    for second in ("bn", "relu", "add", "hswish", "mul", "se", "sigmoid", "swish")
]
CHAIN = {name: {"obey": True} for name in ("BF_conv_bn_relu", "BF_conv_add", "BF_dwconv_add")}
RULES: dict[str, FusionRules] = {
    **{device: parse_rules(card["fusion_rules"]) for device, card in devices().items()},
    **{f"nn-Meter's {device}": parse_nnmeter_rules(nnmeter_rules(card["fusion_rules"]))
       for device, card in devices().items()},
    "many": parse_rules(MANY_PAIRS),
    "nn-Meter's many": parse_nnmeter_rules(nnmeter_rules(MANY_PAIRS)),
    "a chain": parse_nnmeter_rules(CHAIN),
    "several readers": parse_nnmeter_rules({**CHAIN, "MON": {"obey": 1}}),
}  # fmt: skip


def marked(kernels: Sequence[Kernel]) -> list[tuple[float | None, bool]]:
    """A latency that tells the form of the kernel, so that sums tell which kernels there are."""
    digests = [hashlib.sha256(repr(kernel.form).encode()).digest() for kernel in kernels]
    return [(int.from_bytes(digest[:5], "big") / 1e3, False) for digest in digests]


_REMEMBERED: dict[tuple[str, int], UnitLatencies] = {}


def check_program(program: Program, rules: str, unit_nodes: int) -> bool:
    """The kernels of the units of ``program`` are those of the whole; whether units gave an answer."""
    units = _REMEMBERED.setdefault((rules, unit_nodes), UnitLatencies(RULES[rules], marked))
    model, shapes = nni_model(program), [SHAPE, SHAPE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "UNIT_NODES", unit_nodes)
        patch.setattr(latencies, "PATIENCE", 10**9)
        parts = units.parts(model, shapes)
    if parts is None:
        return False
    nodes = fuse(read_nni_ir(model, shapes), RULES[rules]).nodes(data="kernel")
    assert (parts.kernels, parts.latency_ms) == (
        len(nodes), math.fsum(ms for ms, _ in marked([kernel for _, kernel in nodes]) if ms is not None),
    )  # fmt: skip
    return True


@settings(max_examples=250, suppress_health_check=list(HealthCheck))
@given(programs() | sequences(), st.sampled_from(list(RULES)), st.sampled_from([1, 3, 8, 32]))
def test_cells_whose_borders_invite_fusion_give_the_kernels_of_the_whole(
    program: Program, rules: str, unit_nodes: int
) -> None:
    check_program(program, rules, unit_nodes)


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=list(HealthCheck))
@given(programs() | sequences(), st.sampled_from(list(RULES)), st.sampled_from([1, 3, 8, 32]))
@example(Program([Step("sigmoid", (0, 0)), Step("identity", (0, 0)), Step("mul", (0, 2))], 1), CPU, 1)
def test_many_cells_give_the_kernels_of_the_whole(program: Program, rules: str, unit_nodes: int) -> None:
    check_program(program, rules, unit_nodes)


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("rules", ["nn-Meter's many", "a chain", "many"])
def test_what_the_order_in_the_whole_decides_is_not_decided_without_it(race: Program, rules: str) -> None:
    check_program(race, rules, 32)


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_units_that_would_be_taken_for_something_else_are_not(
    trap: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rules, unit_nodes in product(RULES, (1, 3, 8, 32)):
        monkeypatch.delitem(_REMEMBERED, (rules, unit_nodes), raising=False)
        check_program(trap, rules, unit_nodes)


@pytest.mark.parametrize("limit", ["_ROUNDS", "_LARGEST_UNIT"])
def test_a_model_of_which_too_much_becomes_one_unit_is_read_as_a_whole(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program([Step("conv", (0, 0)), Step("bn", (0, 0))], 1)
    monkeypatch.delitem(_REMEMBERED, (CPU, 1), raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(division, limit, 1)
        assert not check_program(program, CPU, 1)
    assert check_program(program, CPU, 1)


@pytest.mark.parametrize("shape", [(2, *SHAPE[1:]), (0, *SHAPE[1:])])
def test_a_shape_that_no_input_may_have_is_not_overlooked_where_nothing_reads_it(
    shape: tuple[int, ...]
) -> None:
    units = UnitLatencies(RULES[CPU], marked)
    model = nni_model(Program([Step("conv", (0, 0))], 1))
    assert units.parts(model, [SHAPE, SHAPE]) is not None
    assert units.parts(model, [shape, SHAPE]) is None


def test_a_model_that_runs_nothing_is_read_as_a_whole() -> None:
    assert UnitLatencies(RULES[CPU], marked).parts(nni_model(Program([], 1)), [SHAPE, SHAPE]) is None


def test_a_cell_of_which_only_the_size_is_read_takes_nothing() -> None:
    cell = Step("cell", (0, 0), Program([Step("conv", (0, 0))], 1))
    assert check_program(Program([cell, Step("size", (1, 0)), Step("conv", (0, 0))], 1), CPU, 32)


def test_what_is_remembered_is_forgotten_before_it_is_too_much(
    small_spos: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [UnitLatencies(RULES[CPU], marked).parts(model, None) for model in small_spos]
    units = UnitLatencies(RULES[CPU], marked)
    monkeypatch.setattr(division, "REMEMBERED", 40)
    largest = 0
    for model, parts in zip(small_spos, expected, strict=True):
        assert units.parts(model, None) == parts is not None
        largest = max(largest, len(units._memory.contents), len(units._memory.summaries))
    assert 40 < largest < 60


def test_a_model_that_recurs_is_never_read_as_a_whole(small_spos: list[Any]) -> None:
    units = UnitLatencies(RULES[CPU], marked)
    assert None not in [units.parts(small_spos[0], None) for _ in range(latencies.PATIENCE + 2)]


def test_a_parameter_that_cannot_be_compared_is_read_with_the_whole(small_spos: list[Any]) -> None:
    predictor, model = load_latency_predictor(CPU, 2.0), small_spos[0].fork()
    node = next(node for node in model.get_nodes() if node.operation.type.endswith("Conv2d"))
    changed = {**node.operation.parameters, "dtype": torch.float32}
    node.update_operation(node.operation.type, changed)
    assert predictor._units.parts(model, None) is None
    assert predictor.predict(model) == predictor.explain(model).latency_ms


def test_what_the_ir_claims_of_an_unknown_operator_is_read_with_the_whole() -> None:
    model = nni_model(Program([Step("conv", (0, 0)), Step("abs", (0, 0))], 1))
    operation = model.root_graph.hidden_nodes[1].operation
    operation.type, operation.attributes = "aten::frobnicate", {"output_shape": [list(SHAPE)]}
    assert len(read_nni_ir(model, [SHAPE, SHAPE])) == 4
    assert UnitLatencies(RULES[CPU], marked).parts(model, [SHAPE, SHAPE]) is None


def test_contents_tell_apart_which_operand_a_tensor_is() -> None:
    contents, body = Contents(), Program([Step("add", (0, 1))], 1)
    model = nni_model(Program([Step("cell", (0, 1), body)], 1))
    [cell] = model.root_graph.hidden_nodes
    number = contents.reading(model).node(cell)
    assert contents.reading(model.fork()).node(cell) == number
    first, second, _ = model.graphs[cell.operation.cell_name].edges
    first.tail_slot, second.tail_slot = second.tail_slot, first.tail_slot
    assert contents.reading(model).node(cell) != number


def test_operands_tell_types_apart() -> None:
    weights = [Weight(), Weight((1,)), Weight((2,))]
    values = [1, 1.0, True, "1", [1], (1,), {"1": 1}, {"1": 1.0}, None, 0.0, -0.0, *weights]
    assert len({Arguments().code(value) for value in values}) == len(values)
    assert Arguments().code([1, "a"]) == Arguments().code([1, "a"])
    with pytest.raises(InseparableError):
        Arguments().code(torch.ones(1))


def test_parts_are_told_apart_where_they_are_read_again() -> None:
    units = [
        Application(content, None, [], content, content, 1, [], frozenset(), Summary(None), [])
        for content in range(2)
    ]
    first, second = (UnitTensor(Source(None), 0, SHAPE, None, unit) for unit in units)
    codes = [Arguments(frozenset(units)).code([first, second, again]) for again in (first, second)]
    assert codes[0] != codes[1]


def test_most_made_up_cells_are_answered_by_units() -> None:
    steps = [Step(kind, (0, 0)) for kind in ("conv", "bn", "relu", "conv", "pool", "view")]
    program = Program([Step("cell", (0, 0), Program(steps[:3], 1)), *steps[3:]], 1)
    assert all(check_program(program, rules, 1) for rules in RULES if rules != "several readers")
    assert check_program(TRAPS["two names of two tensors, then of one"], CPU, 32)


def counted(monkeypatch: pytest.MonkeyPatch, predictor: LatencyPredictor) -> Counter[str]:
    """Counts the operators that are read and the kernels that are predicted from now on."""
    counts: Counter[str] = Counter()
    emit, predict = GraphBuilder.emit, type(predictor.pack.predictors).latencies

    def emitting(self: Any, *arguments: Any) -> Any:
        counts["operators"] += 1
        return emit(self, *arguments)

    def predicting(self: Any, kernels: Any) -> Any:
        counts["kernels"] += len(kernels)
        return predict(self, kernels)

    monkeypatch.setattr(GraphBuilder, "emit", emitting)
    monkeypatch.setattr(type(predictor.pack.predictors), "latencies", predicting)
    return counts


def test_of_a_candidate_that_differs_in_one_block_only_that_block_is_read(
    small_spos: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, model = load_latency_predictor(CPU, 2.0), small_spos[0].fork()
    for _ in range(2):  # the first model of a predictor is read as a whole
        predictor.predict(model)
    counts = counted(monkeypatch, predictor)
    predictor.predict(model.fork())
    assert not counts, "a copy of what was seen takes no work"
    convolutions = [node for node in model.get_nodes() if node.operation.type.endswith("Conv2d")]
    [blocks] = [graph for name, graph in model.graphs.items() if name == "_model__layers"]
    block = model.graphs[blocks.hidden_nodes[0].operation.cell_name]
    nested = [block]
    for graph in nested:
        nested += [model.graphs[n.operation.cell_name] for n in graph.hidden_nodes
                   if n.operation.type == "_cell"]  # fmt: skip
    inside = [n for n in convolutions if n.graph in nested and n.operation.parameters.get("groups", 1) > 1]
    changed = {**inside[0].operation.parameters, "kernel_size": 9, "padding": 4}
    inside[0].update_operation(inside[0].operation.type, changed)
    predictor.predict(model)
    assert 0 < counts["operators"] <= sum(len(graph.hidden_nodes) for graph in nested)
    assert counts["kernels"] == 1
    assert predictor.predict(model) == predictor.explain(model).latency_ms


def test_an_operation_that_is_edited_in_place_is_noticed(small_spos: list[Any]) -> None:
    predictor, model = load_latency_predictor(CPU, 2.0), small_spos[0].fork()
    node = next(n for n in model.get_nodes() if n.name.endswith("head__0"))
    node.update_operation(node.operation.type, parameters := dict(node.operation.parameters))
    before = [predictor.predict(model) for _ in range(2)][-1]  # the first model is read as a whole
    parameters["kernel_size"], parameters["padding"] = 7, 3
    assert predictor.predict(model) == predictor.explain(model).latency_ms != before
    parameters["out_channels"] = -1
    with pytest.raises(NnMeterNasError):
        predictor.predict(model)


@pytest.mark.parametrize("value", [torch.ones(2), object(), {1, 2}, b"12"])
def test_parameters_that_cannot_be_compared_are_never_taken_for_equal(value: Any) -> None:
    with pytest.raises(OpaqueError):
        Contents().number(("conv", {"weight": value}), 1)


def test_contents_tell_types_apart() -> None:
    contents = Contents()
    values = [1, 1.0, True, "1", [1], (1,), {"1": 1}, None, 0.0, -0.0]
    assert len({contents.number(value, 1) for value in values}) == len(values)
    assert contents.number([1, "a"], 1) == contents.number([1, "a"], 1)


def test_an_open_choice_is_refused_by_its_label_after_candidates_were_predicted(
    base: Any, small_spos: list[Any]
) -> None:
    predictor = load_latency_predictor(CPU, 2.0)
    predictor.predict(small_spos[0])
    with pytest.raises(ReaderError, match=r"layer_1.*still open"):
        predictor.predict(base)


def test_another_input_shape_is_another_latency(small_spos: list[Any]) -> None:
    predictor = load_latency_predictor(CPU, 2.0)
    small, large = (predictor.predict(small_spos[0], input_shape=(1, 3, n, n)) for n in (32, 64))
    assert small < large == predictor.explain(small_spos[0], None, (1, 3, 64, 64)).latency_ms
    with pytest.raises(NnMeterNasError, match="batch is 2"):
        predictor.predict(small_spos[0], input_shape=(2, 3, 32, 32))


def test_what_is_left_out_is_warned_of_once_and_refused_if_strict(
    tmp_path: Path, small_spos: list[Any]
) -> None:
    [predictor] = import_forests({GPU: write_predictor(tmp_path / "pickled", GPU, trees=2)}, tmp_path)
    messages = []
    for model in small_spos[:4]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LatencyWarning)
            predictor.predict(model)
        messages.append([str(w.message) for w in caught])
        assert all(Path(w.filename) == Path(__file__) for w in caught)
    left_out = predictor.explain(small_spos[0]).unpredicted
    assert [bool(found) for found in messages] == [bool(left_out), False, False, False]
    if left_out:
        with pytest.raises(UnpredictedOperatorError):
            predictor.predict(small_spos[3], strict=True)


def test_a_predictor_that_has_seen_candidates_still_travels_light(small_spos: list[Any]) -> None:
    predictor = load_latency_predictor(CPU, 2.0)
    predictor.predict(small_spos[0])
    assert len(pickle.dumps(predictor)) < 1000


def test_a_space_of_which_nothing_recurs_is_read_as_a_whole_after_a_while(
    small_spos: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load_latency_predictor(CPU, 2.0)
    for size in range(latencies.PATIENCE):
        assert predictor._units.parts(small_spos[0], (1, 3, 32, 32 + 32 * size)) is not None
    assert predictor._units.parts(small_spos[0], (1, 3, 32, 32)) is None
    assert predictor.predict(small_spos[0]) == predictor.explain(small_spos[0]).latency_ms
