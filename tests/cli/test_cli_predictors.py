"""`predictors`: what there is and how good it is; import, use and removal of nn-Meter's own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("sklearn", reason="needs scikit-learn, to make forests")

from forests import KERNELS, write_predictor
from ir import small_cnn
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main

COMMAND = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
CPU = "cortexA76cpu_tflite21"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for packs of the user's."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path / "home"


def test_list_predictors_prints_what_nn_meter_prints(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-predictors"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == "(nn-Meter) Supported latency predictors:"
    assert f"(nn-Meter) [Predictor] {CPU}: version=2.1" in lines


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")  # it has forests for few kernels
def test_imported_predictor_is_listed_used_inspected_and_removed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_predictor(tmp_path / CPU)
    model = tmp_path / "model.json"
    model.write_text(json.dumps(small_cnn()), encoding="utf-8")
    assert main(["predictors", "import", str(source)]) == 0
    out, err = capsys.readouterr()
    assert str(home) in out
    assert "--predictor-version 1.0" in err

    assert main(["predictors", "list"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if CPU in line]
    assert ["in the package" in row for row in rows] == [True, True, False]
    assert str(home) in rows[2]

    assert main(["predict", str(model), "--predictor", CPU, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["version"] == 2.1
    assert main(["predict", str(model), "--predictor", CPU, "--predictor-version", "1.0"]) == 0
    assert float(capsys.readouterr().out) == load_latency_predictor(CPU, 1.0).predict(model)

    info = ["predictors", "info", CPU, "--predictor-version", "1.0"]
    assert main([*info, "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "all match their SHA-256" in shown
    assert all(kernel in shown for kernel in KERNELS)
    forest = next(path for path in home.rglob("*") if path.is_file() and path.parent.name == "forests")
    content = bytearray(forest.read_bytes())
    content[-1] ^= 1
    forest.write_bytes(content)
    assert main([*info, "--verify"]) == 1
    assert forest.name in capsys.readouterr().err

    assert main(["predictors", "unregister", CPU, "--predictor-version", "1.0"]) == 0
    assert f"removed {CPU} 1.0" in capsys.readouterr().out
    assert not forest.exists()


def test_registered_predictor_goes_by_its_own_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    location = write_predictor(tmp_path / "forests")
    meta = {"name": "my_phone", "version": 1.5, "category": "cpu", "package_location": str(location),
            "kernel_predictors": list(KERNELS)}  # fmt: skip
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    assert main(["predictors", "register", str(tmp_path / "meta.yaml")]) == 0
    assert "my_phone 1.5 is stored in" in capsys.readouterr().out
    assert main(["--list-predictors"]) == 0
    assert "[Predictor] my_phone: version=1.5" in capsys.readouterr().out


def test_card_tells_training_data_licence_and_accuracy_by_family(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predictors", "info", CPU.upper()]) == 0
    shown = capsys.readouterr().out
    card = load_latency_predictor(CPU).pack.card
    assert card["trained_on"]["name"] in shown
    assert card["trained_on"]["licence"] in shown
    for family, figures in card["accuracy"]["held_out_ids"].items():
        row = next(line for line in shown.splitlines() if f" {family} " in line)
        assert f"{figures['within_10']:.1f}" in row


def test_damaged_source_is_an_error_and_leaves_nothing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_predictor(tmp_path / CPU)
    (source / "fc.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert main(["predictors", "import", str(source)]) == 1
    assert "os.system" in capsys.readouterr().err
    assert not list(home.rglob("pack.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictors"], "required: ACTION"),
        (["predictors", "import"], "required: SOURCE"),
        (["predictors", "info", "cortexA76"], f"did you mean '{CPU}'?"),
        (["predictors", "info", CPU, "--predictor-version", "7"], "no version 7.0"),
        (["predictors", "unregister", CPU], "no imported predictor"),
    ],
)
def test_wrong_usage_exits_with_2(
    home: Path, arguments: list[str], message: str, refused: Callable[[list[str], str], None]
) -> None:
    refused(arguments, message)


def test_installed_command_tells_success_from_failure_and_usage(home: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(small_cnn()), encoding="utf-8")
    for arguments, code in (
        ([str(model)], 0),
        ([str(model), str(tmp_path / "absent.json")], 1),
        ([str(model), "--predictor", "phone"], 2),
    ):
        command = [COMMAND, "predict", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert result.returncode == code
        assert "Traceback" not in result.stderr
        assert bool(result.stdout) == (code < 2)


def test_info_tells_which_types_were_measured_and_their_range(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predictors", "info", "adreno640gpu_tflite21"]) == 0
    printed = capsys.readouterr().out
    assert "Kernel types measured" in printed
    [row] = [line for line in printed.splitlines() if line.startswith("│ dwconv ")]
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["3-2176", "3-2176", "7-112", "1-7", "1-2", "1"]
    assert "never measured, and estimated: channelshuffle, split" in printed
