"""How right a latency is that is proportional to FLOPs, beside our pack on the same models."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.errors import DatasetError
from nnmeter_nas.graph.work import flops
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, family_of, iter_models
from nnmeter_nas.training.accuracy import accuracy

from ..packs.pack_training import held_out

#: A prediction is right up to this relative difference.
RIGHT = 0.1


class Judged(NamedTuple):
    """The models of a dataset.

    Attributes:
        ids, families: of each model.
        work: floating-point operations, [models].
        measured: device -> ms, [models]; NaN where a model was not measured.
        ours: device -> ms that our pack says of the models held out of its training, else NaN, [models].
    """

    ids: list[str]
    families: list[str]
    work: FloatArray
    measured: dict[str, FloatArray]
    ours: dict[str, FloatArray]


def judge(bench: Path, devices: Sequence[str], models: int | None = None) -> dict[str, dict[str, Any]]:
    """Return the accuracy of both, tool -> device -> figures, each on models that neither was fitted to.

    A figure is ``new``: accuracy on the models held out, as :func:`nnmeter_nas.training.accuracy.accuracy`
    returns it; and ``families``: the share (%) within ±10 % of a family left out, as a mean over families.
    That of our packs stands on their cards; they were fitted to a part of the other families.

    Args:
        bench: folder of a dataset in the official schema.
        devices: applied hardware.
        models: how many models of each file count, from its first on; None: all.

    Raises:
        DatasetError: the dataset cannot be read, or no model that was measured on a device is held out.
    """
    predictors = [load_latency_predictor(device) for device in devices]
    known_models = _read(bench, predictors, models)
    fresh, families = held_out(known_models.ids), np.array(known_models.families)
    found: dict[str, dict[str, Any]] = {"flops": {}, "nnmeter_nas": {}}
    for predictor in predictors:
        device = predictor.device
        known = ~np.isnan(known_models.measured[device])
        work, measured = known_models.work[known], known_models.measured[device][known]
        new, family = fresh[known], families[known]
        if not new.any():
            raise DatasetError(
                f"{bench} holds no model that {device} was measured on and no pack was trained on"
            )
        scale = best_scale(work[~new], measured[~new])
        left_out = [_left_out(work, measured, family == one) for one in np.unique(family)]
        found["flops"][device] = {
            "new": accuracy(scale * work[new], measured[new]),
            "families": float(np.mean(left_out)) if len(left_out) > 1 else None,
        }
        found["nnmeter_nas"][device] = {
            "new": accuracy(known_models.ours[device][known][new], measured[new]),
            "families": predictor.pack.card["accuracy"]["leave_one_family_out"]["mean_within_10"],
        }
    return found


def best_scale(work: FloatArray, measured: FloatArray) -> float:
    """The ms of one operation with which most of the models are right.

    >>> best_scale(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 30.0])) * 2 < 2.2
    True
    """
    ratio = measured / work
    low, high = np.sort(ratio * (1 - RIGHT)), np.sort(ratio * (1 + RIGHT))
    # A model is right from the low end of its interval to the high end; the count changes there alone.
    inside = np.searchsorted(low, low, side="right") - np.searchsorted(high, low, side="left")
    return float(low[inside.argmax()])


def within(predicted: FloatArray, measured: FloatArray) -> float:
    """The share (%) of models that are right."""
    return 100 * float(np.mean(np.abs(predicted / measured - 1) <= RIGHT + 1e-12))


def _left_out(work: FloatArray, measured: FloatArray, family: np.ndarray) -> float:
    """The share (%) of a family that is right by the best scale of all others; NaN if there are none."""
    if family.all():
        return float("nan")
    return within(best_scale(work[~family], measured[~family]) * work[family], measured[family])


def _read(bench: Path, predictors: Sequence[LatencyPredictor], most: int | None) -> Judged:
    ids, families, work = [], [], []
    measured: dict[str, list[float]] = {predictor.device: [] for predictor in predictors}
    ours: dict[str, list[float]] = {predictor.device: [] for predictor in predictors}
    for path in dataset_files(bench):
        for model in itertools.islice(iter_models(path), most):
            graph = read_model(model.graph, "nnmeter-ir")
            [fresh] = held_out([model.id])
            ids.append(model.id)
            families.append(family_of(path))
            work.append(float(flops(graph)))
            for predictor in predictors:
                ms = model.latency_ms.get(predictor.device)
                measured[predictor.device].append(np.nan if ms is None else ms)
                counts = fresh and ms is not None
                ours[predictor.device].append(predictor.predict(graph) if counts else np.nan)
    return Judged(ids, families, np.array(work), _arrays(measured.items()), _arrays(ours.items()))


def _arrays(columns: Iterable[tuple[str, list[float]]]) -> dict[str, FloatArray]:
    return {name: np.array(column) for name, column in columns}
