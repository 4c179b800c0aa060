"""Accuracy: the bundled packs predict the measured latencies of models they were not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnmeter_nas import load_latency_predictor, read_model
from nnmeter_nas.benchmarks.packs.pack_training import held_out
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from nnmeter_nas.training.accuracy import accuracy

DEVICES = sorted(devices())


@pytest.fixture(scope="module")
def unseen(bench_dir: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Predicted and measured latency (ms) of held-out models: device -> family -> pairs."""
    predictors = {device: load_latency_predictor(device) for device in DEVICES}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {device: {} for device in DEVICES}
    for path in dataset_files(bench_dir):
        for model in iter_models(path):
            if not held_out([model.id])[0]:
                continue
            graph = read_model(model.graph, "nnmeter-ir")
            for device, measured in model.latency_ms.items():
                if model.family not in predictors[device].pack.card["accuracy"]["held_out_ids"]:
                    continue  # the pack makes no claim about it
                pair = (predictors[device].predict(graph), measured)
                found[device].setdefault(model.family, []).append(pair)
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_predictions_for_unseen_models_of_each_family_are_accurate(
    unseen: dict[str, dict[str, list[tuple[float, float]]]], device: str
) -> None:
    assert len(unseen[device]) >= 8, "too few families have a held-out model among the first"
    for family, pairs in unseen[device].items():
        predicted, measured = np.array(pairs).T
        assert accuracy(predicted, measured)["mape"] < 15, family


@pytest.mark.parametrize("device", DEVICES)
def test_predictions_for_unseen_models_are_accurate_and_rank_them(
    unseen: dict[str, dict[str, list[tuple[float, float]]]], device: str
) -> None:
    predicted, measured = np.array([pair for pairs in unseen[device].values() for pair in pairs]).T
    found = accuracy(predicted, measured)
    assert found["mape"] < 6
    assert found["within_10"] > 85
    assert found["spearman"] > 0.97
