"""Compare what a predictor says of models with what the device measures."""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import networkx as nx

from ..backends.base import Backend, write
from ..errors import MeasurementError, MissingPackageError, NnMeterNasError, ReaderError
from ..files import write_bytes
from ..predictor import LatencyPredictor
from ..readers import read_model
from ..readers.inputs import InputShape
from .attached import patiently
from .drift import warn_of_drift
from .measuring import visits_wanted
from .observations import observe
from .visits import Undisturbed, Visit
from .worker import Worker


class Verified(NamedTuple):
    """One model, in ms.

    Attributes:
        name: the file.
        measured: its latency on the device.
        repeats: ratio of the greater to the smaller half of its visits.
        low, predicted, high: the prediction, with its interval of 90 %.
    """

    name: str
    measured: float
    repeats: float
    low: float
    predicted: float
    high: float


class Model(NamedTuple):
    """A model to verify.

    Attributes:
        path: its file.
        graph: its model graph.
        as_given: whether the file leaves nothing open, so that a device can run it as it is.
    """

    path: Path
    graph: nx.DiGraph
    as_given: bool


def read_models(
    paths: Sequence[Path], input_shape: InputShape | None = None
) -> tuple[list[Model], dict[str, str]]:
    """Read the models to verify; ``input_shape`` is that of models that leave it open.

    Returns:
        The models that can be read, and what is wrong with each of the others.

    Raises:
        MissingPackageError: a package that reads them is not installed.
    """
    models, faults = [], {}
    for path in paths:
        try:
            models.append(Model(path, read_model(path, input_shape=input_shape), input_shape is None))
        except MissingPackageError:
            raise
        except (NnMeterNasError, OSError) as error:
            faults[str(path)] = str(error)
    return models, faults


def verify(
    predictor: LatencyPredictor,
    backend: Backend,
    worker: Worker,
    models: Sequence[Model],
    visits: int,
    tell: Callable[[str], None],
    undisturbed: Undisturbed | None = None,
) -> tuple[list[Verified], dict[str, str]]:
    """Measure ``models`` in turns, in so many whole ``visits`` of each, and predict them.

    Latencies are of the machine when it is ``undisturbed``, as those of the pack are, if they are this one's.
    A file that the backend does not read, or that leaves its input open, is written anew in its format, with
    random weights.

    Returns:
        The models that the device could run, and what went wrong with each of the others.

    Warns:
        LatencyWarning: the machine runs at another speed now.
    """
    taken: dict[int, list[Visit]] = {i: [] for i in range(len(models))}
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="nnmeter-nas-") as folder:
        for turn in range(visits_wanted(backend, visits, ())):
            for i in list(taken):
                if turn >= visits_wanted(backend, visits, taken[i]):
                    continue
                tell(f"visit {turn + 1} of {models[i].path}")
                try:
                    taken[i].append(_visit(models[i], backend, worker, Path(folder) / str(i), tell))
                except (MeasurementError, ReaderError) as error:
                    faults[str(models[i].path)] = str(error)
                    del taken[i]
    warn_of_drift((visit for of_model in taken.values() for visit in of_model), undisturbed)
    found = []
    for i, of_model in taken.items():
        path, graph, _ = models[i]
        seen = observe(str(path), graph, of_model, undisturbed)
        if seen is None:
            faults[str(path)] = f"the device measured {[visit.ms for visit in of_model]} ms"
            continue
        with _named_warnings(path):
            said = predictor.predict_interval(graph)
        found.append(Verified(str(path), seen.ms, 1 + seen.disagreement, said.low, said.ms, said.high))
    return found, faults


@contextlib.contextmanager
def _named_warnings(path: Path) -> Iterator[None]:
    """Let warnings say which model they are of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        warnings.warn(f"{path}: {one.message}", one.category, stacklevel=2)


def write_verified(path: Path, found: Sequence[Verified]) -> None:
    """Write a table of what was verified, which `calibrate` takes too."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "ms", "predicted_ms", "low_ms", "high_ms", "repeats"))
    for one in found:
        name = str(Path(one.name).absolute())
        writer.writerow((name, one.measured, one.predicted, one.low, one.high, one.repeats))
    write_bytes(path, text.getvalue().encode())


def _visit(
    model: Model, backend: Backend, worker: Worker, written: Path, tell: Callable[[str], None]
) -> Visit:
    """Measure a model once; what its kernels take is not asked."""
    path = _runnable(model, backend, written, tell)
    return patiently(lambda: worker.visit(path, profiled=False), backend, tell)


def _runnable(model: Model, backend: Backend, written: Path, tell: Callable[[str], None]) -> Path:
    """The file of a model if the device can run it as it is, or else one in the device's format."""
    if model.as_given and model.path.suffix == backend.suffix:
        return model.path
    written = written.with_suffix(backend.suffix)
    if not written.exists():
        write(backend, model.graph, written, tell)
    return written
