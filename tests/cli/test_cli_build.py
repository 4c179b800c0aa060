"""``nnmeter-nas build`` as a user runs it: on this machine's onnxruntime, and used wrongly."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("scipy")
pytest.importorskip("torch")

from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.plan import LEAST_ROUND
from nnmeter_nas.builder.workspace import Round
from nnmeter_nas.cli import main
from nnmeter_nas.cli.rounds import shown_rounds
from nnmeter_nas.files import lock_folder
from nnmeter_nas.readers.onnx.writer import to_onnx

DEVICE = "simulated_device:Device"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_is_built_verified_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra 'onnxruntime' is not installed")
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    for steps in ("_STEPS", "_QUICK_STEPS"):  # how good the fit is does not matter here
        monkeypatch.setattr(f"nnmeter_nas.builder.fitting.{steps}", 200)
    monkeypatch.chdir(tmp_path)
    names = [f"{seed}.onnx" for seed in range(7000, 7005)]
    for name in names:
        Path(name).write_bytes(to_onnx(random_network(int(Path(name).stem))))
    command = ["build", "here", "--networks", "24", "--verify", *names, "--nn-meter-results", "theirs"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "here is stored in" in out
    assert "7001.onnx" in out
    assert "within ±10 %" in out
    assert "rank correlation (Spearman): " in out
    assert "the report is in build-here/report.html" in out
    assert "result files of nn-Meter's are in theirs" in out
    assert "the table is in build-here/verified.csv" in out
    rows = list(csv.DictReader(Path("build-here/verified.csv").read_text().splitlines()))
    assert [Path(row["model"]) for row in rows] == [tmp_path / name for name in names]
    assert all(0 < float(row["low_ms"]) < float(row["predicted_ms"]) < float(row["high_ms"]) for row in rows)
    # What was measured calibrates a predictor of another device.
    calibrate = ["calibrate", "--predictor", "cortexA76cpu_tflite21", "--name", "scaled"]
    assert main([*calibrate, "--measured", "build-here/verified.csv"]) == 0
    capsys.readouterr()
    assert (tmp_path / "theirs/predictor_build/results/profiled_conv-bn-relu.json").is_file()
    files = {path.name for path in (tmp_path / "build-here").iterdir()}
    journals = {"models.jsonl", "measured.jsonl", "rounds.jsonl"}
    assert {"device.yaml", "rules.yaml", "report.html", *journals} <= files
    assert main(["predict", "7000.onnx", "--predictor", "here"]) == 0
    assert float(capsys.readouterr().out) > 0
    assert main(["explain", "7000.onnx", "--predictor", "here"]) == 0
    assert " to " in capsys.readouterr().out, "it has an interval"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "onnxruntim"], "no backend is called 'onnxruntim', and it is no class such as"),
        (["--backend", "no_such:Board"], "No module named 'no_such'; a module must be installed, in"),
        (["--minutes", "0"], "argument --minutes: 0 is not a positive number"),
        (["--minutes", "-2"], "argument --minutes: -2 is not a positive number"),
        (["--tuned"], f"backend '{DEVICE}' has no option 'tuned'; it has none"),
        (["--networks", "7"], f"--networks 7 is less than one round measures; give at least {LEAST_ROUND}"),
        (["--seed", "-1"], "argument --seed: -1 is less than 0"),
        (["--input-shape", "1", "3", "224", "224"], "it is that of models to verify; add --verify MODEL"),
        (["--verify", "model.onnx", "--input-shape", "0"], "'0' is no size"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(
    flags: list[str],
    message: str,
    refused: Callable[[list[str], str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["build", "mine", "--backend", DEVICE, *flags], message)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_bundled_device_is_refused(
    refused: Callable[[list[str], str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["build", "cortexa76cpu_tflite21", "--backend", DEVICE], "give your device another name")
    assert list(tmp_path.iterdir()) == []


def test_models_to_verify_are_read_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, said in (("missing.onnx", "missing.onnx"), ("damaged.onnx", "damaged.onnx")):
        if name == "damaged.onnx":
            (tmp_path / name).write_bytes(b"no model")
        assert main(["build", "mine", "--backend", DEVICE, "--verify", name]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "build-mine").exists()


def test_a_workspace_in_use_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lock = lock_folder(tmp_path / "build-mine", "build.lock", "build")
    assert main(["build", "mine", "--backend", DEVICE]) == 1
    lock.release()
    assert "another process works on the build in build-mine" in capsys.readouterr().err


class Terminal(io.StringIO):
    """What a terminal is given."""

    def isatty(self) -> bool:
        return True


ROUND = Round(24, 1, 1.25, 40.0, 60.5, 80.0, 90.0)
LINES = [
    "networks  left out  minutes    ±5 %   ±10 %  repeats ±5 %   ±10 %",
    "      24         1     1.25    40.0    60.5          80.0    90.0",
]


def test_rounds_are_lines_for_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_rounds() as (show, tell):
        tell("visit 1: 3 of 24 networks")
        show(ROUND)
        show(ROUND)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [*LINES, LINES[1]]
    assert shown.err == ""


@pytest.mark.parametrize("stdout", [io.StringIO, Terminal])
def test_a_terminal_shows_a_table_and_what_goes_on(
    stdout: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out, err = stdout(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with shown_rounds() as (show, tell):
        show(ROUND)
        tell("visit 1: 3 of 24 networks, 0.20 of 5 minutes")
    shown = err.getvalue()
    assert "repeats ±5 %" in shown
    assert "60.5" in shown
    lines = [] if stdout is Terminal else LINES
    assert out.getvalue().splitlines() == lines, "not twice on one terminal"
