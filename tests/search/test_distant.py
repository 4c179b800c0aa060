"""A trial made from plain values, as another machine runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nni.nas", reason="makes networks of NNI's")

from nnmeter_nas.search.distant import run_task

pytestmark = pytest.mark.nni3

ARCHITECTURE = {f"layer_{number}": "k5" for number in range(1, 7)}
MODULE = """
import nni

def size(model):
    network = model if hasattr(model, "parameters") and not isinstance(model, type) else None
    network = model() if network is None else network
    return sum(p.numel() for p in network.parameters())

def returns(model, epochs):
    return {"default": size(model) * epochs, "loss": 1.5}

def reports(model, input_shape):
    nni.report_intermediate_result(0.1)
    nni.report_final_result(input_shape[-1])

def fails(model):
    size(model)
    raise ValueError("no such optimiser")

def leaves(model):
    raise SystemExit(3)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module, in the current folder."""
    (tmp_path / "distant_training.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def outcome(evaluator: str, **changed: Any) -> dict[str, Any]:
    task = {
        "space": "spos-small", "architecture": ARCHITECTURE, "evaluator": f"distant_training:{evaluator}",
        "arguments": {"epochs": 2, "seed": 0}, "input_shape": [1, 3, 32, 32], **changed,
    }  # fmt: skip
    return json.loads(json.dumps(run_task(json.loads(json.dumps(task)))))  # as it travels


def test_an_evaluator_gets_the_network_and_what_it_takes_and_its_metric_comes_back() -> None:
    first = outcome("returns")
    assert first["metric"] > 10_000
    assert (first["failure"], first["trace"]) == ("", "")
    other = outcome("returns", architecture={**ARCHITECTURE, "layer_1": "k3"})
    assert 0 < first["metric"] - other["metric"] < first["metric"] / 2
    assert outcome("reports")["metric"] == 32


@pytest.mark.parametrize(
    ("evaluator", "changed", "failure"),
    [
        ("fails", {}, "ValueError: no such optimiser"),
        ("leaves", {}, "SystemExit: 3"),
        ("missing", {}, "SearchError: evaluator=distant_training:missing: cannot load it"),
        ("returns", {"architecture": {"layer_1": "k5"}}, "SpaceError: "),
    ],
)
def test_what_fails_comes_back_with_its_place(evaluator: str, changed: dict[str, Any], failure: str) -> None:
    failed = outcome(evaluator, **changed)
    assert failed["metric"] is None
    assert failed["failure"].startswith(failure)
    assert "Traceback" in failed["trace"]
