"""Any space of either NNI line becomes a Space with the model graphs of the networks that NNI builds."""

from __future__ import annotations

import importlib
import importlib.util
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from nni_networks import assert_as_nni_makes_them  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.costs.influence import learn_influences  # noqa: E402
from nnmeter_nas.errors import ReaderError, SpaceError  # noqa: E402
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn  # noqa: E402
from nnmeter_nas.search_spaces import proxylessnas, spos  # noqa: E402
from nnmeter_nas.supernet.named import load_space, make_space  # noqa: E402
from nnmeter_nas.supernet.nni2 import WrappedSpace  # noqa: E402
from nnmeter_nas.supernet.nni_space import candidate_name, space_of  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore")]

_nas: Any = importlib.import_module("nni.nas.nn.pytorch")
InputChoice, Repeat, ValueChoice = _nas.InputChoice, _nas.Repeat, _nas.ValueChoice
LINE3 = importlib.util.find_spec("nni.mutable") is not None
only_2_10 = pytest.mark.skipif(LINE3, reason="NNI 3.0 keeps the parts of a space")
only_3 = pytest.mark.skipif(not LINE3, reason="NNI 2.10.1 has no such choices")
SHAPE = (1, 3, 16, 16)


class Branches(nn.Module):  # type: ignore[misc]
    """Three branches; the chosen ones are summed."""

    def __init__(self, channels: Any, n_chosen: int | None, label: str) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(channels, 8, 1), nn.Conv2d(channels, 8, 3, padding=1)
        self.larger = nn.Conv2d(channels, 8, 5, padding=2)
        self.choose = InputChoice(n_candidates=3, n_chosen=n_chosen, label=label)

    def forward(self, x: Any) -> Any:
        return self.choose([self.small(x), self.large(x), self.larger(x)])


@model_space
class Everything(ModelSpace):  # type: ignore[misc]
    """All kinds of choices: single, computed and shared values, layers, nested choices, inputs, depths."""

    def __init__(self, stem: int = 8, *, classes: int = 10) -> None:
        super().__init__()
        width = ValueChoice([stem, 3 * stem], label="width")
        kernel = ValueChoice([1, 3, 5], label="kernel")
        self.stem = nn.Conv2d(3, width, kernel, padding=kernel // 2)
        wide = nn.Conv2d(width, width, 3, padding=1)
        self.layer = LayerChoice(OrderedDict(
            wide=nn.Sequential(wide, nn.ReLU()), flat=nn.Conv2d(width, width, 1), none=nn.Identity(),
        ), label="layer")  # fmt: skip
        self.pair = Branches(width, 2, "pair")
        self.any = Branches(8, None, "any")
        self.tail = Repeat(self._block, (1, 3), label="depth")
        self.fixed = Repeat(lambda index: nn.Conv2d(8, 8, 1), 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, classes)

    @staticmethod
    def _block(index: int) -> Any:
        inner = ValueChoice([8, 16], label=f"inner_{index}")
        return nn.Sequential(
            nn.Conv2d(8, inner, 1),
            LayerChoice([nn.ReLU(), nn.Sigmoid()], label=f"act_{index}"),
            nn.Conv2d(inner, 8, 3),
        )

    def forward(self, x: Any) -> Any:
        x = self.tail(self.any(self.pair(self.layer(self.stem(x)))))
        return self.classifier(torch.flatten(self.pool(self.fixed(x)), 1))


VALUES = {
    "width": (8, 24), "kernel": (1, 3, 5), "layer": ("wide", "flat", "none"),
    "any": ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]), "depth": (1, 2, 3),
    **{f"inner_{i}": (8, 16) for i in range(3)},
}  # fmt: skip


@pytest.fixture(scope="module")
def everything() -> Any:
    return space_of(Everything(), SHAPE)


def test_space_with_all_kinds_of_choices_matches_nni(everything: Any) -> None:
    assert (everything.name, everything.input_shape) == ("Everything", SHAPE)
    assert_as_nni_makes_them(everything, Everything, 12)


def test_values_are_nnis_and_candidates_are_their_names(everything: Any) -> None:
    pairs = [[0, 1], [0, 2], [1, 2]] if LINE3 else [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
    expected = {**VALUES, "pair": tuple(pairs), **dict.fromkeys(("act_0", "act_1", "act_2"), (0, 1))}
    assert set(everything.values) == set(expected)
    for label, values in expected.items():
        known = everything.values[label]
        assert known == (tuple(map(str, values)) if label.startswith("act") and not LINE3 else values)
        assert everything.candidates[label] == tuple(map(candidate_name, values))
    assert everything.candidates["any"] == ("0", "1", "2", "0+1", "0+2", "1+2", "0+1+2")


def test_architectures_may_use_nnis_values(everything: Any) -> None:
    by_name = {label: known[-1] for label, known in everything.candidates.items()}
    by_value = {label: known[-1] for label, known in everything.values.items()}
    graph = everything.model_graph(by_name)
    for architecture in (by_value, by_value | {"any": [2, 0, 1]}):
        assert list(everything.model_graph(architecture)) == list(graph)


def test_name_and_arguments_of_a_space_reach_its_networks() -> None:
    space = space_of(Everything(4, classes=7), SHAPE, name="mine")
    assert (space.name, space.values["width"]) == ("mine", (4, 12))
    graph = space.model_graph({label: known[0] for label, known in space.candidates.items()})
    assert graph.nodes[graph.graph["outputs"][0]]["out_shapes"] == [(1, 7)]


@pytest.mark.parametrize("space", [Everything, lambda: spos("small"), lambda: proxylessnas("small")])
def test_places_show_what_decides_a_latency(space: Callable[[], Any]) -> None:
    """With places, the latency of every network is learned from a few."""
    made, predictor = space_of(space(), (1, 3, 32, 32)), load_latency_predictor("cortexA76cpu_tflite21")
    evaluated = []

    def evaluate(architecture: Any) -> dict[str, float]:
        evaluated.append(architecture)
        latencies = predictor.explain(made.model_graph(architecture)).kernel_graph.nodes(data="latency_ms")
        # Predictions in different batches may differ in the last digit.
        return {name: round(ms, 9) for name, ms in latencies if ms is not None}

    assert made.places is not None
    table = learn_influences(evaluate, made.candidates, made.places)
    assert len(evaluated) < 150
    rng = random.Random(1)
    for _ in range(8):
        architecture = {label: rng.choice(known) for label, known in made.candidates.items()}
        whole = predictor.explain(made.model_graph(architecture)).latency_ms
        learned = table.value(architecture)
        assert learned == pytest.approx(whole, rel=1e-5)


def test_space_of_layer_choices_is_read_in_one_trace() -> None:
    space = space_of(spos("small"))
    assert (space.name, space.input_shape) == ("ShuffleNetV2OneShot", (1, 3, 32, 32))
    assert space.blocks
    assert space.values == space.candidates


@model_space
class Shallow(ModelSpace):  # type: ignore[misc]
    """A choice of a layer in a list, of an input, of a depth, and of an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)], label="layer")
        self.skip = InputChoice(n_candidates=2, n_chosen=1, label="skip")
        self.tail = Repeat(lambda index: nn.Conv2d(4, 4, 3), (0, 2), label="depth")
        self.unread = LayerChoice([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)], label="unread")

    def forward(self, x: Any) -> Any:
        chosen = self.layer(x)
        return self.tail(self.skip([chosen, torch.relu(chosen)]))


def test_unused_choices_are_still_choices() -> None:
    space = space_of(Shallow(), SHAPE)
    assert set(space.candidates) == {"layer", "skip", "depth", "unread"}
    assert space.values["skip"] == (([0], [1]) if LINE3 else (0, 1))
    assert space.candidates["skip"] == ("0", "1")
    assert_as_nni_makes_them(space, Shallow, 6)


def test_building_networks_does_not_change_space_or_random_state() -> None:
    module = Everything().train()
    before = [(name, id(part), part.training) for name, part in module.named_modules()]
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    space = space_of(module, SHAPE)
    space.model_graph({label: known[-1] for label, known in space.candidates.items()})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [(name, id(part), part.training) for name, part in module.named_modules()] == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_user_space_is_loaded_by_name_and_built_for_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    space = load_space("test_nni_space:Everything", SHAPE)
    assert (space.name, space.input_shape) == ("Everything", SHAPE)
    assert type(make_space("test_nni_space:Everything")).__name__ == "Everything"
    assert type(make_space("spos-small")).__name__ == "ShuffleNetV2OneShot"


def test_space_that_is_not_a_module_is_rejected_for_experiments() -> None:
    with pytest.raises(SpaceError, match="toy_supernets:residual_supernet is a DiGraph"):
        make_space("toy_supernets:residual_supernet")


def test_model_without_choices_is_rejected() -> None:
    @model_space
    class Settled(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    for module in (Settled(), torch.nn.Conv2d(3, 4, 1), None):
        with pytest.raises(SpaceError, match=r"no choice|no search space|pass a ModelSpace"):
            space_of(module, SHAPE)


def test_shape_that_does_not_fit_is_rejected() -> None:
    with pytest.raises(ReaderError, match="cannot trace Everything"):
        space_of(Everything(), (1, 5, 16, 16))


def test_error_for_too_many_inputs_names_the_choice() -> None:
    @model_space
    class Many(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.choose = InputChoice(n_candidates=12, n_chosen=None, label="many")

        def forward(self, x: Any) -> Any:
            return self.choose([x] * 12)

    with pytest.raises(SpaceError, match="'many' chooses among more than 256"):
        space_of(Many(), SHAPE)


@only_3
def test_error_for_unlistable_values_names_the_choice() -> None:
    nni: Any = importlib.import_module("nni")

    class Continuous(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.drop = _nas.MutableDropout(nni.uniform("rate", 0.0, 1.0))

        def forward(self, x: Any) -> Any:
            return self.drop(x)

    with pytest.raises(SpaceError, match=r"'rate' is a .*, whose values cannot all be listed"):
        space_of(Continuous(), SHAPE)


class Unwrapped(torch.nn.Module):
    """A space whose arguments are not recorded."""

    def __init__(self, widths: Any) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, ValueChoice(widths, label="width"), 1)

    def forward(self, x: Any) -> Any:
        return self.layer(x)


@only_2_10
def test_error_for_a_space_that_cannot_be_rebuilt_names_the_way_out() -> None:
    message = r"Unwrapped was made with are not known.*model_wrapper.*chooses width"
    with pytest.raises(SpaceError, match=message):
        space_of(Unwrapped([4, 8]), SHAPE)


@only_2_10
def test_places_have_the_conditions_of_depths_and_of_candidates() -> None:
    places = space_of(Everything(), SHAPE).places
    assert places is not None
    assert "depth" not in {*places["tail.0"].labels, *places["tail.0"].conditions}  # it always runs
    assert places["tail.1"].conditions == {"depth": frozenset({"2", "3"})}
    assert places["layer.1"].conditions == {"layer": frozenset({"wide"})}  # others have no such part
    assert places["layer"].conditions == {}


@only_2_10
def test_weights_are_left_as_they_are_while_networks_are_made() -> None:
    class Drawn(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, ValueChoice([4, 8], label="width"), 1)
            self.register_buffer("drawn", torch.zeros(4))
            self.drawn.normal_()
            torch.nn.init.normal_(self.drawn)

    network = WrappedSpace(model_space(Drawn)()).network({"width": 8})
    assert not network.drawn.any()
    assert torch.zeros(4).normal_().any()


@only_2_10
def test_parameter_choices_in_plain_modules_are_choices() -> None:
    """In the module a ModelParameterChoice looks like a fixed value, and so it does in a trace."""

    @model_space
    class Plain(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            channels = _nas.ModelParameterChoice([4, 8], label="channels")
            self.stem = nn.Conv2d(3, channels, 1)
            self.act = LayerChoice([nn.ReLU(), nn.Sigmoid()], label="act")

        def forward(self, x: Any) -> Any:
            return self.act(self.stem(x))

    space = space_of(Plain(), SHAPE)
    assert space.values == {"channels": (4, 8), "act": ("0", "1")}
    assert_as_nni_makes_them(space, Plain, 4)


@only_2_10
def test_error_names_values_that_a_constructor_rejects() -> None:
    @model_space
    class Picky(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            groups = ValueChoice([1, 2], label="groups")
            self.layer = nn.Conv2d(3, 6, 1, groups=groups)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    with pytest.raises(SpaceError, match=r"Picky cannot be made with \{'groups': 2\}: ValueError"):
        space_of(Picky(), SHAPE)


@only_3
def test_modules_with_their_own_freeze_are_built_by_nni() -> None:
    class Doubling(_nas.MutableModule):  # type: ignore[misc]
        """Runs its choice once, or twice if it is a convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = LayerChoice([nn.Conv2d(3, 3, 1), nn.ReLU()], label="layer")

        def freeze(self, sample: Any) -> Any:
            layer = self.layer.freeze(sample)
            return torch.nn.Sequential(layer, layer) if sample["layer"] == 0 else layer

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    class Space(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.part = Doubling()

        def forward(self, x: Any) -> Any:
            return self.part(x)

    space = space_of(Space(), SHAPE)
    assert_as_nni_makes_them(space, Space, 3)
    assert [len(space.model_graph({"layer": name})) for name in ("0", "1")] == [3, 2]


@model_space
class OneCell(ModelSpace):  # type: ignore[misc]
    """A cell of one predecessor, handed as a tensor or as a list of one; each node has one operator."""

    def __init__(self, in_list: bool = False) -> None:
        super().__init__()
        self.in_list = in_list
        candidates = {"conv": nn.Conv2d(3, 3, 3, padding=1), "pool": nn.MaxPool2d(3, 1, 1)}
        self.cell = _nas.Cell(candidates, 2, num_ops_per_node=1, num_predecessors=1, label="cell")

    def forward(self, x: Any) -> Any:
        return self.cell([x] if self.in_list else x)


@pytest.mark.filterwarnings("error::nnmeter_nas.LatencyWarning")
def test_a_cell_of_one_tensor_costs_its_operators_and_warns_of_nothing() -> None:
    predictor = load_latency_predictor("cortexA76cpu_tflite21")
    found = []
    for in_list in (False, True):
        with warnings.catch_warnings(record=True) as warned:
            space = space_of(OneCell(in_list), SHAPE)
            graph = space.model_graph({label: known[0] for label, known in space.candidates.items()})
            found.append(predictor.predict(graph))
        assert not warned
    assert [op for _, op in graph.nodes(data="op")] == ["input", "conv", "conv", "concat"]
    assert found[0] == found[1]
