"""`calibrate`: a predictor of one's own device from a CSV file of models and their latency."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ir import IrBuilder
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main
from nnmeter_nas.errors import UnknownDeviceError

CPU = "cortexA76cpu_tflite21"


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten models, timed on a device that takes twice as long and 0.2 ms more for each of their kernels."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    predictor, lines = load_latency_predictor(CPU), ["model,ms"]
    (tmp_path / "nets").mkdir()
    for i in range(10):
        b = IrBuilder((1, 16 + 4 * i, 32, 3))
        last = "input"
        for layer in range(1 + i % 4):
            last = b.conv(f"conv{layer}", last, 8 * (1 + (3 * i + layer) % 7), kernel=3)
        path = tmp_path / "nets" / f"{i}.json"
        path.write_text(json.dumps(b.nodes), encoding="utf-8")
        found = predictor.explain(path)
        lines.append(f"nets/{i}.json, {2 * found.latency_ms + 0.2 * len(found.kernel_graph)}")
    (tmp_path / "measured.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "measured.csv"


def calibrate(path: Path, *arguments: str) -> int:
    return main(["calibrate", "--predictor", CPU, "--measured", str(path), "--name", "my-phone", *arguments])


def test_it_shows_the_errors_and_stores_a_predictor(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(measured) == 0
    out, err = capsys.readouterr()
    assert "mean error (%)" in out
    assert "my-phone 1.0 is stored in" in out
    assert "predict MODEL --predictor my-phone" in err
    model = measured.parent / "nets" / "7.json"
    assert main(["predict", str(model), "--predictor", "my-phone"]) == 0
    original = load_latency_predictor(CPU).explain(model)
    expected = 2 * original.latency_ms + 0.2 * len(original.kernel_graph)
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=0.05)
    assert main(["predictors", "info", "my-phone"]) == 0
    assert f"made from: predictor: {CPU}" in capsys.readouterr().out


def test_it_stores_nothing_if_it_does_not_help(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor, lines = load_latency_predictor(CPU), ["model,ms"]
    for i in range(10):
        lines.append(f"nets/{i}.json,{predictor.explain(measured.parent / 'nets' / f'{i}.json').latency_ms}")
    measured.write_text("\n".join(lines), encoding="utf-8")
    assert calibrate(measured) == 1
    assert "does not help, so nothing is stored" in capsys.readouterr().err
    with pytest.raises(UnknownDeviceError):
        load_latency_predictor("my-phone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a header and rows with the columns model and ms"),
        ("file,latency\na.json,1\n", "needs a header and rows with the columns model and ms"),
        ("model,ms\nnets/0.json,fast\n", "line 2: 'nets/0.json' and 'fast' are no model and its ms"),
        ("model,ms\nnets/0.json\n", "line 2: 'nets/0.json' and None are no model"),
        ("model,ms\nnets/0.json,-1\n", "a latency of -1.0 ms is not a positive number"),
        ("model,ms\nnets/0.json,1\n", "at least 5 models, and 1 are given"),
        ("model,ms\nnets/none.json,1\n", "none.json"),
    ],
)
def test_a_file_that_it_cannot_use_is_refused_by_line(
    measured: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    measured.write_text(text, encoding="utf-8")
    assert calibrate(measured) == 1
    assert message in capsys.readouterr().err


def test_a_missing_file_is_an_error(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(measured.with_name("none.csv")) == 1
    assert "none.csv" in capsys.readouterr().err
