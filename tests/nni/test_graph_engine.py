"""What the graph engine of either NNI line cannot take is refused in a sentence that says what can."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.nas")

from nnmeter_nas.errors import SpaceError  # noqa: E402
from nnmeter_nas.nni import RETIARII, nni_line, patch, unpatch  # noqa: E402
from nnmeter_nas.nni.space_api import LayerChoice, ModelSpace, model_space, nn  # noqa: E402

pytestmark = [pytest.mark.nni3, pytest.mark.filterwarnings("ignore")]

_nas: Any = importlib.import_module("nni.nas.nn.pytorch")


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    """NNI as it is while an experiment of this package runs."""
    patch()
    yield
    unpatch()


def to_graph(space: Any) -> None:
    """Make the graph of a space like an experiment of the installed line."""
    if nni_line() == RETIARII:
        importlib.import_module("nni.nas.experiment.pytorch").preprocess_model(space, None, [], full_ir=True)
        return
    home: Any = importlib.import_module("nni.nas.experiment")
    experiment = SimpleNamespace(model_space=space, evaluator=None)
    graph = importlib.import_module("nni.nas.experiment.config").GraphModelFormatConfig()
    home.NasExperiment.executable_model_factory(experiment, graph)


@model_space
class WithCell(ModelSpace):  # type: ignore[misc]
    """NNI's own cell takes any number of inputs, which TorchScript does not."""

    def __init__(self) -> None:
        super().__init__()
        candidates = {"conv": nn.Conv2d(3, 3, 3, padding=1), "pool": nn.MaxPool2d(3, 1, 1)}
        self.cell = _nas.Cell(candidates, 1, num_ops_per_node=1, num_predecessors=1, label="cell")

    def forward(self, x: Any) -> Any:
        return self.cell([x])


class _Any(torch.nn.Module):
    """A module of the user that TorchScript does not take."""

    def forward(self, *tensors: Any) -> Any:
        return sum(tensors)


@model_space
class WithOwnModule(ModelSpace):  # type: ignore[misc]
    """A choice, and a module of the user."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)], label="layer")
        self.own = _Any()

    def forward(self, x: Any) -> Any:
        return self.own(self.layer(x))


@pytest.mark.parametrize(("kind", "part"), [(WithCell, "Cell"), (WithOwnModule, "_Any")])
def test_what_torchscript_cannot_take_is_named_with_its_line_and_the_way_out(kind: Any, part: str) -> None:
    with pytest.raises(SpaceError) as refused:
        to_graph(kind())
    message = str(refused.value)
    assert message.startswith(f"NNI's graph engine cannot take {kind.__name__}")
    assert f"the code of {part} at " in message
    assert "variable number of arguments" in message
    assert "search with engine=py" in message
    assert "\n" not in message


def test_a_space_that_the_engine_takes_is_made() -> None:
    @model_space
    class Plain(ModelSpace):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = LayerChoice([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)], label="layer")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    to_graph(Plain())
