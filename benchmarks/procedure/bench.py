"""Measure models one by one, and keep each measurement at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from nnmeter_nas.backends.base import Backend
from nnmeter_nas.builder.measuring import visit_in_a_row
from nnmeter_nas.builder.visits import Visit, burst_of, to_record
from nnmeter_nas.builder.worker import Worker
from nnmeter_nas.errors import MeasurementError
from nnmeter_nas.journal import Journal


class Bench:
    """Measurements of models, as a build takes them, in a journal that an interrupted run goes on with.

    A record has what the model is, and ``ms`` and ``bursts`` of a visit or a ``fault``, and ``s``, the
    seconds that it took.
    """

    def __init__(self, journal: Journal, backend: Backend, worker: Worker, folder: Path) -> None:
        """Measure with ``worker``; ``folder`` is for files of models."""
        self._journal, self._backend, self._worker, self._folder = journal, backend, worker, folder

    @property
    def seconds(self) -> float:
        """How long all visits took."""
        return sum(float(record["s"]) for record in self._journal.records)

    def records(self, **what: Any) -> list[dict[str, Any]]:
        """The records that agree with ``what``, oldest first."""
        return [
            record
            for record in self._journal.records
            if all(record.get(key) == value for key, value in what.items())
        ]

    def measure(self, what: Mapping[str, Any], graph: nx.DiGraph) -> None:
        """Visit a model that is used once."""
        path = self.file("model", graph)
        try:
            self.visit(what, path)
        finally:
            path.unlink()

    def file(self, name: str, graph: nx.DiGraph) -> Path:
        """Write a model as a file, unless it is there."""
        path = self._folder / f"{name}{self._backend.suffix}"
        if not path.exists():
            self._backend.write(graph, path)
        return path

    def visit(self, what: Mapping[str, Any], path: Path) -> None:
        """Measure a model file in one whole visit, and record what came of it."""
        start, found = time.perf_counter(), dict(what)
        try:
            taken = visit_in_a_row(self._backend, 1, lambda: self._worker.sound_visit(path, profiled=False))
            bursts = [to_record(burst) for visit in taken for burst in visit.bursts]
            found |= {"ms": statistics.median(visit.ms for visit in taken), "bursts": bursts}
        except MeasurementError as error:
            found["fault"] = str(error)
        self._journal.append({**found, "s": round(time.perf_counter() - start, 4)})


def visits(records: Sequence[Mapping[str, Any]]) -> list[Visit]:
    """The visits that came to an end."""
    return [
        Visit(float(record["ms"]), None, tuple(map(burst_of, record["bursts"])))
        for record in records
        if "ms" in record
    ]
