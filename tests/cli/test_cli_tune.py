"""``nnmeter-nas tune`` as a user runs it: a tiny model, a few trials, and more of them later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="the extra 'tvm' is not installed")
pytest.importorskip("xgboost")

from nnmeter_nas.cli import main
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.readers.onnx.writer import to_onnx

pytestmark = pytest.mark.tvm


def model(channels: int) -> bytes:
    """A convolution and a ReLU."""
    graph = new_graph("model")
    add_input(graph, "x", (1, 8, 16, 16))
    conv = {"out_channels": channels, "kernel": (3, 3), "padding": ((1, 1), (1, 1)), "bias": True}
    add_op(graph, "conv", "conv", ["x"], conv)
    add_op(graph, "relu", "relu", ["conv"])
    return to_onnx(finish(graph))


def trials(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_a_model_is_tuned_and_goes_on_with_more_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(model(16))
    Path("other.onnx").write_bytes(model(24))
    assert main(["tune", "model.onnx", "--trials", "6", "-o", "tuned"]) == 0
    said = capsys.readouterr()
    assert "times as fast" in said.out
    assert "conv, relu" in said.out
    assert "6 of 6 trials" in said.err
    first = trials(Path("tuned"))
    assert first[0]["trials"] == 0
    assert first[-1]["trials"] == 6
    assert 0 < first[-1]["best_ms"] < first[0]["best_ms"], "loops as they come are slow"
    assert Path("tuned/trials.png").read_bytes().startswith(b"\x89PNG")
    printed = subprocess.run(
        [sys.executable, "tuned/run.py"], check=True, capture_output=True, text=True
    ).stdout
    assert "[[[[" in printed
    assert main(["tune", "model.onnx", "--trials", "10", "-o", "tuned"]) == 0
    assert trials(Path("tuned"))[: len(first)] == first
    assert trials(Path("tuned"))[-1]["trials"] == 10
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["tune", "other.onnx", "-o", "tuned"])
    assert "--output tuned holds trials of another model" in capsys.readouterr().err
