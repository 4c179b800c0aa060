"""Calibrate a predictor to the device at hand, from a few models that were timed on it.

Each kernel type gets a scale and a launch cost that turn the original latency into that on the device, and
each run of a model gets an offset. All are fitted together, to relative errors, by ridge regression towards
the original (Hoerl and Kennard, Technometrics 1970): the fewer the models, the less they change. The result
is judged by how well it predicts each model when it is fitted to the others.
"""

from __future__ import annotations

import datetime
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CalibrationError
from .kernels.configuration import FloatArray, kernel_type
from .metrics import latency_metrics
from .packs import pack_folders
from .packs.calibration import Calibration
from .packs.fingerprint import pack_fingerprint
from .packs.intervals import conformal_half_widths
from .packs.network import KernelNetwork
from .packs.pack import read_checksums, save_pack, write_card, write_checksums
from .packs.registry import devices
from .packs.store import check_device_name, locked, user_pack, written_pack
from .packs.warmth import Warmth
from .predictor import LatencyPredictor
from .readers import read_model
from .readers.inputs import InputShape

#: Fewest models to calibrate with.
FEWEST = 5
#: Strength of the ridge.
_RIDGE = 1e-2
#: Change that counts as much as doubling the scale: of a scale and a launch of one kernel type, and of the
#: offset in mean latencies of a model. The less it is, the less the constant changes.
_OF_ONE_TYPE, _OFFSET = 0.5, 0.3
#: Kernel types below this share of the latency get no constants of their own.
_LEAST_SHARE = 0.01
#: Version of a calibrated pack.
_VERSION = 1.0

#: Kernel type and original latency in ms of each kernel of a model.
Kernels = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Fit:
    """A calibration, and how good it is.

    Attributes:
        calibration: the constants.
        measured: latency of each model in ms, ``[n]``.
        before: as the original pack predicts it, ``[n]``.
        after: as the constants fitted without that model predict it, ``[n]``.
        scales: how many times wider the model's interval is than that of a model without doubt, ``[n]``.
    """

    calibration: Calibration
    measured: FloatArray
    before: FloatArray
    after: FloatArray
    scales: FloatArray

    @property
    def helps(self) -> bool:
        """Whether models left out are predicted better, by more than the standard error of the gain."""
        gain = _errors(self.before, self.measured) - _errors(self.after, self.measured)
        return bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)))

    def accuracy(self) -> dict[str, dict[str, float]]:
        """Mean relative error (%) and share of models within ±10 % (%), before and after."""
        return {
            name: {
                "mape": round(100 * float(np.mean(np.abs(found / self.measured - 1))), 2),
                "within_10": round(100 * latency_metrics(found, self.measured)[4], 2),
            }
            for name, found in (("before", self.before), ("after", self.after))
        }


def calibrated(
    predictor: LatencyPredictor,
    measured: Iterable[tuple[Any, float]],
    name: str | None = None,
    model_type: str | None = None,
    input_shape: InputShape | None = None,
) -> LatencyPredictor:
    """A predictor of the device that ``measured`` comes from.

    Args:
        predictor: predictor of a similar device.
        measured: at least :data:`FEWEST` pairs of a model, as ``predictor.predict`` takes it, and its latency
            in ms at batch 1. Ten or more, like those to be predicted, are better.
        name: name of the new device; None for that of ``predictor`` with ``-calibrated``.
        model_type, input_shape: of all models, as ``predictor.predict`` takes them.

    Raises:
        CalibrationError: fewer models, a latency that is not positive, a predictor that is calibrated
            already, or the models are not predicted better when one of them at a time is left out.
        PackError: ``name`` cannot be the name of a device.
        ReaderError, GraphError, ShapeError: a model cannot be read.

    The card of the new pack says what it was made from. :func:`store` keeps it for later sessions.
    """
    fit = fit_calibration(predictor, measured, model_type, input_shape)
    if not fit.helps:
        raise CalibrationError(
            f"calibration does not help: of {len(fit.measured)} models, each predicted from the others, the "
            f"mean error is {fit.accuracy()['after']['mape']} %, and {fit.accuracy()['before']['mape']} % as "
            "the predictor is; measure more models, more like those that you want to predict"
        )
    return with_calibration(predictor, fit, name)


def fit_calibration(
    predictor: LatencyPredictor,
    measured: Iterable[tuple[Any, float]],
    model_type: str | None = None,
    input_shape: InputShape | None = None,
) -> Fit:
    """Fit a calibration and judge it; arguments and errors as :func:`calibrated`, but it need not help."""
    if predictor.pack.calibration is not None:
        origin = predictor.pack.card["calibration"]["made_from"]["predictor"]
        raise CalibrationError(f"{predictor.device} is calibrated already; calibrate {origin} instead")
    of_parts = predictor.of_parts()  # constants are for what kernels take in a large network
    models: list[Kernels] = []
    latencies: list[float] = []
    scales: list[float] = []
    for model, ms in measured:
        if not 0 < ms < math.inf:
            raise CalibrationError(f"a latency of {ms!r} ms is not a positive number; give ms at batch 1")
        explained = of_parts.explain(read_model(model, model_type, input_shape))
        nodes, intervals = explained.kernel_graph.nodes(data=True), predictor.pack.intervals
        found = [(kernel_type(data["kernel"]), data["latency_ms"]) for _, data in nodes]
        scales.append(1.0 if intervals is None or not explained.doubt else intervals.scale(explained.doubt))
        models.append([(kind, its_ms) for kind, its_ms in found if its_ms is not None])
        latencies.append(float(ms))
        if not models[-1]:
            raise CalibrationError(f"model {len(models)} has nothing that {predictor.device} predicts")
    if len(models) < FEWEST:
        raise CalibrationError(f"calibration takes at least {FEWEST} models, and {len(models)} are given")
    return _fit(models, np.array(latencies), np.array(scales), predictor.pack.warmth)


def with_calibration(predictor: LatencyPredictor, fit: Fit, name: str | None = None) -> LatencyPredictor:
    """``predictor`` with the calibration of ``fit``, as a predictor called ``name``.

    Raises:
        CalibrationError: ``name`` is that of a device whose pack ships with the package.
        PackError: ``name`` cannot be the name of a device.
    """
    name = check_device_name(name or f"{predictor.device}-calibrated", "the calibrated pack")
    if name in devices():
        raise CalibrationError(f"{name} is the name of a pack that ships with the package; give another name")
    pack = predictor.pack
    card = {key: value for key, value in pack.card.items() if key != "accuracy"} | {
        "name": name,
        "version": _VERSION,
        "hardware": f"calibrated, from {pack.card.get('hardware', pack.name)}",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "calibration": {
            "made_from": {
                "predictor": pack.name,
                "version": pack.version,
                "fingerprint": pack_fingerprint(pack),
            },
            "models": len(fit.measured),
            "latency_ms": {"least": float(fit.measured.min()), "greatest": float(fit.measured.max())},
            "one_model_left_out": fit.accuracy(),
            **fit.calibration.to_card(),
        },
    }
    if pack.intervals is not None:
        halves = conformal_half_widths(_errors(fit.after, fit.measured) / fit.scales)
        card["intervals"] = replace(pack.intervals, half_widths=halves).to_card()
    return LatencyPredictor(replace(pack, card=card))


def store(predictor: LatencyPredictor) -> Path:
    """Keep a calibrated predictor among the user's packs, for ``load_latency_predictor``; return its folder.

    A pack of the user's with the same name and version is replaced.

    Raises:
        CalibrationError: the predictor is not calibrated.
        PackError: a pack with its name and version ships with the package.
    """
    pack = predictor.pack
    if pack.calibration is None:
        raise CalibrationError(f"{predictor.device} is not calibrated, so it is stored already")
    folder = user_pack(pack.name, pack.version)
    with locked(f"{pack.name}-{pack.version}"), written_pack(folder) as partial:
        if isinstance(pack.predictors, KernelNetwork):
            save_pack(partial, pack.card, pack.predictors, pack.prototypes)
        else:
            _save_forests(partial, pack.card)
    return folder


def _save_forests(folder: Path, card: Mapping[str, Any]) -> None:
    """Write a calibrated pack of forests into ``folder``, with the files of the original."""
    origin = card["calibration"]["made_from"]
    source = pack_folders()[origin["predictor"], float(origin["version"])]
    shutil.copytree(source, folder, copy_function=_link_or_copy)
    write_card(folder, dict(card))
    write_checksums(folder, read_checksums(source))


def _link_or_copy(source: str, target: str) -> None:
    """Link a file, which may hold gigabytes and never changes; copy it on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fit_constants(models: Sequence[Kernels], measured: FloatArray) -> Calibration:
    """The constants for models of these kernels, which took ``measured`` ms, ``[n]``."""
    names = _types(models)
    return _constants(names, _amounts(models, names), measured)


def _fit(models: Sequence[Kernels], measured: FloatArray, scales: FloatArray, warmth: Warmth) -> Fit:
    names = _types(models)
    amounts, sums = _amounts(models, names), warmth.sums(measured)
    after = []
    for i, kernels in enumerate(models):
        others = np.arange(len(models)) != i
        after.append(_constants(names, amounts[others], sums[others]).model_ms(kernels))
    before = np.array([math.fsum(ms for _, ms in kernels) for kernels in models])
    constants = _constants(names, amounts, sums)
    return Fit(constants, measured, warmth.ms(before), warmth.ms(np.array(after)), scales)


def _constants(names: Sequence[str], amounts: FloatArray, measured: FloatArray) -> Calibration:
    """The constants that minimise squared relative errors plus the ridge times squared changes, in units.

    A launch counts in mean latencies of a kernel. The constants of a type come on top of those of all.
    """
    kernel_ms, model_ms = amounts[:, 0].sum() / amounts[:, 1].sum(), amounts[:, 0].mean()
    of_types = [_OF_ONE_TYPE, _OF_ONE_TYPE * kernel_ms] * len(names)
    units = np.array([1.0, kernel_ms, *of_types, _OFFSET * model_ms])
    terms = np.hstack([amounts, np.ones((len(amounts), 1))]) * units / measured[:, None]
    wanted = 1 - amounts[:, 0] / measured
    found = _ridge_fit(terms, wanted)
    if found[-1] < 0:  # no run takes less than its kernels
        found = [*_ridge_fit(terms[:, :-1], wanted), 0.0]
    *changes, offset_ms = (np.array(found) * units).tolist()
    scale, launch_ms, *own = changes
    own_by_name = zip(names, own[::2], own[1::2], strict=True)
    return Calibration(
        1 + scale,
        launch_ms,
        offset_ms,
        {name: (1 + scale + more, launch_ms + ms) for name, more, ms in own_by_name},
    )


def _ridge_fit(terms: FloatArray, wanted: FloatArray) -> list[float]:
    """The weights of ``terms [n, m]`` that come closest to ``wanted [n]``, under the ridge."""
    normal = terms.T @ terms + _RIDGE * np.eye(terms.shape[1])
    found: list[float] = np.linalg.solve(normal, terms.T @ wanted).tolist()
    return found


def _types(models: Sequence[Kernels]) -> list[str]:
    """Kernel types that have more than a small share of the latency, sorted."""
    totals: dict[str, float] = {}
    for kind, ms in chain.from_iterable(models):
        totals[kind] = totals.get(kind, 0.0) + ms
    least = _LEAST_SHARE * math.fsum(totals.values())
    return sorted(kind for kind, total in totals.items() if total > least)


def _amounts(models: Sequence[Kernels], names: Sequence[str]) -> FloatArray:
    """Latency in ms and number of all kernels, then of those of each type, ``[n, 2 + 2 types]``."""
    rows = []
    for kernels in models:
        by_type = [[ms for kind, ms in kernels if name in (None, kind)] for name in (None, *names)]
        rows.append([amount for found in by_type for amount in (math.fsum(found), float(len(found)))])
    return np.array(rows)


def _errors(predicted: FloatArray, measured: FloatArray) -> FloatArray:
    """Error of each model: too low by half counts as much as twice too high."""
    return np.abs(np.log(predicted / measured))
