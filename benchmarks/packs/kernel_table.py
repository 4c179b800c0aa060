"""A dataset as a table of distinct kernel configurations, and the kernels that each model runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import networkx as nx
import numpy as np
import numpy.typing as npt

from nnmeter_nas.errors import DatasetError, GraphError, ReaderError
from nnmeter_nas.files import write_npz
from nnmeter_nas.kernels.configuration import Configuration, Configurations, configuration
from nnmeter_nas.kernels.fusion import FusionRules, fuse
from nnmeter_nas.parallel.bulk import spread
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from nnmeter_nas.readers.nnmeter_ir.reader import read_nnmeter_ir


@dataclass(frozen=True)
class KernelTable:
    """The models of a dataset, fused under one rule set.

    Attributes:
        ids, families: id and family of each model, ``[models]``.
        types, sizes, declared: distinct kernels, as in :class:`Configurations`, ``[kernels, ...]``.
        index: configuration of every kernel of every model, model after model.
        start: where each model's kernels start in ``index``, ``[models + 1]``.
        devices: device names.
        latency_ms: measured latency, ``[models, devices]``; NaN if there is no figure.
    """

    ids: npt.NDArray[np.str_]
    families: npt.NDArray[np.str_]
    types: npt.NDArray[np.str_]
    sizes: npt.NDArray[np.float64]
    declared: npt.NDArray[np.float64]
    index: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    devices: npt.NDArray[np.str_]
    latency_ms: npt.NDArray[np.float64]

    @cached_property
    def configurations(self) -> Configurations:
        """Return the distinct kernels."""
        return Configurations(self.types, self.sizes, self.declared)

    def kernels_of(self, models: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Return the index of each distinct kernel that any of ``models`` runs."""
        parts = [self.index[self.start[m] : self.start[m + 1]] for m in models]
        return np.unique(np.concatenate(parts))

    def measured(self, device: str) -> npt.NDArray[np.float64]:
        """Return the measured latency of each model on ``device``, ``[models]``."""
        return np.asarray(self.latency_ms[:, list(self.devices).index(device)])

    def sums(self, kernel_latency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum the latencies of each model's kernels, given one per configuration, ``[models]``."""
        owner = np.repeat(np.arange(len(self.ids)), np.diff(self.start))
        weights = kernel_latency[self.index]
        return np.bincount(owner, weights=weights, minlength=len(self.ids)).astype(np.float64)


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


def save_table(path: Path, table: KernelTable) -> None:
    """Save ``table`` atomically."""
    write_npz(path, {name: getattr(table, name) for name in KernelTable.__dataclass_fields__})


def load_table(path: Path) -> KernelTable:
    """Load a table that :func:`save_table` saved."""
    with np.load(path, allow_pickle=False) as arrays:
        return KernelTable(**{name: arrays[name] for name in KernelTable.__dataclass_fields__})
