"""ProxylessNAS meets a latency, goes on where it was interrupted, and its outcome can be used."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="needs NNI 2.10.1")
pytest.importorskip("sklearn", reason="needs the digits")

from nni.retiarii import fixed_arch  # noqa: E402
from nni.retiarii.nn.pytorch import LayerChoice  # noqa: E402
from nni.retiarii.oneshot.pytorch.proxyless import ProxylessLayerChoice  # noqa: E402
from PIL import Image  # noqa: E402

from nnmeter_nas import LatencyWarning, load_latency_predictor  # noqa: E402
from nnmeter_nas.cli import main  # noqa: E402
from nnmeter_nas.errors import DatasetError, SearchError, SettingsError, SpaceError  # noqa: E402
from nnmeter_nas.estimators import AddHinge, HardwareLatencyEstimator, MulLog, proxyless_training  # noqa: E402
from nnmeter_nas.estimators.datasets import Batches, load_dataset  # noqa: E402
from nnmeter_nas.estimators.proxyless import search_for_device, train_found  # noqa: E402
from nnmeter_nas.estimators.proxyless_choice import Choices  # noqa: E402
from nnmeter_nas.estimators.proxyless_log import TrainingLog, read_log  # noqa: E402
from nnmeter_nas.estimators.proxyless_retrain import read_architecture, retrain  # noqa: E402
from nnmeter_nas.estimators.proxyless_search import SearchSettings, chosen_network, search  # noqa: E402
from nnmeter_nas.estimators.proxyless_task import Task  # noqa: E402
from nnmeter_nas.estimators.proxyless_training import WeightSettings, Workplace  # noqa: E402
from nnmeter_nas.nni import unpatch  # noqa: E402
from nnmeter_nas.nni.proxyless import patch_proxyless  # noqa: E402
from nnmeter_nas.search_spaces import proxylessnas  # noqa: E402

COMMAND = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
DEVICE = "cortexA76cpu_tflite21"
OTHER_DEVICE = "myriadvpu_openvino2019r2"
#: A space of three choices, the last of which may leave its layer out.
TINY = {"input_size": 16, "depths": (1, 2), "channels": (8, 8), "strides": (2, 2), "stem_channels": 8,
        "head_channels": 16}  # fmt: skip
SHAPE = (1, 3, 16, 16)
TINY_FLAGS = ["--n_cell_stages", "1,2", "--width-stages", "8,8", "--stride_stages", "2,2"]
BATCH = 128


def tiny() -> Any:
    """The space that the fast tests search."""
    return proxylessnas("small", **TINY)


def settings(**values: Any) -> SearchSettings:
    """Of a search of a few steps: 5 an epoch."""
    usual = {"epochs": 2, "warmup_epochs": 0, "settle_epochs": 0, "train_batch_size": BATCH}
    return SearchSettings(**{**usual, **values})


@pytest.fixture(scope="module")
def estimator() -> HardwareLatencyEstimator:
    return HardwareLatencyEstimator(DEVICE, tiny(), SHAPE, dump_lat_table=None)


@pytest.fixture(scope="module")
def dataset() -> Any:
    return load_dataset("digits", input_shape=SHAPE)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range measured:nnmeter_nas.LatencyWarning")


class Interrupted(BaseException):
    """Ends a search as a signal would."""


class Stopping:
    """An estimator that ends the search when it is asked for the ``after``-th time."""

    def __init__(self, estimator: HardwareLatencyEstimator, after: int) -> None:
        self.estimator, self.left = estimator, after

    def cal_expected_latency(self, probabilities: Mapping[str, Any]) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        return self.estimator.cal_expected_latency(probabilities)

    def export_latency(self, architecture: Mapping[str, Any]) -> float:
        return self.estimator.export_latency(architecture)

    @property
    def table(self) -> Any:
        return self.estimator.table


# The architecture's gradient


class Scale(torch.nn.Module):
    """Multiplies by a weight."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(by))

    def forward(self, x: Any) -> Any:
        return x * self.weight


class Scales(torch.nn.Module):
    """A space whose loss is known for any odds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Scale(1.0)
        self.choice = LayerChoice([Scale(0.5), Scale(-1.0), Scale(2.0)], label="scale")

    def forward(self, x: Any) -> Any:
        return self.choice(self.stem(x))


def test_architecture_gets_the_gradient_of_the_task_and_of_latency() -> None:
    space, ms = Scales(), torch.tensor([3.0, 1.0, 5.0])
    choices = Choices(space)
    choice = choices.by_label["scale"]
    torch.nn.init.normal_(choice.alpha)
    x = torch.randn(4)
    choices.draw()
    with choices.learning():
        loss = (space(x) ** 2).sum() + 0.7 * choice.export_prob() @ ms
        loss.backward()
    # Of a mixture that stands, for now, on the drawn candidate alone.
    gates = torch.nn.functional.one_hot(torch.tensor(choice.sampled), 3).float().requires_grad_()
    mixed = sum(gate * op(x) for gate, op in zip(gates, choice.ops, strict=True))
    (by_gate,) = torch.autograd.grad((mixed**2).sum(), gates)
    alpha = choice.alpha.detach().clone().requires_grad_()
    (0.7 * alpha.softmax(0) @ ms + alpha.softmax(0) @ by_gate).backward()
    torch.testing.assert_close(choice.alpha.grad, alpha.grad)


def test_gradient_of_the_gates_is_that_of_nni() -> None:
    ours = Choices(space := Scales()).by_label["scale"]
    theirs = ProxylessLayerChoice([Scale(1.0) for _ in range(3)])
    assert space.choice is ours
    torch.nn.init.normal_(ours.alpha)
    theirs.alpha.data = ours.alpha.data.clone()
    for choice in (ours, theirs):
        choice._binary_gates.grad = torch.tensor([0.3, -2.0, 1.1])
        choice.alpha.grad = torch.tensor([0.1, 0.2, 0.3])
        choice.finalize_grad()
    torch.testing.assert_close(ours.alpha.grad, theirs.alpha.grad)


@pytest.fixture(params=[False, True], ids=["NNI as it is", "NNI patched"])
def maybe_patched(request: pytest.FixtureRequest) -> Iterator[None]:
    """NNI's own ProxylessNAS without and with the patch that lets its candidates' weights learn."""
    unpatch()
    user = Scales()
    if request.param:
        patch_proxyless(user)
    yield
    unpatch()


@pytest.mark.usefixtures("maybe_patched")
def test_weights_learn_in_their_steps_and_architecture_in_its_own() -> None:
    choices = Choices(space := Scales())
    choice = choices.by_label["scale"]
    choices.draw()
    space(torch.ones(2)).sum().backward()
    trained = [op.weight.grad is not None for op in choice.ops]
    assert trained == [place == choice.sampled for place in range(3)]
    assert choice.alpha.grad is None
    for op in choice.ops:
        op.weight.grad = None
    with choices.learning():
        space(torch.ones(2)).sum().backward()
    assert [op.weight.grad for op in choice.ops] == [None] * 3
    assert choice.alpha.grad.abs().sum() > 0


def test_a_space_that_cannot_be_searched_is_refused() -> None:
    with pytest.raises(SearchError, match="no LayerChoice"):
        Choices(torch.nn.Linear(2, 2))
    twice = torch.nn.Sequential(*(LayerChoice([Scale(1.0), Scale(2.0)], label="same") for _ in range(2)))
    with pytest.raises(SearchError, match="share a label"):
        Choices(twice)


# Searching


def expected_at_end(folder: Path, dataset: Any, estimator: Any, **values: Any) -> float:
    result = search(tiny, dataset, estimator, settings(arc_learning_rate=0.1, **values), Workplace(folder))
    return result.expected_latency_ms


def expected_at_equal_odds(estimator: Any) -> float:
    sizes = {label: len(known) for label, known in estimator.table.candidates.items()}
    return float(estimator.table.expected({label: np.full(size, 1 / size) for label, size in sizes.items()}))


def test_latency_follows_the_reference(tmp_path: Path, dataset: Any, estimator: Any) -> None:
    start = expected_at_equal_odds(estimator)
    aims = {"half": start / 2, "double": start * 2}
    found = {
        name: expected_at_end(
            tmp_path / name, dataset, estimator, reference_latency=reference,
            grad_reg_loss_type="add#linear", grad_reg_loss_params={"lambda": 1.0},
        )
        for name, reference in aims.items()
    }
    assert found["half"] < found["double"] < start
    by_factor = expected_at_end(
        tmp_path / "mul", dataset, Slower(estimator), reference_latency=20.0, grad_reg_loss_type="mul#log"
    )
    assert by_factor < 100 * start


class Slower:
    """A device that takes a hundred times as long, so that logarithms of its latencies are positive."""

    def __init__(self, estimator: HardwareLatencyEstimator) -> None:
        self.estimator = estimator

    def cal_expected_latency(self, probabilities: Mapping[str, Any]) -> Any:
        return 100 * self.estimator.cal_expected_latency(probabilities)

    def export_latency(self, architecture: Mapping[str, Any]) -> float:
        return 100 * self.estimator.export_latency(architecture)

    @property
    def table(self) -> Any:
        raise AssertionError("NNI's losses set no limit, so nothing is looked up")


def test_architecture_keeps_still_while_weights_warm_up(tmp_path: Path, dataset: Any, estimator: Any) -> None:
    warm = settings(epochs=2, warmup_epochs=1, reference_latency=0.02)
    search(tiny, dataset, estimator, warm, Workplace(tmp_path))
    log = read_log(tmp_path / "search.csv")
    assert len(set(log["expected_latency_ms"][:5])) == 1
    assert (np.diff(log["expected_latency_ms"][5:]) != 0).all()
    assert (log["latency_penalty"][5:] > 0).all()
    assert (log["latency_penalty"][:5] == 0).all()
    np.testing.assert_allclose(log["loss"], log["cross_entropy"] + log["latency_penalty"], atol=1e-5)
    with pytest.raises(SettingsError, match="warmup_epochs=1 and settle_epochs=1 leave none of 2 epochs"):
        settings(warmup_epochs=1, settle_epochs=1)


@pytest.mark.parametrize("reference", [0.018, 0.024])
def test_network_found_is_within_the_reference_though_likelier_ones_are_not(
    tmp_path: Path, dataset: Any, estimator: Any, reference: float
) -> None:
    aim = settings(epochs=1, reference_latency=reference, arc_learning_rate=1e-6)
    found = search(tiny, dataset, estimator, aim, Workplace(tmp_path))
    assert found.expected_latency_ms == pytest.approx(expected_at_equal_odds(estimator), rel=1e-4)
    assert found.expected_latency_ms > reference
    assert found.table_latency_ms <= reference
    assert found.table_latency_ms == estimator.export_latency(found.architecture)


def test_last_epochs_train_the_network_found_and_nothing_else(
    tmp_path: Path, dataset: Any, estimator: Any
) -> None:
    aim = settings(epochs=3, settle_epochs=1, reference_latency=0.024)
    with pytest.raises(Interrupted):  # asked twice a step, so in the first step of the last epoch
        search(tiny, dataset, Stopping(estimator, after=20), aim, Workplace(tmp_path))
    before = torch.load(tmp_path / "search.pt", weights_only=True)["network"]
    found = search(tiny, dataset, estimator, aim, Workplace(tmp_path))
    after = torch.load(tmp_path / "search.pt", weights_only=True)["network"]
    choices = Choices(space := tiny()).by_label
    places = {id(choice): name for name, choice in space.named_modules()}
    trained = {
        f"{places[id(choice)]}.ops.{choice.names.index(found.architecture[label])}."
        for label, choice in choices.items()
    }
    moved = {name for name, values in after.items() if not torch.equal(values, before[name])}
    assert not [name for name in moved if "alpha" in name]
    of_candidates = {name for name in moved if ".ops." in name}
    assert of_candidates
    assert all(any(name.startswith(place) for place in trained) for name in of_candidates)


def test_penalty_is_a_limit_unless_told_otherwise() -> None:
    assert settings().penalty() is None
    by_price = settings(reference_latency=3.0, grad_reg_loss_type="add#linear")
    assert settings().limit == by_price.limit == np.inf
    assert settings(reference_latency=3.0).penalty() == AddHinge(3.0, 1.0)
    assert settings(reference_latency=3.0).limit == 3.0
    given = settings(reference_latency=3.0, grad_reg_loss_params={"lambda": 0.1})
    assert given.penalty() == AddHinge(3.0, 0.1)
    by_factor = settings(reference_latency=3.0, grad_reg_loss_type="mul#log")
    assert by_factor.penalty() == MulLog(3.0, 1.0, 0.6)


def test_short_searches_take_larger_steps() -> None:
    assert settings(epochs=2).odds_rate(5) == 0.05
    assert settings(epochs=20).odds_rate(50) == settings(epochs=25, settle_epochs=5).odds_rate(50) == 0.025
    assert settings(epochs=100).odds_rate(1000) == 1e-3
    assert settings(arc_learning_rate=0.3).odds_rate(5) == 0.3


# Interruptions


def test_interrupted_search_ends_as_if_it_had_not_been(
    tmp_path: Path, dataset: Any, estimator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    aim = settings(reference_latency=0.3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = search(tiny, dataset, estimator, aim, Workplace(whole))
    # Asked twice a step: the second interruption is behind a checkpoint in the middle of an epoch.
    with pytest.raises(Interrupted):
        search(tiny, dataset, Stopping(estimator, after=7), aim, Workplace(parts))
    assert not (parts / "search.pt").exists()
    monkeypatch.setattr(proxyless_training, "CHECKPOINT_S", 0.0)
    with pytest.raises(Interrupted):
        search(tiny, dataset, Stopping(estimator, after=6), aim, Workplace(parts))
    with (parts / "search.csv").open("a") as file:
        file.write("4,1,0.5,2.0,2.0,0.0,3.0,0.1,\n5,1,0.")  # a step behind the checkpoint, and a torn one
    torch.rand(3)  # what happens in between does not matter
    assert search(tiny, dataset, estimator, aim, Workplace(parts)) == expected
    assert (parts / "search.csv").read_text() == (whole / "search.csv").read_text()
    states = [torch.load(folder / "search.pt", weights_only=True) for folder in (whole, parts)]
    assert states[0]["step"] == states[1]["step"] == 10
    for part in ("network", "optimizers", "random"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)
    before = (whole / "search.pt").stat().st_mtime_ns
    assert search(tiny, dataset, estimator, aim, Workplace(whole)) == expected
    assert (whole / "search.pt").stat().st_mtime_ns == before


class Unplugged:
    """Images that end the training when they are asked for the ``after``-th batch."""

    def __init__(self, images: Any, after: int) -> None:
        self.images, self.left = images, after

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, chosen: np.ndarray, rng: np.random.Generator | None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        return self.images.batch(chosen, rng)


def test_interrupted_training_of_an_architecture_goes_on_as_well(tmp_path: Path, dataset: Any) -> None:
    architecture = {"layer_1": "k3_e3", "layer_2": "k5_e6", "layer_3": "zero"}
    weights = WeightSettings(epochs=3, train_batch_size=BATCH)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    network, accuracy = retrain(tiny, architecture, dataset, weights, Workplace(whole))
    unplugged = dataclasses.replace(dataset, train=Unplugged(dataset.train, after=14))
    with pytest.raises(Interrupted):
        retrain(tiny, architecture, unplugged, weights, Workplace(parts))
    again, accuracy_again = retrain(tiny, architecture, dataset, weights, Workplace(parts))
    assert accuracy_again == accuracy
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
    assert (parts / "retrain.csv").read_text() == (whole / "retrain.csv").read_text()
    with pytest.raises(SearchError, match=r"architecture is \{.*'zero'\} there"):
        retrain(tiny, {**architecture, "layer_3": "k3_e3"}, dataset, weights, Workplace(parts))


def test_checkpoint_of_something_else_is_refused_and_kept(
    tmp_path: Path, dataset: Any, estimator: Any
) -> None:
    search(tiny, dataset, estimator, settings(epochs=1), Workplace(tmp_path))
    checkpoint = tmp_path / "search.pt"
    kept = checkpoint.read_bytes()
    with pytest.raises(SearchError, match="belongs to another training: seed is 0 there and 1 here"):
        search(tiny, dataset, estimator, settings(epochs=1, seed=1), Workplace(tmp_path))
    assert checkpoint.read_bytes() == kept
    checkpoint.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(SearchError, match=r"search.pt is damaged or no checkpoint"):
        search(tiny, dataset, estimator, settings(epochs=1), Workplace(tmp_path))
    assert checkpoint.read_bytes() == kept[: len(kept) // 2]
    flipped = bytearray(kept)
    for place in range(len(kept) // 2, len(kept) // 2 + 64):
        flipped[place] ^= 0xFF
    checkpoint.write_bytes(flipped)
    torch.load(checkpoint, weights_only=True)  # torch alone does not see it
    with pytest.raises(SearchError, match=r"search.pt is damaged or no checkpoint"):
        search(tiny, dataset, estimator, settings(epochs=1), Workplace(tmp_path))
    torch.save({"weights": torch.ones(2)}, checkpoint)
    with pytest.raises(SearchError, match="damaged or no checkpoint"):
        search(tiny, dataset, estimator, settings(epochs=1), Workplace(tmp_path))


def test_search_that_goes_astray_keeps_the_last_good_state(
    tmp_path: Path, dataset: Any, estimator: Any
) -> None:
    class Astray(Stopping):
        def cal_expected_latency(self, probabilities: Mapping[str, Any]) -> Any:
            try:
                return super().cal_expected_latency(probabilities)
            except Interrupted:
                return torch.tensor(float("nan"))

    astray = Astray(estimator, after=14)
    with pytest.raises(SearchError, match="went astray"):
        search(tiny, dataset, astray, settings(reference_latency=0.3), Workplace(tmp_path))
    state = torch.load(tmp_path / "search.pt", weights_only=True)
    assert state["step"] == 5
    assert all(values.isfinite().all() for values in state["network"].values())


def test_weights_that_explode_end_the_search(tmp_path: Path, dataset: Any, estimator: Any) -> None:
    with pytest.raises(SearchError, match=r"step 1: .*(nan|not finite); lower learning_rate"):
        search(tiny, dataset, estimator, settings(learning_rate=1e30), Workplace(tmp_path))
    assert not (tmp_path / "search.pt").exists()


def test_log_drops_rows_behind_the_checkpoint(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, "course", ["step", "loss"], 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": step / 3})
    log.close()
    again = TrainingLog(tmp_path, "course", ["step", "loss"], 2)
    again.write({"step": 3, "loss": None})
    again.close()
    found = read_log(tmp_path / "course.csv")
    assert found["step"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found["loss"], [1 / 3, 2 / 3, np.nan])


# One process a folder


def test_two_searches_in_one_folder_do_not_both_succeed(tmp_path: Path) -> None:
    task = Task(stages=TINY, device="cpu")
    refused: list[str] = []

    def meanwhile(line: str) -> None:
        for folder in (tmp_path, tmp_path / "other"):
            with pytest.raises(SearchError, match="another process works on the search in") as caught:
                search_for_device(task, DEVICE, settings(epochs=1, seed=1), folder, tmp_path / "state.pt")
            refused.append(str(caught.value))

    search_for_device(task, DEVICE, settings(epochs=1), tmp_path, tmp_path / "state.pt", say=meanwhile)
    assert len(refused) == 2
    assert json.loads((tmp_path / "search.json").read_text())["settings"]["seed"] == 0
    with pytest.raises(SearchError, match="seed is 0 there and 1 here"):  # the lock is gone, the state is not
        search_for_device(task, DEVICE, settings(epochs=1, seed=1), tmp_path, tmp_path / "state.pt")


def test_two_trainings_in_one_folder_do_not_both_succeed(tmp_path: Path) -> None:
    from nnmeter_nas.files import lock_folder

    task = Task(stages=TINY, device="cpu")
    (tmp_path / "arch.json").write_text('{"layer_1": 0, "layer_2": 0, "layer_3": 0}')
    weights = WeightSettings(epochs=1, train_batch_size=BATCH)
    lock = lock_folder(tmp_path, "retrain.lock", "retrain")
    with pytest.raises(SearchError, match="another process works on the retrain in"):
        train_found(task, tmp_path / "arch.json", DEVICE, weights, tmp_path)
    lock.release()
    train_found(task, tmp_path / "arch.json", DEVICE, weights, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_search_and_training_run_on_a_gpu_and_go_on_there(
    tmp_path: Path, dataset: Any, estimator: Any
) -> None:
    device = proxyless_training.torch_device("cuda")
    aim = settings(epochs=3, settle_epochs=1, reference_latency=0.3)
    whole, parts = Workplace(tmp_path / "whole", device=device), Workplace(tmp_path / "parts", device=device)
    expected = search(tiny, dataset, estimator, aim, whole)
    assert expected.table_latency_ms <= 0.3
    with pytest.raises(Interrupted):
        search(tiny, dataset, Stopping(estimator, after=14), aim, parts)
    state = torch.load(tmp_path / "parts" / "search.pt", weights_only=True)
    assert state["cuda_random"] is not None
    assert {values.device.type for values in state["network"].values()} == {"cuda"}
    found = search(tiny, dataset, estimator, aim, parts)
    assert found.table_latency_ms <= 0.3
    weights = WeightSettings(epochs=2, train_batch_size=BATCH)
    network, accuracy = retrain(tiny, found.architecture, dataset, weights, whole)
    assert {parameter.device.type for parameter in network.parameters()} == {"cuda"}
    assert accuracy > 0.15
    (tmp_path / "arch.json").write_text(json.dumps(found.architecture))
    task = Task(stages=TINY, device="cuda")
    trained = train_found(task, tmp_path / "arch.json", DEVICE, weights, tmp_path / "again")
    assert trained.latency_ms == pytest.approx(found.table_latency_ms, rel=0.01)


# From dataset to files


def test_found_architecture_is_nnis_and_can_be_trained(tmp_path: Path) -> None:
    task = Task(stages=TINY, device="cpu")
    told: list[str] = []
    found = search_for_device(task, DEVICE, settings(epochs=1), tmp_path, say=told.append)
    exported = json.loads((tmp_path / "architecture.json").read_text())
    assert exported == found.result.architecture
    with fixed_arch(str(tmp_path / "architecture.json")):
        network = tiny()
    assert not any(isinstance(module, LayerChoice) for module in network.modules())
    latency = load_latency_predictor(DEVICE).predict(network, model_type="torch", input_shape=SHAPE)
    record = json.loads((tmp_path / "search.json").read_text())
    assert record["latency_ms"] == found.latency_ms == pytest.approx(latency)
    assert record["table_latency_ms"] == pytest.approx(latency, rel=0.01)
    assert (record["device"], record["pack_version"]) == (DEVICE, 2.1)
    assert record["fastest_ms"] <= latency <= record["slowest_ms"]
    assert f"{record['fastest_ms']:.4g}" in told[0]
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    assert "applied_hardware" in (tmp_path / "latency_table.yaml").read_text()

    # As NNI's own trainer exports: candidates by index.
    candidates = {label: choice.names for label, choice in Choices(tiny()).by_label.items()}
    by_index = {label: candidates[label].index(name) for label, name in exported.items()}
    (tmp_path / "nni.json").write_text(json.dumps(by_index))
    again = tmp_path / "again"
    weights = WeightSettings(epochs=3, train_batch_size=32)
    retrained = train_found(task, tmp_path / "nni.json", DEVICE, weights, again)
    accuracy = retrained.accuracy
    trained = chosen_network(tiny, exported)
    trained.load_state_dict(torch.load(again / "weights.pt", weights_only=True))
    held_out = load_dataset("digits", input_shape=SHAPE).held_out
    pixels, classes = held_out.batch(np.arange(len(held_out)), None)
    hits = trained.eval()(pixels).argmax(1) == classes
    assert accuracy == pytest.approx(float(hits.float().mean()), abs=0.005)
    assert accuracy > 0.3  # ten classes: 0.1 is chance
    record = json.loads((again / "retrain.json").read_text())
    assert record["held_out_accuracy"] == accuracy
    assert record["latency_ms"] == retrained.latency_ms == pytest.approx(latency)
    assert (record["device"], record["pack_version"]) == (DEVICE, 2.1)


def test_extremes_of_the_space_are_its_fastest_and_slowest(estimator: Any) -> None:
    from nnmeter_nas.solve.ranking import latency_reach

    table = estimator.table
    every = list(itertools.product(*(range(len(known)) for known in table.candidates.values())))
    latencies = table.latencies(np.array(every))
    assert latency_reach(table) == pytest.approx((latencies.min(), latencies.max()))


def test_reference_that_the_space_cannot_reach_is_refused_at_once(tmp_path: Path) -> None:
    task = Task(stages=TINY, device="cpu")
    with pytest.raises(SettingsError, match=r"0.001 ms is out of reach.*fastest.*0\.\d+ ms, the slowest"):
        search_for_device(task, DEVICE, settings(reference_latency=0.001), tmp_path)
    below = settings(reference_latency=5.0, grad_reg_loss_type="mul#log")
    with pytest.raises(SettingsError, match="mul#log' needs latencies above 1 ms"):
        search_for_device(task, DEVICE, below, tmp_path)
    assert not (tmp_path / "search.csv").exists()
    with pytest.warns(LatencyWarning, match="more than the slowest architecture"):
        search_for_device(task, DEVICE, settings(epochs=1, reference_latency=5.0), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ('["k3_e3"]', "maps labels to candidates"),
        ('{"layer_1": "k3_e3"}', "leaves open layer_2"),
        ('{"layer_1": "k3_e3", "layer_2": "k3_e3", "layer_3": "k9_e9"}', "no candidate 'k9_e9'"),
        ('{"layer_1": 0, "layer_2": 99, "layer_3": 0}', "no candidate 99"),
        ('{"layer_1": 0, "layer_2": 0, "layer_3": 0, "layer_4": 0}', "no choice 'layer_4'.*another size"),
    ],
)
def test_wrong_architecture_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "arch.json"
    path.write_text(content)
    with pytest.raises((SearchError, SpaceError), match=message) as caught:
        read_architecture(path, tiny)
    assert str(path) in str(caught.value)


def test_stages_and_devices_that_do_not_exist_are_refused() -> None:
    with pytest.raises(DatasetError, match="'digit' is not known; did you mean 'digits'"):
        Task("digit")
    with pytest.raises(SettingsError, match="must name the same stages"):
        Task(stages={"depths": (1,)}).load(0)
    with pytest.raises(SettingsError, match="device=tpu9"):
        proxyless_training.torch_device("tpu9")
    assert proxyless_training.torch_device("auto").type in ("cpu", "cuda")


# Datasets


def test_batches_depend_on_their_number_and_the_seed_alone(dataset: Any) -> None:
    batches = Batches(dataset.train, 100, (0, 1))
    passed = [batches[number][1] for number in range(26)]
    assert len(batches) == 13
    assert not torch.equal(torch.cat(passed[:13]), torch.cat(passed[13:]))
    late = Batches(dataset.train, 100, (0, 1)).loader(20, 22, workers=1)
    torch.testing.assert_close([classes for _, classes in late], passed[20:22])
    assert not torch.equal(Batches(dataset.train, 100, (1, 1))[0][1], passed[0])
    part = np.arange(7, 19)
    seen = torch.cat([Batches(Places(), 4, (0,), part)[number][1] for number in range(3)])
    assert sorted(seen.tolist()) == part.tolist()
    with pytest.raises(SettingsError, match="a batch of 20 is more than the 12 images"):
        Batches(Places(), 20, (0,), part)


class Places:
    """Images whose class is their place."""

    def __len__(self) -> int:
        return 30

    def batch(self, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, Any]:
        return torch.zeros(len(chosen), 3, 2, 2), torch.from_numpy(chosen)


def write_cifar10(folder: Path, records: int = 20) -> None:
    """Batches in the layout of the binary version: a class, then 3x32x32 pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        raw = rng.integers(0, 256, (records, 3073), dtype=np.uint8)
        raw[:, 0] = np.arange(records) % 10
        (folder / name).write_bytes(raw.tobytes())


def test_cifar10_is_read_from_its_binary_version(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    found = load_dataset("cifar10", tmp_path, (1, 3, 32, 32))
    assert (len(found.train), len(found.held_out), found.classes) == (100, 20, 10)
    raw = np.fromfile(tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin", np.uint8).reshape(20, 3073)
    pixels, classes = found.train.batch(np.array([21]), None)
    assert classes.tolist() == [raw[1, 0]]
    red = torch.from_numpy(raw[1, 1:1025].reshape(32, 32).astype(np.float32))
    assert torch.corrcoef(torch.stack([pixels[0, 0].flatten(), red.flatten()]))[0, 1] > 0.999
    everything, _ = found.train.batch(np.arange(100), None)
    assert everything.mean().abs() < 0.1
    assert (everything.std() - 1).abs() < 0.1
    varied, _ = found.train.batch(np.array([21] * 8), np.random.default_rng(1))
    assert varied.shape == (8, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in varied}) > 6
    assert np.isin(varied.numpy().round(4), [*pixels.numpy().round(4).flatten(), 0.0]).all()


def test_wrong_cifar10_folders_are_explained(tmp_path: Path) -> None:
    python_version = tmp_path / "cifar-10-batches-py"
    python_version.mkdir()
    (python_version / "data_batch_1").write_bytes(b"\x80\x02}q")
    with pytest.raises(DatasetError, match=r"cifar-10-binary\.tar\.gz.*pickles, which are not read"):
        load_dataset("cifar10", python_version)
    with pytest.raises(DatasetError, match="is no folder"):
        load_dataset("cifar10", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="which data_path has to name"):
        load_dataset("cifar10")
    with pytest.raises(DatasetError, match="did you mean 'cifar10'"):
        load_dataset("cifar")
    write_cifar10(tmp_path / "short")
    whole = (tmp_path / "short" / "data_batch_3.bin").read_bytes()
    (tmp_path / "short" / "data_batch_3.bin").write_bytes(whole[:-5])
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin.*cut short"):
        load_dataset("cifar10", tmp_path / "short")


def write_image_folder(folder: Path) -> None:
    """Two classes of plain images, red and blue, of various sizes and formats."""
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (40 + 10 * i, 60), colour)
                image.save(folder / part / name / f"{i}.{'png' if i % 2 else 'JPG'}", quality=95)


def test_folder_of_images_is_read_by_class(tmp_path: Path) -> None:
    write_image_folder(tmp_path)
    (tmp_path / "train" / "red" / "notes.txt").write_text("no image")
    Image.new("L", (50, 50), 200).save(tmp_path / "train" / "red" / "grey.png")
    found = load_dataset("imagefolder", tmp_path, (1, 3, 32, 32))
    assert (len(found.train), len(found.held_out), found.classes) == (9, 4, 2)
    pixels, classes = found.held_out.batch(np.arange(4), None)
    assert pixels.shape == (4, 3, 32, 32)
    assert classes.tolist() == [0, 0, 1, 1]
    assert (pixels[:2, 2] > pixels[:2, 0]).all()
    assert (pixels[2:, 0] > pixels[2:, 2]).all()
    one, other = (Batches(found.train, 9, (0,))[number][0] for number in (0, 0))
    torch.testing.assert_close(one, other)


def test_wrong_image_folders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train holds no folder a class.*train/CLASS"):
        load_dataset("imagefolder", tmp_path)
    write_image_folder(tmp_path)
    with pytest.raises(DatasetError, match="the network takes 1"):
        load_dataset("imagefolder", tmp_path, (1, 1, 32, 32))
    broken = tmp_path / "train" / "red" / "0.JPG"
    broken.write_bytes(broken.read_bytes()[:200])
    found = load_dataset("imagefolder", tmp_path)
    with pytest.raises(DatasetError, match=r"red/0\.JPG cannot be read as an image"):
        found.train.batch(np.arange(len(found.train)), None)
    (tmp_path / "val" / "green").mkdir()
    with pytest.raises(DatasetError, match="lacks: green"):
        load_dataset("imagefolder", tmp_path)


# The command


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["proxylessnas", "--applied-hardware", "cortexA77"], "did you mean 'cortexA76cpu_tflite21'", 2),
        (["proxylessnas", "--dataset", "cifar10"], "name it with --data DIR", 2),
        (["proxylessnas", "--grad-reg-loss-type", "add"], "invalid choice", 2),
        (["proxylessnas", "--reference_latency", "-1"], "not a positive number", 2),
        (["proxylessnas", "--train_mode", "retrain"], "--exported_arch_path", 2),
        (["proxylessnas", "--n-cell-stages", "4,x"], "no list of sizes", 2),
        (["proxylessnas", "--dataset", "cifar10", "--data_path", "nowhere"], "nowhere is no folder", 2),
        (["proxylessnas", "--n_cell_stages", "4,4"], "must name the same stages", 2),
        (["proxylessnas", "--reference-latency", "0.01"], "--reference-latency 0.01 ms is out of reach", 2),
        (["proxylessnas", "--epochs", "2", "--settle_epochs", "2"], "leave none of 2 epochs", 2),
        (["proxylessnas", "--reference-latency", "1", "--grad_reg_loss_type", "mul#log"], "above 1 ms", 2),
        (["proxylessnas", "--device", "tpu9"], "--device tpu9", 2),
        (["proxylessnas", "--train_batch_size", "5000"], "a batch of 5000 is more than", 2),
        (["proxylessnas", "--seed", "-1"], "less than 0", 2),
        (["proxylessnas", "--output", "file"], "file is no folder", 2),
        (["proxylessnas", "--train_mode", "retrain", "--exported_arch_path", "none.json"], "is no file", 2),
        (["retrain", "nowhere.json"], "nowhere.json is no file", 2),
        (["retrain", "file", "--applied_hardware", "cortexA77"], "did you mean 'cortexA76cpu_tflite21'", 2),
        (["retrain", "file"], "file cannot be read", 1),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], message: str, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("{")
    try:
        found = main(arguments)
    except SystemExit as exit_:
        found = int(str(exit_.code))
    assert message in capsys.readouterr().err
    assert found == code
    assert not list(tmp_path.rglob("*.pt"))


def test_command_takes_both_spellings_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out [1]"
    shared = [*TINY_FLAGS, "--train-batch-size", str(BATCH), "--device", "cpu", "--epochs", "1"]
    search_flags = ["--applied-hardware", DEVICE.upper(), "--reference-latency", "0.32", "--no-warmup",
                    "--grad_reg_loss_lambda", "2", "--grad-reg-loss-beta", "1",
                    "--checkpoint-path", str(tmp_path / "state.pt"), "-o", str(output)]  # fmt: skip
    assert main(["proxylessnas", *search_flags, *shared]) == 0
    printed, errors = capsys.readouterr()
    record = json.loads((output / "search.json").read_text())
    assert f"{record['latency_ms']:.4g} ms on {DEVICE} by its full graph, reference 0.32 ms" in printed
    assert f"Saved {output / 'architecture.json'}" in printed
    assert "--grad_reg_loss_beta is a parameter of mul#log" in errors
    assert "epoch 1, step 5/5: expected 0." in errors
    assert record["settings"]["grad_reg_loss_params"] == {"lambda": 2.0}
    assert (tmp_path / "state.pt").exists()
    exported = str(output / "architecture.json")
    for arguments in (
        ["retrain", exported],
        ["proxylessnas", "--train_mode", "retrain", "--exported-arch-path", exported],
    ):
        folder = tmp_path / arguments[0]
        assert main([*arguments, "--output", str(folder), *shared]) == 0
        said = f"of the held-out images right, {record['latency_ms']:.4g} ms on {DEVICE}, reference 0.32 ms"
        assert said in capsys.readouterr().out
        assert (folder / "retrain.json").exists()


def test_retraining_takes_what_its_search_recorded_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = ["--train_batch_size", str(BATCH), "--device", "cpu", "--epochs", "1"]
    search_flags = ["--applied_hardware", OTHER_DEVICE, "--reference_latency", "9", "--bn_eps", "0.002"]
    found = tmp_path / "found"
    assert main(["proxylessnas", *TINY_FLAGS, *search_flags, *training, "-o", str(found)]) == 0
    capsys.readouterr()

    def retrained(name: str, *flags: str) -> tuple[dict[str, Any], str]:
        folder = tmp_path / name
        assert main(["retrain", str(found / "architecture.json"), *flags, *training, "-o", str(folder)]) == 0
        record = json.loads((folder / "retrain.json").read_text())
        return {"device": record["device"], **record["settings"]}, capsys.readouterr().err

    searched = json.loads((found / "search.json").read_text())
    record, errors = retrained("same")
    same = ("dataset", "data_path", "size", "stages", "bn_momentum", "bn_eps", "resize_scale")
    assert {name: record[name] for name in same} == {name: searched["settings"][name] for name in same}
    assert record["device"] == OTHER_DEVICE
    assert f"as in {found / 'search.json'}: applied_hardware {OTHER_DEVICE}, dataset digits" in errors
    assert "reference_latency 9.0" in errors
    record, errors = retrained("told", "--applied_hardware", DEVICE, "--bn_eps", "0.001")
    assert (record["device"], record["bn_eps"]) == (DEVICE, 0.001)
    assert "applied_hardware" not in errors
    (found / "search.json").write_text(json.dumps({**searched, "architecture": {}}))
    record, errors = retrained("alone", *TINY_FLAGS)
    assert (record["device"], record["bn_eps"]) == (DEVICE, 0.001)
    assert "is of another architecture and left out" in errors


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(COMMAND), *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


@pytest.mark.slow
def test_killed_command_goes_on_and_finds_what_it_would_have(tmp_path: Path) -> None:
    arguments = ["proxylessnas", "--reference_latency", "0.6", "--epochs", "3", "--train_batch_size", "64",
                 "--seed", "5"]  # fmt: skip
    whole = start(tmp_path, *arguments, "--output", "whole")
    printed, errors = whole.communicate()
    assert whole.returncode == 0, errors
    assert "Traceback" not in errors
    assert "\r" not in errors
    killed = start(tmp_path, *arguments, "--output", "killed")
    while not (tmp_path / "killed" / "search.pt").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = start(tmp_path, *arguments, "--output", "killed")
    printed_again, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "it goes on from step" in errors
    assert printed_again.replace("killed", "whole") == printed
    for name in ("architecture.json", "search.json", "search.csv"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    with (tmp_path / "killed" / "search.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(1, len(steps) + 1))
    retrained = start(tmp_path, "retrain", "killed/architecture.json", "--epochs", "4")
    printed, errors = retrained.communicate()
    assert retrained.returncode == 0, errors
    assert json.loads((tmp_path / "retrain-output" / "retrain.json").read_text())["held_out_accuracy"] > 0.5


@pytest.mark.slow
def test_search_does_not_need_tensorboard(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['tensorboard'] = None; from nnmeter_nas.cli import main; "
    arguments = ["proxylessnas", *TINY_FLAGS, "--epochs", "1", "--train_batch_size", str(BATCH), "-o", "out"]
    subprocess.run([sys.executable, "-c", f"{hide} sys.exit(main({arguments!r}))"], cwd=tmp_path, check=True)
    assert (tmp_path / "out" / "architecture.json").exists()
    assert not (tmp_path / "out" / "tensorboard").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_reference_decides_what_is_found_on_the_digits(tmp_path: Path) -> None:
    from rich.console import Console

    from nnmeter_nas.benchmarks.search.reference_latency import run_reference_latency

    page = tmp_path / "page.md"
    page.write_text("<!-- reference latency: begin -->\n<!-- reference latency: end -->\n")
    outcomes = run_reference_latency(
        DEVICE, [3], tmp_path / "work", page, Console(stderr=True), epochs=15, aims=(0.25, 0.75)
    )
    assert [outcome.reference_ms for outcome in outcomes] == sorted({o.reference_ms for o in outcomes})
    for outcome in outcomes:
        assert outcome.latency_ms <= outcome.reference_ms * 1.01
        assert f"| {outcome.latency_ms:.3f} |" in page.read_text()
    # Below the reference nothing pulls: with room, the network uses it.
    assert outcomes[0].latency_ms < outcomes[-1].latency_ms
    assert outcomes[-1].latency_ms > outcomes[0].reference_ms
