"""Compare what a predictor says of models with what the device measures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..backends.base import Backend
from ..errors import MeasurementError
from ..predictor import LatencyPredictor
from ..readers import read_model
from .observations import observe
from .worker import Visit, Worker


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


def verify(
    predictor: LatencyPredictor,
    backend: Backend,
    worker: Worker,
    models: Sequence[Path],
    visits: int,
    tell: Callable[[str], None],
    input_shape: tuple[int, ...] | None = None,
) -> list[Verified]:
    """Measure ``models`` in turns, ``visits`` times each, and predict them.

    A file that the backend does not read is written anew in its format, with random weights.

    Raises:
        ReaderError, GraphError: a model cannot be read.
        MeasurementError: the device cannot run a model.
    """
    graphs = [read_model(path, input_shape=input_shape) for path in models]
    with tempfile.TemporaryDirectory(prefix="nnmeter-nas-") as folder:
        files = []
        for i, (path, graph) in enumerate(zip(models, graphs, strict=True)):
            file = path
            if path.suffix != backend.suffix:
                file = Path(folder) / f"{i}{backend.suffix}"
                backend.write(graph, file)
            files.append(file)
        taken: list[list[Visit]] = [[] for _ in models]
        for turn in range(visits):
            for i, file in enumerate(files):
                tell(f"visit {turn + 1} of {models[i]}")
                try:
                    taken[i].append(worker.visit(file))
                except MeasurementError as error:
                    raise MeasurementError(f"{models[i]}: {error}") from error
    found = []
    for path, graph, of_model in zip(models, graphs, taken, strict=True):
        seen = observe(str(path), graph, of_model)
        if seen is None:
            raise MeasurementError(f"{path}: the device measured {[visit.ms for visit in of_model]} ms")
        said = predictor.predict_interval(graph)
        found.append(Verified(str(path), seen.ms, 1 + seen.disagreement, said.low, said.ms, said.high))
    return found
