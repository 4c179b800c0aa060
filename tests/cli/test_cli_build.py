"""``nnmeter-nas build`` on this machine's onnxruntime, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")
pytest.importorskip("torch")

from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.cli import main
from nnmeter_nas.readers.onnx.writer import to_onnx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_machine_is_built_verified_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for seed in (7000, 7001):
        (tmp_path / f"{seed}.onnx").write_bytes(to_onnx(random_network(seed)))
    command = ["build", "here", "--networks", "24", "--verify", "7000.onnx", "7001.onnx"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "here is stored in" in out
    assert "7001.onnx" in out
    assert "within ±10 %" in out
    assert {"device.yaml", "models.jsonl", "measured.jsonl", "rules.yaml"} <= {
        path.name for path in (tmp_path / "build-here").iterdir()
    }
    assert main(["predict", "7000.onnx", "--predictor", "here"]) == 0
    assert float(capsys.readouterr().out) > 0
    assert main(["explain", "7000.onnx", "--predictor", "here"]) == 0
    assert " to " in capsys.readouterr().out, "it has an interval"
