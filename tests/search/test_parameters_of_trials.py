"""A trial runs what was submitted for it, even if the process of a later trial asks for parameters first."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from commands import Command
from limits import limit_in

pytest.importorskip("nni.nas", reason="runs searches on NNI")

pytestmark = [pytest.mark.slow, pytest.mark.nni3]

DEVICE = "adreno640gpu_tflite21"

#: The first trial's process begins late and fails.
SITE = """
import os, time
if os.environ.get("NNI_TRIAL_SEQ_ID") == "0":
    time.sleep(15)
"""
TRAINING = """
import os
from torch import nn

def train(model):
    network = model if isinstance(model, nn.Module) else model()
    if os.environ["NNI_TRIAL_SEQ_ID"] == "0":
        raise RuntimeError("the first trial fails")
    return sum(p.numel() for p in network.parameters()) / 1e6
"""


def test_the_trial_that_fails_is_the_one_whose_process_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    (tmp_path / "my_training.py").write_text(TRAINING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    command = Command(
        tmp_path, "search", "--space", "spos-small", "--predictor", DEVICE,
        "--max-latency", str(limit_in("spos-small", DEVICE, 0.5)), "--strategy", "random",
        "--evaluator", "my_training:train", "--trials", "2", "--concurrency", "2", "-o", "run",
    )  # fmt: skip
    code, _, errors = command.end()
    assert code == 0, errors
    rows = list(csv.DictReader((tmp_path / "run" / "trials.csv").open()))
    assert [row["state"] for row in rows] == ["failed", "trained"]
    assert "the first trial fails" in rows[0]["failure"]
