"""torchvision's models by name: of every kind, built without weights, or refused with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="builds torch modules")

from nnmeter_nas.cli.models import Models, Source
from nnmeter_nas.errors import QuantizedModelError, ReaderError
from nnmeter_nas.readers.torch.torchvision_models import read_torchvision
from torchvision_stand_in import write_torchvision


@pytest.fixture(scope="module", autouse=True)
def torchvision(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A stand-in for torchvision."""
    folder = tmp_path_factory.mktemp("stand-in")
    write_torchvision(folder)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("resnet18", [(1, 3, 224, 224)], [(1, 1000)]),
        ("inception_v3", [(1, 3, 299, 299)], [(1, 1000)]),
        ("regnet_y_400mf", [(1, 3, 224, 224)], [(1, 48, 28, 28)]),
        ("reads_its_weights", [(1, 3, 224, 224)], [(1, 8, 222, 222)]),
        ("deeplabv3_resnet50", [(1, 3, 520, 520)], [(1, 21, 520, 520)]),
        ("r3d_18", [(1, 3, 16, 112, 112)], [(1, 400)]),
        ("mvit_v2_s", [(1, 3, 16, 224, 224)], [(1, 400)]),
        ("raft_small", [(1, 3, 520, 960)] * 2, [(1, 2, 520, 960)] * 2),
    ],
)
def test_a_model_is_read_on_the_input_that_is_usual_for_its_kind(
    name: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]]
) -> None:
    graph = read_torchvision(name)
    assert [d["out_shapes"][0] for _, d in graph.nodes(data=True) if d["op"] == "input"] == inputs
    assert [graph.nodes[output]["out_shapes"][0] for output in graph.graph["outputs"]] == outputs


def test_another_input_may_be_given() -> None:
    graph = read_torchvision("deeplabv3_resnet50", (1, 3, 256, 256))
    assert [graph.nodes[output]["out_shapes"][0] for output in graph.graph["outputs"]] == [(1, 21, 256, 256)]


def test_the_command_asks_torchvision_once_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    asked, registry = [], torchvision.models
    builder_of = registry.get_model_builder
    monkeypatch.setattr(registry, "get_model_builder", lambda name: asked.append(name) or builder_of(name))
    [model] = Models([Source("squeezenet", "torchvision")], "", None)
    assert len(model.read()) > 1
    assert asked == ["squeezenet1_0"]


def test_a_quantised_model_is_refused_or_read_as_the_float_network() -> None:
    with pytest.raises(QuantizedModelError, match="pass 'resnet18', or allow_quantized=True"):
        read_torchvision("quantized_resnet18")
    graph = read_torchvision("quantized_resnet18", allow_quantized=True)
    assert graph.graph["quantized"]
    assert len(graph) == len(read_torchvision("resnet18"))


def test_a_detector_is_refused_with_the_reason() -> None:
    with pytest.raises(ReaderError, match=r"detects objects: it takes a list of images.*read its backbone"):
        read_torchvision("fasterrcnn_resnet50_fpn", (1, 3, 800, 800))
