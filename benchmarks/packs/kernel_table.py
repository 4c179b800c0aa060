"""Read a dataset into tables of its kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx
import numpy as np

from nnmeter_nas.errors import DatasetError, GraphError, ReaderError
from nnmeter_nas.kernels.configuration import Configuration, Configurations, configuration
from nnmeter_nas.kernels.fusion import FusionRules, fuse
from nnmeter_nas.parallel.bulk import spread
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from nnmeter_nas.readers.nnmeter_ir.reader import read_nnmeter_ir
from nnmeter_nas.training.table import KernelTable


@dataclass
class _Builder:
    """An unfinished table. It numbers configurations in the order in which they first occur."""

    number: dict[Configuration, int] = field(default_factory=dict)
    index: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=lambda: [0])

    def add(self, rows: list[Configuration]) -> None:
        self.index += [self.number.setdefault(row, len(self.number)) for row in rows]
        self.start.append(len(self.index))


@dataclass(frozen=True)
class _File:
    """A file to read, and the rule sets to fuse its models under."""

    path: Path
    rules: tuple[FusionRules, ...]

    def __str__(self) -> str:
        return self.path.name


#: Id, family and latencies of a model, and its kernels under each rule set.
_ModelRows = tuple[str, str, dict[str, float], list[list[Configuration]]]


def build_tables(folder: str | Path, rules: Mapping[str, FusionRules]) -> dict[str, KernelTable]:
    """Read all files of ``folder``, fuse every model under each of ``rules``, and return a table for each.

    The files are spread over the workers in use (:mod:`nnmeter_nas.parallel.bulk`).
    """
    distinct = tuple(dict.fromkeys(rules.values()))
    builders = {r: _Builder() for r in distinct}
    ids: list[str] = []
    families: list[str] = []
    latencies: list[dict[str, float]] = []
    files = [_File(path, distinct) for path in dataset_files(folder)]
    for models in spread(_read_file, files, "reading models"):
        for model_id, family, latency, rows in models:
            ids.append(model_id)
            families.append(family)
            latencies.append(latency)
            for rule_set, of_model in zip(distinct, rows, strict=True):
                builders[rule_set].add(of_model)
    devices = sorted({d for latency in latencies for d in latency})
    measured = np.array([[latency.get(d, np.nan) for d in devices] for latency in latencies])
    tables = {}
    for rule_set, builder in builders.items():
        kernels = Configurations.of(builder.number)
        tables[rule_set] = KernelTable(
            ids=np.array(ids),
            families=np.array(families),
            types=kernels.types,
            sizes=kernels.sizes,
            declared=kernels.declared,
            index=np.array(builder.index, np.int32),
            start=np.array(builder.start, np.int64),
            devices=np.array(devices),
            latency_ms=measured,
        )
    return {name: tables[rule_set] for name, rule_set in rules.items()}


def _read_file(file: _File) -> list[_ModelRows]:
    """Read the kernel configurations of every model of one file, under each rule set."""
    found: list[_ModelRows] = []
    for model in iter_models(file.path):
        try:
            graph = read_nnmeter_ir(model.graph)
        except (GraphError, ReaderError) as error:
            raise DatasetError(f"{file.path}: model {model.id!r}: {error}") from error
        found.append((model.id, model.family, model.latency_ms, [_rows(graph, r) for r in file.rules]))
    return found


def _rows(graph: nx.DiGraph, rules: FusionRules) -> list[Configuration]:
    return [configuration(kernel) for _, kernel in fuse(graph, rules).nodes(data="kernel")]


def dataset_fingerprint(folder: str | Path) -> str:
    """Hash the names and contents of the dataset's files; the hash identifies cached tables."""
    digest = hashlib.sha256()
    for path in dataset_files(folder):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
