"""A search space is read in one trace, and each of its architectures matches the network NNI builds."""

from __future__ import annotations

import importlib
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni")

from nni_networks import frozen  # noqa: E402
from nnmeter_nas import load_latency_predictor  # noqa: E402
from nnmeter_nas.errors import ReaderError, SpaceError  # noqa: E402
from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph, set_outputs  # noqa: E402
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn  # noqa: E402
from nnmeter_nas.readers.torch.module import read_torch_module  # noqa: E402
from nnmeter_nas.search_spaces import proxylessnas, spos  # noqa: E402
from nnmeter_nas.supernet.choices import blocks, choices, conditions, plain_architecture, select  # noqa: E402
from nnmeter_nas.supernet.tracing import read_supernet  # noqa: E402
from toy_supernets import choice, classifier, conv, residual_supernet  # noqa: E402

pytestmark = pytest.mark.nni3

InputChoice: Any = importlib.import_module("nni.nas.nn.pytorch").InputChoice
Repeat: Any = importlib.import_module("nni.nas.nn.pytorch").Repeat
DEVICE = "cortexA76cpu_tflite21"
SHAPE = (1, 3, 16, 16)


def kernels(graph: Any, device: str) -> tuple[list[Any], list[tuple[int, int]]]:
    """Kernels of a model graph and their edges, without names."""
    found = load_latency_predictor(device).pack.kernel_graph(graph)
    position = {name: i for i, name in enumerate(found)}
    nodes = [(k.type, k.attrs, k.in_shapes, k.out_shapes) for _, k in found.nodes(data="kernel")]
    return nodes, sorted((position[a], position[b]) for a, b in found.edges)


def assert_same_as_frozen(make: Callable[[], Any], architectures: int, shape: tuple[int, ...]) -> None:
    """Assert that random architectures of the supernet have the kernels of the networks NNI builds."""
    supernet = read_supernet(make(), shape)
    rng = random.Random(0)
    for _ in range(architectures):
        architecture = {label: rng.choice(known) for label, known in choices(supernet).items()}
        selected = select(supernet, architecture)
        built = read_torch_module(frozen(make, architecture), shape)
        for device in ("adreno640gpu_tflite21", "cortexA76cpu_tflite21"):
            assert kernels(selected, device) == kernels(built, device)
            ours, theirs = load_latency_predictor(device).explain_many([selected, built])
            assert ours.latency_ms == pytest.approx(theirs.latency_ms, rel=1e-12)


@pytest.mark.parametrize("make", [spos, proxylessnas])
def test_architectures_of_small_spaces_match_nnis(make: Any) -> None:
    assert_same_as_frozen(lambda: make("small"), 6, make("small").input_shape)


@pytest.mark.slow
@pytest.mark.parametrize("make", [spos, proxylessnas])
def test_architectures_of_imagenet_spaces_match_nnis(make: Any) -> None:
    assert_same_as_frozen(make, 3, make().input_shape)


def test_choices_are_in_execution_order() -> None:
    found = choices(read_supernet(spos("small"), spos("small").input_shape))
    assert list(found) == [f"layer_{i}" for i in range(1, 7)]
    assert set(found.values()) == {("k3", "k5", "k7", "xception")}


def space_of(make_layers: Callable[[], list[Any]]) -> Any:
    """A space that runs its layers in a row. NNI 3.0 requires choices to be made inside its constructor."""

    @model_space
    class Row(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*make_layers())

        def forward(self, x: Any) -> Any:
            return self.layers(x)

    return Row()


class Halving(torch.nn.Module):
    """A plain torch module without an NNI class."""

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.avg_pool2d(x, 2)


def test_plain_torch_modules_and_lists_of_candidates_are_read() -> None:
    space = space_of(lambda: [LayerChoice([torch.nn.Conv2d(3, 8, 3, stride=2), Halving()], label="a")])
    supernet = read_supernet(space, SHAPE)
    assert choices(supernet) == {"a": ("0", "1")}
    assert [d["op"] for _, d in select(supernet, {"a": "0"}).nodes(data=True)] == ["input", "conv"]
    assert [d["op"] for _, d in select(supernet, {"a": 1}).nodes(data=True)] == ["input", "avgpool"]


def test_in_place_candidate_does_not_change_the_others_input() -> None:
    def layers() -> list[Any]:
        inplace = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 8, 3))
        return [LayerChoice([inplace, nn.Conv2d(3, 8, 3)], label="a")]

    supernet = read_supernet(space_of(layers), SHAPE)
    assert [d["op"] for _, d in select(supernet, {"a": "0"}).nodes(data=True)] == ["input", "relu", "conv"]
    assert [d["op"] for _, d in select(supernet, {"a": "1"}).nodes(data=True)] == ["input", "conv"]


def test_effects_of_a_choice_on_later_layers_are_inferred_again() -> None:
    def layers() -> list[Any]:
        strides = [nn.Conv2d(3, 8, 3, stride=s, padding=1) for s in (1, 2)]
        return [LayerChoice(strides, label="stride"), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1)]

    supernet = read_supernet(space_of(layers), SHAPE)
    shapes = [
        [d["out_shapes"][0] for _, d in select(supernet, {"stride": c}).nodes(data=True)] for c in ("0", "1")
    ]
    assert shapes[0] == [SHAPE, (1, 8, 16, 16), (1, 4, 14, 14), (1, 4, 1, 1)]
    assert shapes[1] == [SHAPE, (1, 8, 8, 8), (1, 4, 6, 6), (1, 4, 1, 1)]


def test_nested_choices_are_read() -> None:
    def layers() -> list[Any]:
        inner = OrderedDict(k1=nn.Conv2d(8, 8, 1), k3=nn.Conv2d(8, 8, 3, padding=1))
        deep = nn.Sequential(nn.Conv2d(3, 8, 1), LayerChoice(inner, label="inner"))
        return [LayerChoice(OrderedDict(deep=deep, flat=nn.Conv2d(3, 8, 1)), label="outer")]

    supernet = read_supernet(space_of(layers), SHAPE)
    sizes = {
        (o, i): len(select(supernet, {"outer": o, "inner": i}))
        for o in ("deep", "flat")
        for i in ("k1", "k3")
    }
    assert sizes == {("deep", "k1"): 3, ("deep", "k3"): 3, ("flat", "k1"): 2, ("flat", "k3"): 2}
    assert sorted(set(blocks(supernet).values())) == [
        ("inner", "k1"), ("inner", "k3"), ("outer", "deep"), ("outer", "flat"),
    ]  # fmt: skip


class Branches(ModelSpace):  # type: ignore[misc]
    """Two branches and an input choice of one or both of them."""

    def __init__(self, n_chosen: int | None = 1) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.choose = InputChoice(n_candidates=2, n_chosen=n_chosen, label="skip")

    def forward(self, x: Any) -> Any:
        return self.choose([self.small(x), self.large(x)])


def test_input_choices_are_read() -> None:
    supernet = read_supernet(model_space(Branches)(), SHAPE)
    assert choices(supernet) == {"skip": ("0", "1")}
    # NNI 3.0 samples a list for a choice of inputs.
    assert [list(select(supernet, {"skip": c})) for c in ("0", [1])] == [
        ["input", "small"],
        ["input", "large"],
    ]


def repeated() -> Any:
    """A space that repeats a layer choice one to three times."""

    @model_space
    class Repeated(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.layers = Repeat(self.layer, (1, 3), label="depth")

        @staticmethod
        def layer(i: int) -> Any:
            acts = OrderedDict(relu=nn.ReLU(inplace=True), sigmoid=nn.Sigmoid())
            return nn.Sequential(LayerChoice(acts, label=f"act_{i}"), nn.Conv2d(8, 8, 3))

        def forward(self, x: Any) -> Any:
            return self.layers(self.stem(x))

    return Repeated()


def test_choices_of_depth_are_read() -> None:
    supernet = read_supernet(repeated(), SHAPE)
    acts = ("relu", "sigmoid")
    assert choices(supernet) == {"act_0": acts, "act_1": acts, "act_2": acts, "depth": ("1", "2", "3")}
    for depth in (1, 2, 3):
        architecture = {"depth": depth, "act_0": "sigmoid", "act_1": "relu", "act_2": "sigmoid"}
        selected = select(supernet, architecture)
        built = read_torch_module(frozen(repeated, architecture), SHAPE)
        assert kernels(selected, DEVICE) == kernels(built, DEVICE)


def test_conditions_are_the_candidates_an_operator_needs() -> None:
    needed = conditions(read_supernet(repeated(), SHAPE))
    for name, met in {
        "stem": {},
        "layers.blocks.0.1": {},
        "layers.blocks.0.0.relu": {"act_0": {"relu"}},
        "layers.blocks.1.1": {"depth": {"2", "3"}},
        "layers.blocks.2.0.sigmoid": {"depth": {"3"}, "act_2": {"sigmoid"}},
    }.items():
        assert needed[name] == met


def test_error_for_choosing_several_inputs_names_the_label() -> None:
    with pytest.raises(SpaceError, match="'skip' has n_chosen=2"):
        read_supernet(model_space(Branches)(2), SHAPE)


def test_error_for_choices_fixed_by_tracing_names_the_label() -> None:
    value_choice = importlib.import_module("nni.nas.nn.pytorch").ValueChoice

    def layers() -> list[Any]:
        acts = LayerChoice([nn.Identity(), nn.ReLU()], label="a")
        return [acts, nn.Conv2d(3, value_choice([4, 8], label="width"), 3)]

    with pytest.raises(SpaceError, match="chooses width by other than"):
        read_supernet(space_of(layers), SHAPE)


def test_reading_does_not_change_the_space() -> None:
    def state() -> list[tuple[bool, set[str]]]:
        # NNI 3.0 builds its list of a module's choices on first access.
        return [(part.training, set(vars(part)) - {"_mutables"}) for part in space.modules()]

    space = proxylessnas("small").train()
    before, weights = state(), {name: value.clone() for name, value in space.state_dict().items()}
    read_supernet(space, space.input_shape)
    assert state() == before
    assert all(torch.equal(value, weights[name]) for name, value in space.state_dict().items())


def test_failed_reading_does_not_change_the_space() -> None:
    space = space_of(lambda: [LayerChoice([nn.Conv2d(5, 8, 3)], label="a")])
    with pytest.raises(ReaderError, match="cannot trace"):
        read_supernet(space, SHAPE)
    assert not any("forward" in vars(part) for part in space.modules())


def test_candidates_with_different_kinds_of_output_are_rejected() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x, x

    space = space_of(lambda: [LayerChoice(OrderedDict(one=nn.ReLU(), two=Pair()), label="a")])
    with pytest.raises(SpaceError, match="'one' and 'two' of the choice 'a'"):
        read_supernet(space, SHAPE)


@pytest.mark.parametrize("module", [torch.nn.Conv2d(3, 8, 3), "a space"])
def test_model_without_choices_is_rejected(module: Any) -> None:
    with pytest.raises(SpaceError, match="no search space"):
        read_supernet(module, SHAPE)


def test_selecting_does_not_change_the_supernet() -> None:
    supernet = residual_supernet()
    before = {name: (data["op"], list(data["inputs"])) for name, data in supernet.nodes(data=True)}
    select(supernet, dict.fromkeys(choices(supernet), "zero"))
    assert {name: (data["op"], data["inputs"]) for name, data in supernet.nodes(data=True)} == before


def test_zero_candidate_does_not_remove_the_skip_path() -> None:
    supernet = residual_supernet(layers=2)
    graph = select(supernet, {"layer_1": "zero", "layer_2": "k3"})
    assert [name for name in graph if name.startswith("layer")] == [
        "layer_2.k3", "layer_2.k3.bn", "layer_2.k3.relu", "layer_2.add",
    ]  # fmt: skip
    assert graph.nodes["layer_2.add"]["inputs"] == [("stem.relu", 0), ("layer_2.k3.relu", 0)]


def test_choices_with_the_same_label_are_made_together() -> None:
    graph = new_graph()
    x = add_input(graph, "input", SHAPE)
    for i in (1, 2):
        candidates = {f"k{k}": conv(graph, f"{i}.k{k}", x, 8, k) for k in (3, 5)}
        attrs = {"label": "kernel", "candidates": tuple(candidates)}
        x = add_op(graph, f"choice_{i}", "choice", list(candidates.values()), attrs)
    classifier(graph, x)
    assert choices(graph) == {"kernel": ("k3", "k5")}
    assert {"1.k5", "2.k5"} < set(select(graph, {"kernel": "k5"}))


def test_choices_with_the_same_label_but_other_candidates_are_rejected() -> None:
    graph = new_graph()
    x = add_input(graph, "input", SHAPE)
    for i, candidates in enumerate([("a", "b"), ("a", "c")]):
        relus = [add_op(graph, f"{i}{c}", "relu", [x]) for c in candidates]
        x = add_op(graph, f"choice_{i}", "choice", relus, {"label": "twice", "candidates": candidates})
    with pytest.raises(SpaceError, match="labelled 'twice' differ"):
        choices(graph)


def test_a_choice_may_be_an_output() -> None:
    graph = new_graph()
    x = add_input(graph, "input", SHAPE)
    set_outputs(
        graph,
        [choice(graph, "last", a=add_op(graph, "a", "relu", [x]), b=add_op(graph, "b", "sigmoid", [x]))],
    )
    assert select(graph, {"last": "b"}).graph["outputs"] == ["b"]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"layer_1": "k3"}, "leaves open layer_2"),
        ({"layer_1": "k3", "layer_2": "k9"}, "'layer_2' has no candidate 'k9'; did you mean 'k"),
        ({"layer_1": "k3", "layer_2": ["k3", "k5"]}, "'layer_2' has no candidate"),
        ({"layer_1": "k3", "layer_2": "k3", "layer_9": "k3"}, "no choice 'layer_9'"),
        (["k3", "k5"], "of type list"),
    ],
)
def test_error_for_another_spaces_architecture_names_the_label(architecture: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        plain_architecture(architecture, choices(residual_supernet(layers=2)))
