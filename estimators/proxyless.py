"""ProxylessNAS from dataset to files: search for an architecture for a device, and train it.

Both can be interrupted at any time. Run them again and they resume.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nnmeter_nas import LatencyWarning, load_latency_predictor
from nnmeter_nas.errors import SettingsError
from nnmeter_nas.files import lock_folder, write_bytes
from nnmeter_nas.solve.ranking import latency_reach

from .latency_estimator import HardwareLatencyEstimator
from .proxyless_log import read_log
from .proxyless_plot import search_plot
from .proxyless_retrain import read_architecture, retrain
from .proxyless_search import SearchResult, SearchSettings, chosen_network, search
from .proxyless_task import Task
from .proxyless_training import WeightSettings, Workplace, torch_device

#: Files in the output folder, besides those of the training itself.
RECORD, _PLOT, TABLE, _RETRAINED, WEIGHTS = (
    "search.json", "search.png", "latency_table.yaml", "retrain.json", "weights.pt",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The outcome of a search.

    Attributes:
        result: the architecture, and the search's figures about it.
        latency_ms: latency of the architecture, predicted from its full graph.
        reach: latencies in ms of the space's fastest and slowest architectures, by the table.
        files: the files written.
    """

    result: SearchResult
    latency_ms: float
    device: str
    reach: tuple[float, float]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Trained:
    """The outcome of training an architecture.

    Attributes:
        accuracy: on held-out images, 0 to 1.
        latency_ms: latency of the network on ``device``, predicted from its full graph.
        files: the files written.
    """

    accuracy: float
    latency_ms: float
    device: str
    files: tuple[Path, ...]


def search_for_device(
    task: Task,
    applied_hardware: str,
    settings: SearchSettings,
    output: Path,
    checkpoint: Path | None = None,
    exported_arch_path: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Search for the architecture that learns best within a latency on a device, or resume such a search.

    Args:
        task, settings: what to search and how; the reference latency is on the device.
        applied_hardware: device name.
        output: folder for all files.
        checkpoint, exported_arch_path: files for the state and the architecture; by default in ``output``.
        say: called with the range of latencies in the space, once it is known.

    Raises:
        UnknownDeviceError: there is no such device.
        DatasetError: the dataset is missing or damaged.
        SettingsError: no architecture is as fast as the reference, or settings contradict each other.
        SearchError: another process searches in ``output``, the checkpoint cannot be used, or the search
            diverges.
    """
    predictor = load_latency_predictor(applied_hardware)
    device = torch_device(task.device)
    build, dataset = task.load(settings.seed)
    space: Any = build()
    with _alone(output, "search", checkpoint):
        estimator = HardwareLatencyEstimator(applied_hardware, space, space.input_shape, output / TABLE)
        reach = latency_reach(estimator.table)
        say(f"on {predictor.device} the space reaches from {reach[0]:.4g} to {reach[1]:.4g} ms")
        _check_reference(settings, reach, predictor.device)
        about = {**task.about(), "applied_hardware": predictor.device, "pack_version": predictor.version}
        exported = exported_arch_path or output / "architecture.json"
        place = Workplace(output, checkpoint, about, device, task.n_worker, task.test_batch_size)
        result = search(build, dataset, estimator, settings, place)
        network = chosen_network(build, result.architecture)
        latency_ms = predictor.predict(network, model_type="torch", input_shape=space.input_shape)
        record = {
            **asdict(result),
            "latency_ms": latency_ms,
            "device": predictor.device,
            "pack_version": predictor.version,
            "reference_latency_ms": settings.reference_latency,
            "fastest_ms": reach[0],
            "slowest_ms": reach[1],
            "settings": {**asdict(settings), **task.about()},
            "versions": {name: version(name) for name in ("nnmeter_nas", "nni", "torch")},
        }
        _write_json(exported, dict(result.architecture))
        _write_json(output / RECORD, record)
        aim = "latency left out" if settings.reference_latency is None else settings.grad_reg_loss_type
        plot = search_plot(
            read_log(output / "search.csv"), predictor.device, settings.reference_latency, reach, latency_ms,
            f"ProxylessNAS for {predictor.device}, {aim}",
        )  # fmt: skip
        write_bytes(output / _PLOT, plot)
        files = (exported, output / RECORD, output / _PLOT, output / "search.csv")
        return Found(result, latency_ms, predictor.device, reach, files)


def train_found(
    task: Task,
    architecture: Path,
    applied_hardware: str,
    settings: WeightSettings,
    output: Path,
    checkpoint: Path | None = None,
) -> Trained:
    """Train an exported architecture from scratch, or resume such a training.

    Args:
        task, settings: what to train and how; the space must be the one that was searched.
        architecture: JSON file that maps each label to a candidate's name or index.
        applied_hardware: name of the device to predict its latency on.
        output: folder for all files.
        checkpoint: file for the state; by default in ``output``.

    Raises:
        UnknownDeviceError: there is no such device.
        DatasetError: the dataset is missing or damaged.
        SpaceError: the architecture does not belong to the space.
        SettingsError: settings contradict each other.
        SearchError: the file cannot be read, another process trains in ``output``, the checkpoint cannot be
            used, or the training diverges.
    """
    predictor = load_latency_predictor(applied_hardware)
    device = torch_device(task.device)
    build, dataset = task.load(settings.seed)
    chosen = read_architecture(architecture, build)
    space: Any = build()
    with _alone(output, "retrain", checkpoint):
        place = Workplace(output, checkpoint, task.about(), device, task.n_worker, task.test_batch_size)
        network, accuracy = retrain(build, chosen, dataset, settings, place)
        latency_ms = predictor.predict(network.cpu(), model_type="torch", input_shape=space.input_shape)
        buffer = io.BytesIO()
        torch.save(network.state_dict(), buffer)
        write_bytes(output / WEIGHTS, buffer.getbuffer())
        record = {
            "architecture": chosen,
            "held_out_accuracy": accuracy,
            "latency_ms": latency_ms,
            "device": predictor.device,
            "pack_version": predictor.version,
            "settings": {**asdict(settings), **task.about()},
        }
        _write_json(output / _RETRAINED, record)
    files = (output / _RETRAINED, output / WEIGHTS, output / "retrain.csv")
    return Trained(accuracy, latency_ms, predictor.device, files)


@contextmanager
def _alone(output: Path, training: str, checkpoint: Path | None) -> Iterator[None]:
    """Keep other processes from the same training in ``output``, and from its checkpoint, while entered."""
    with ExitStack() as held:
        held.callback(lock_folder(output, f"{training}.lock", training).release)
        if checkpoint is not None:
            held.callback(lock_folder(checkpoint.parent, f".{checkpoint.name}.lock", training).release)
        yield


def _check_reference(settings: SearchSettings, reach: tuple[float, float], device: str) -> None:
    """Check the reference latency before the first step, so that a hopeless search does not run for hours."""
    (fastest, slowest), reference = reach, settings.reference_latency
    if reference is None:
        return
    if settings.grad_reg_loss_type == "mul#log" and fastest <= 1:
        raise SettingsError(
            f"grad_reg_loss_type='mul#log' needs latencies above 1 ms, and on {device} architectures of the "
            f"space take as little as {fastest:.4g} ms; take add#linear"
        )
    if reference < fastest:
        raise SettingsError(
            f"reference_latency={reference:g} ms is out of reach: on {device} the fastest architecture of "
            f"the space takes {fastest:.4g} ms, the slowest {slowest:.4g} ms; give a reference between them, "
            "or another size or other stages"
        )
    if reference > slowest:
        warnings.warn(
            f"reference_latency={reference:g} ms is more than the slowest architecture of the space takes on "
            f"{device}, {slowest:.4g} ms, so that all meet it",
            LatencyWarning,
            stacklevel=3,
        )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_bytes(path, f"{json.dumps(value, indent=2)}\n".encode())
