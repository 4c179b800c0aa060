"""Train and evaluate the predictor packs of a dataset's devices. An interrupted run can resume."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import inspect
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import nnmeter_nas
from nnmeter_nas.calibrate import fit_constants
from nnmeter_nas.errors import DatasetError, PackError, UnknownDeviceError, nearest
from nnmeter_nas.files import digest, write_npz
from nnmeter_nas.graph import model_graph as graph
from nnmeter_nas.graph import shapes
from nnmeter_nas.kernels import configuration as kernels
from nnmeter_nas.kernels import fusion, work
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.kernels.fusion import parse_rules
from nnmeter_nas.packs import features, save_pack, vocabulary
from nnmeter_nas.packs import network as network_module
from nnmeter_nas.packs.doubt import Prototypes
from nnmeter_nas.packs.estimates import fit_rates, rates_to_card
from nnmeter_nas.packs.network import KernelNetwork
from nnmeter_nas.packs.registry import devices as known_devices
from nnmeter_nas.parallel.bulk import spread
from nnmeter_nas.readers import nhwc
from nnmeter_nas.readers.nnmeter_ir import reader as nnmeter_ir
from nnmeter_nas.training import fit as training
from nnmeter_nas.training import settings as training_settings
from nnmeter_nas.training import table as training_table
from nnmeter_nas.training.accuracy import accuracy, accuracy_by
from nnmeter_nas.training.fit import fit_member
from nnmeter_nas.training.intervals import (
    LEVEL,
    Errors,
    choose_prototypes,
    coverage,
    errors_of,
    fit_intervals,
)
from nnmeter_nas.training.settings import SETTINGS, Settings
from nnmeter_nas.training.table import KernelTable, load_table, save_table

from . import kernel_table
from .kernel_table import build_tables, dataset_fingerprint

VERSION = 2.1
#: One in this many models is held out, chosen by a hash of its id.
_HELD_OUT_ONE_IN = 10
#: Share of the data for a leave-one-family-out fit, which also has fewer epochs and fewer members.
_LOFO_SHARE, _LOFO_MEMBERS = 0.5, 2
#: Fewest held-out models to fit intervals to; a half of them judges the other.
_FEWEST_HELD_OUT = 4
#: Numbers of models of a left-out family to calibrate with, draws of them, and others to judge each by.
_CALIBRATED_WITH, _DRAWS, _JUDGED_BY = (10, 20), 50, 200
DATASET = {
    "name": "nn-Meter benchmark dataset (MobiSys'21)",
    "licence": "Open Use of Data Agreement v1.0",
}


@dataclass(frozen=True)
class Fit:
    """One member to train for a device: without the family ``left_out``, or of the pack if it is None."""

    device: str
    seed: int
    left_out: str | None = None

    @property
    def label(self) -> str:
        """Stem of the file name, and progress text."""
        return f"{self.device}-{f'without-{self.left_out}-' if self.left_out else ''}member{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The settings of a training run. With the dataset, they are the key of the work folder."""

    devices: tuple[str, ...]
    members: int
    seed: int
    epochs: int
    lofo_epochs: int

    def settings(self, fit: Fit) -> Settings:
        """Return the settings of the device's category; ``lofo_epochs`` if ``fit`` leaves out a family."""
        chosen = SETTINGS[known_devices()[fit.device]["category"]]
        return replace(chosen, epochs=self.lofo_epochs if fit.left_out else self.epochs)


def held_out(ids: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Tell which models are never trained on; this depends only on the id."""
    return np.array([int(hashlib.sha256(i.encode()).hexdigest(), 16) % _HELD_OUT_ONE_IN == 0 for i in ids])


def train_packs(bench: Path, output: Path, work: Path, plan: Plan) -> list[Path]:
    """Train the packs of ``plan`` on the dataset in ``bench``, and write them below ``output``.

    The files and the fits are spread over the workers in use (:mod:`nnmeter_nas.parallel.bulk`).
    The folder ``work`` keeps tables and finished fits. A run with the same plan, dataset and code of the
    features uses them again, so an interrupted run resumes where it stopped.

    Returns:
        The pack folders.

    Raises:
        DatasetError: the dataset has no figures for a device, or is malformed.
        UnknownDeviceError: the fusion rules of a device are unknown.
    """
    catalogue = known_devices()
    for device in plan.devices:
        if device not in catalogue:
            raise UnknownDeviceError(f"no fusion rules for device {device!r}; {nearest(device, catalogue)}")
    fingerprint = dataset_fingerprint(bench)
    code = _code_fingerprint()
    table_folder = work / f"tables-{fingerprint}-{code}"
    tables = _tables(bench, table_folder, plan.devices)
    fits = [fit for device in plan.devices for fit in _fits(device, tables[device], plan)]
    key = digest([asdict(plan), fingerprint, code])[:12]
    networks = _run(fits, table_folder, plan, work / f"fits-{key}")
    folders = []
    for device in plan.devices:
        mine = {fit: network for fit, network in networks.items() if fit.device == device}
        assembled = _assemble(device, catalogue[device], tables[device], mine, plan, fingerprint)
        folders.append(output / device / f"{VERSION:.1f}")
        save_pack(folders[-1], *assembled)
    return folders


def _tables(bench: Path, cache: Path, devices: tuple[str, ...]) -> dict[str, KernelTable]:
    """Return kernel tables by device, from ``cache`` if possible, else from the dataset."""
    catalogue = known_devices()
    missing = [d for d in devices if not (cache / f"{d}.npz").exists()]
    if missing:
        rules = {d: parse_rules(catalogue[d]["fusion_rules"]) for d in missing}
        for device, table in build_tables(bench, rules).items():
            save_table(cache / f"{device}.npz", table)
    tables = {d: load_table(cache / f"{d}.npz") for d in devices}
    for device, table in tables.items():
        if device not in table.devices or np.isnan(table.measured(device)).all():
            raise DatasetError(f"{bench} holds no latency of {device!r}; it has {', '.join(table.devices)}")
    return tables


def _fits(device: str, table: KernelTable, plan: Plan) -> list[Fit]:
    measured = ~np.isnan(table.measured(device))
    families = sorted(set(table.families[measured]))
    return [Fit(device, plan.seed + i) for i in range(plan.members)] + [
        Fit(device, plan.seed + i, family)
        for family in (families if len(families) > 1 else [])
        for i in range(_LOFO_MEMBERS)
    ]


@dataclass(frozen=True)
class _Order:
    """A fit for a worker to train: its table is in a folder, and its network goes to ``path``."""

    fit: Fit
    plan: Plan
    table_folder: Path
    path: Path

    def __str__(self) -> str:
        return self.fit.label


def _run(fits: list[Fit], table_folder: Path, plan: Plan, folder: Path) -> dict[Fit, KernelNetwork]:
    """Train the fits missing from ``folder``, each on one thread."""
    paths = {fit: folder / f"{fit.label}.npz" for fit in fits}
    orders = [_Order(fit, plan, table_folder, path) for fit, path in paths.items() if _load_fit(path) is None]
    # Start with the longest fits, so that the workers finish together.
    orders.sort(key=lambda order: order.fit.left_out is not None)
    for _ in spread(_train_one, orders, "training"):
        pass
    found = {fit: _load_fit(path) for fit, path in paths.items()}
    return {fit: network for fit, network in found.items() if network is not None}


def _train_one(order: _Order) -> str:
    torch.set_num_threads(1)
    fit = order.fit
    table = load_table(order.table_folder / f"{fit.device}.npz")
    models = _training_models(fit, table, order.plan.seed)
    network = fit_member(table, fit.device, models, order.plan.settings(fit), fit.seed)
    write_npz(order.path, network.to_arrays())
    return fit.label


def _training_models(fit: Fit, table: KernelTable, seed: int) -> npt.NDArray[np.int64]:
    """Return the models a fit learns from: all but the held-out ones, or a share of the other families."""
    measured = ~np.isnan(table.measured(fit.device))
    if fit.left_out is None:
        return np.flatnonzero(measured & ~held_out(table.ids))
    others = np.flatnonzero(measured & (table.families != fit.left_out))
    chosen = np.random.default_rng(seed).choice(others, max(1, int(len(others) * _LOFO_SHARE)), replace=False)
    return np.sort(chosen)


def _load_fit(path: Path) -> KernelNetwork | None:
    """Load a fit stored earlier; None if it is missing or cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return KernelNetwork.from_arrays(dict(arrays))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, PackError):
        return None


def _assemble(
    device: str,
    about: Mapping[str, Any],
    table: KernelTable,
    networks: Mapping[Fit, KernelNetwork],
    plan: Plan,
    fingerprint: str,
) -> tuple[dict[str, Any], KernelNetwork, Prototypes]:
    """Return the card, the ensemble and the prototypes of one device."""
    ensemble = _ensemble(networks, None)
    prototypes = _prototypes(ensemble, Fit(device, plan.seed), table, plan)
    measured = table.measured(device)
    there = ~np.isnan(measured)
    test = there & held_out(table.ids)
    predicted = predicted_latency(ensemble, table)[test]
    random_ids = accuracy_by(list(table.families[test]), predicted, measured[test])
    by_network = accuracy_by(list(map(network_of, table.ids[test])), predicted, measured[test])
    test_errors = errors_of(ensemble, prototypes, table, np.flatnonzero(test), measured)
    by_family: dict[str, Any] = {}
    family_errors: dict[str, Errors] = {}
    for family in sorted({fit.left_out for fit in networks if fit.left_out}):
        without, fit = _ensemble(networks, family), Fit(device, plan.seed, family)
        mine = np.flatnonzero(there & (table.families == family))
        kernel_latency = _kernel_latency(without, table)
        by_family[family] = {
            **accuracy(table.sums(kernel_latency)[mine], measured[mine]),
            **_calibrated_accuracy(kernel_latency, table, mine, measured),
        }
        family_errors[family] = errors_of(
            without, _prototypes(without, fit, table, plan), table, mine, measured
        )
    intervals: dict[str, Any] = {}
    if test.sum() >= _FEWEST_HELD_OUT:
        fitted = fit_intervals(test_errors, list(family_errors.values()))
        covered = _rounded(coverage(test_errors, family_errors))
        intervals = {"intervals": {**fitted.to_card(), "level_of_coverage": LEVEL, "coverage": covered}}
    trained = np.flatnonzero(there & ~held_out(table.ids))
    card = {
        "name": device,
        "version": VERSION,
        "category": about["category"],
        "hardware": about["hardware"],
        "runtime": about["runtime"],
        "fusion_rules": about["fusion_rules"],
        "kernel_types": list(ensemble.names.measured),
        "trained_on": {**DATASET, "models": len(trained), "fingerprint": fingerprint},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "code_version": importlib.metadata.version(nnmeter_nas.__name__),
        "rates": rates_to_card(fit_rates(ensemble)),
        **intervals,
        "training": {
            "members": plan.members,
            "seed": plan.seed,
            **asdict(plan.settings(Fit(device, plan.seed))),
        },
        "accuracy": {
            "held_out_ids": _rounded(random_ids),
            "held_out_networks": _with_mean(_rounded(by_network)),
            "leave_one_family_out": {
                "training": {
                    "share_of_models": _LOFO_SHARE,
                    "epochs": plan.lofo_epochs,
                    "members": _LOFO_MEMBERS,
                },
                "mean_within_10": round(float(np.mean([a["within_10"] for a in by_family.values()])), 2)
                if by_family
                else None,
                "notes": _notes(table, there),
                "families": _rounded(by_family),
            },
        },
    }
    return card, ensemble, prototypes


def _ensemble(networks: Mapping[Fit, KernelNetwork], left_out: str | None) -> KernelNetwork:
    """Join the members that were trained without the family ``left_out``, in the order of their seeds."""
    fits = sorted((fit for fit in networks if fit.left_out == left_out), key=lambda fit: fit.seed)
    return replace(networks[fits[0]], members=[networks[fit].members[0] for fit in fits])


def _prototypes(network: KernelNetwork, fit: Fit, table: KernelTable, plan: Plan) -> Prototypes:
    """Choose prototypes of what ``network`` learnt from."""
    return choose_prototypes(network, table, _training_models(fit, table, plan.seed))


def predicted_latency(network: KernelNetwork, table: KernelTable) -> npt.NDArray[np.float64]:
    """Predict each model's latency in ms, ``[models]``; omit kernels that the network has no weights for."""
    return table.sums(_kernel_latency(network, table))


def _kernel_latency(network: KernelNetwork, table: KernelTable) -> FloatArray:
    """Predict each distinct kernel's latency in ms, ``[kernels]``; 0 without weights for its type."""
    return np.asarray(network.known_by_member(table.configurations).mean(axis=0))


def _calibrated_accuracy(
    kernel_latency: FloatArray, table: KernelTable, models: npt.NDArray[np.int64], measured: FloatArray
) -> dict[str, float]:
    """Calibrate with a few of ``models``; return the mean share of the others within ±10 %, over draws."""
    parts = {}
    for model in models:
        kernels = table.index[table.start[model] : table.start[model + 1]]
        parts[model] = list(zip(table.types[kernels].tolist(), kernel_latency[kernels].tolist(), strict=True))
    rng, found = np.random.default_rng(0), {}
    for count in (few for few in _CALIBRATED_WITH if few < len(models)):
        shares = []
        for _ in range(_DRAWS):
            order = rng.permutation(models)
            fit = fit_constants([parts[model] for model in order[:count]], measured[order[:count]])
            others = order[count : count + _JUDGED_BY]
            predicted = np.array([fit.model_ms(parts[model]) for model in others])
            shares.append(accuracy(predicted, measured[others])["within_10"])
        found[f"calibrated_with_{count}_within_10"] = float(np.mean(shares))
    return found


def _notes(table: KernelTable, measured: npt.NDArray[np.bool_]) -> list[str]:
    """List kernel types that occur in only one family; they cannot be learnt if that family is left out."""
    families_of: dict[str, set[str]] = {}
    for family in np.unique(table.families[measured]):
        models = np.flatnonzero(measured & (table.families == family))
        for name in np.unique(table.types[table.kernels_of(models)]):
            families_of.setdefault(str(name), set()).add(str(family))
    return [
        f"{name} kernels occur in {next(iter(found))} alone, so without it they are not learnt"
        for name, found in sorted(families_of.items())
        if len(found) == 1
    ]


def network_of(model_id: str) -> str:
    """Return the network that a model of the dataset is a variation of.

    >>> network_of("resnet50_17")
    'resnet50'
    """
    return model_id.rpartition("_")[0] or model_id


def _with_mean(by_network: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Replace the figures of all models by the mean over networks, which an average over ids hides."""
    networks = {name: figures for name, figures in by_network.items() if name != "all"}
    shares = ("within_5", "within_10", "mape")
    mean = {key: round(float(np.mean([found[key] for found in networks.values()])), 4) for key in shares}
    return {"mean": mean, **networks}


def _rounded(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {
        str(name): {
            key: int(value) if key == "models" else round(float(value), 4) for key, value in figures.items()
        }
        for name, figures in found.items()
    }


def _code_fingerprint() -> str:
    """Hash the modules that decide what a fit learns and how; changes in other modules leave fits valid."""
    read = (graph, shapes, fusion, kernels, work, nhwc, nnmeter_ir, kernel_table, training_table)
    modules = (*read, features, vocabulary, network_module, training, training_settings)
    sources = "".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(sources.encode()).hexdigest()[:8]
