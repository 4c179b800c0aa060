"""The command line: wrong usage is told from failure, and errors name the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnmeter_nas.cli import main

DEVICE = "cortexA76cpu_tflite21"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--trials", "0"], "0 is not at least 1"),
        (["demo", "--epochs", "many"], "invalid int value: 'many'"),
        (["demo", "--threshold", "-1"], "-1 is not a positive number"),
        (["demo", "--threshold", "nan"], "nan is not a positive number"),
        (["demo", "--port", "70000"], "70000 is not a port"),
        (["demo", "--engine", "cgo"], "invalid choice: 'cgo'"),
        ([], "required: COMMAND"),
        (["predict"], "required: MODEL"),
    ],
)
def test_wrong_usage_is_named_and_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [["demo"], ["predict", "model.json"], ["explain", "model.json"]])
def test_unknown_device_exits_with_2_and_the_nearest_name(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--predictor", "cortexA76cpu"])
    assert exit_info.value.code == 2
    assert f"did you mean '{DEVICE}'?" in capsys.readouterr().err


def test_unknown_device_is_told_without_loading_torch_or_nni() -> None:
    program = (
        "import sys; from nnmeter_nas.cli import main\n"
        "try: main(['demo', '--predictor', 'phone'])\n"
        "except SystemExit as error: print(error.code, *sorted({'torch', 'nni'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["2"]


def test_unreadable_model_exits_with_1_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.json").write_text("{ not json")
    for path in (tmp_path / "model.json", tmp_path / "absent.json"):
        assert main(["predict", str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("nnmeter-nas: error: ")
        assert str(path) in error


def test_predict_prints_milliseconds_and_explain_adds_up_to_them(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = str(shared_dir / "data" / "samples" / "mobilenetv3small_0.json")
    assert main(["predict", sample, "--predictor", DEVICE.upper()]) == 0
    latency = float(capsys.readouterr().out)
    assert latency > 0
    assert main(["explain", sample, "--predictor", DEVICE]) == 0
    assert f"{latency:.3f} ms on {DEVICE}" in capsys.readouterr().out


def test_predictors_list_names_all_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predictors", "list"]) == 0
    listed = capsys.readouterr().out
    for device in (DEVICE, "adreno640gpu_tflite21", "adreno630gpu_tflite21", "myriadvpu_openvino2019r2"):
        assert device in listed
