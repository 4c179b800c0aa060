"""Compare predicted with measured latencies of a dataset; each worker reads ranges of the files itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import networkx as nx
import numpy as np

from nnmeter_nas import LatencyPredictor
from nnmeter_nas.errors import DatasetError, GraphError, ReaderError
from nnmeter_nas.journal import Journal
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.parallel.bulk import TravellingPredictor, spread
from nnmeter_nas.predictor import BATCH
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.nnmeter_ir.dataset import BenchModel, dataset_files, family_of, iter_models

from .kernel_table import dataset_fingerprint

#: Size of a range in bytes: about 200 models, which take seconds.
RANGE_BYTES = 8 << 20

#: Device -> (measured, predicted) latency in ms of each model measured on it.
Pairs = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class FileRange:
    """The lines of a file that start within a range of bytes, and the predictors to evaluate on them."""

    path: str
    start: int
    end: int
    predictors: tuple[TravellingPredictor, ...]

    def __str__(self) -> str:
        """Return the name that journals use as well, without the dataset's folder, which may change."""
        return f"{Path(self.path).name}:{self.start}"


@dataclass(frozen=True)
class Comparison:
    """Family, measured ms and predicted ms of each model on one device, ``[models]``."""

    families: list[str]
    measured: FloatArray
    predicted: FloatArray


def compare_dataset(
    bench: str | Path, predictors: Sequence[LatencyPredictor], journal: Path | None = None
) -> dict[str, Comparison]:
    """Evaluate ``predictors`` on all models of ``bench``, by device.

    The ranges are spread over the workers in use (:mod:`nnmeter_nas.parallel.bulk`). Each range is evaluated
    independently, so the results do not depend on where it runs. All workers must see ``bench`` under the
    same path.

    Args:
        bench: folder of a dataset in the official schema.
        predictors: one per device.
        journal: file that records the finished ranges; an interrupted run resumes from it.

    Raises:
        DatasetError: a file does not follow the schema, a model cannot be read, no model was measured on a
            device, or ``journal`` belongs to another evaluation.
    """
    travelling = tuple(map(TravellingPredictor.of, predictors))
    ranges = [
        FileRange(str(path.absolute()), start, start + RANGE_BYTES, travelling)
        for path in dataset_files(bench)
        for start in range(0, path.stat().st_size, RANGE_BYTES)
    ]
    families: dict[str, list[str]] = {p.device: [] for p in predictors}
    pairs: Pairs = {p.device: [] for p in predictors}
    for file_range, found in zip(ranges, _compared(ranges, bench, journal), strict=True):
        for device, of_device in found.items():
            families[device] += [family_of(Path(file_range.path))] * len(of_device)
            pairs[device] += of_device
    for device, of_device in pairs.items():
        if not of_device:
            raise DatasetError(f"{bench} holds no latency of {device!r}")
    return {device: Comparison(families[device], *np.array(pairs[device]).T) for device in pairs}


def _compared(ranges: Sequence[FileRange], bench: str | Path, path: Path | None) -> Iterator[Pairs]:
    """Yield the figures of each range: from the journal at ``path``, else computed and added to it."""
    if path is None:
        yield from spread(compare_range, ranges, "predicting")
        return
    with Journal(path) as journal:
        title = {
            "dataset": dataset_fingerprint(bench),
            "part_bytes": RANGE_BYTES,
            "predictors": [[p.device, p.version, p.fingerprint] for p in ranges[0].predictors],
        }
        if not journal.records:
            journal.append(title)
        if journal.records[0] != title:
            raise DatasetError(f"{path} is of another dataset or of other predictors; name another file")
        known: dict[str, Pairs] = {record["part"]: record["pairs"] for record in journal.records[1:]}
        missing = [file_range for file_range in ranges if str(file_range) not in known]
        found = spread(compare_range, missing, "predicting")
        for file_range in ranges:
            if str(file_range) not in known:
                journal.append({"part": str(file_range), "pairs": (pairs := next(found))})
                yield pairs
            else:
                yield known[str(file_range)]


def compare_range(file_range: FileRange) -> Pairs:
    """Evaluate all predictors on the models of one range; the predictors share the model graphs."""
    predictors = [predictor.load() for predictor in file_range.predictors]
    found: Pairs = {predictor.device: [] for predictor in predictors}
    models = iter_models(file_range.path, file_range.start, file_range.end)
    while batch := list(islice(models, BATCH)):
        graphs = [_model_graph(file_range.path, model) for model in batch]
        for predictor in predictors:
            device = predictor.device
            measured = [model.latency_ms.get(device) for model in batch]
            wanted = [graph for graph, ms in zip(graphs, measured, strict=True) if ms is not None]
            known = [ms for ms in measured if ms is not None]
            found[device] += zip(known, predictor.predict_many(wanted), strict=True)
    return found


def _model_graph(path: str, model: BenchModel) -> nx.DiGraph:
    try:
        return read_model(model.graph, "nnmeter-ir")
    except (GraphError, ReaderError) as error:
        raise DatasetError(f"{path}: model {model.id!r}: {error}") from error
