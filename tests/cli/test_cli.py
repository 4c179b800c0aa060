"""The command line: wrong usage is told from failure, errors name the way out, and help helps."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import nnmeter_nas
from ir import small_cnn
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import argument_parser, main, models

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
    arguments: list[str], message: str, refused: Callable[[list[str], str], None]
) -> None:
    refused(arguments, message)


@pytest.mark.parametrize("command", [["demo"], ["predict", "model.json"], ["explain", "model.json"]])
def test_unknown_device_exits_with_2_and_the_nearest_name(
    command: list[str], refused: Callable[[list[str], str], None]
) -> None:
    refused([*command, "--predictor", "cortexA76cpu"], f"did you mean '{DEVICE}'?")


@pytest.mark.parametrize("command", [["demo"], ["search", "--space", "spos"]])
def test_unknown_device_is_told_without_loading_torch_or_nni(command: list[str]) -> None:
    program = (
        "import sys; from nnmeter_nas.cli import main\n"
        f"try: main({[*command, '--predictor', 'phone']})\n"
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
    interval = load_latency_predictor(DEVICE).predict_interval(sample)
    assert interval.ms == latency
    assert f"{interval} on {DEVICE}" in capsys.readouterr().out


def test_predictors_list_names_all_devices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table cuts names
    assert main(["predictors", "list"]) == 0
    listed = capsys.readouterr().out
    for device in (DEVICE, "adreno640gpu_tflite21", "adreno630gpu_tflite21", "myriadvpu_openvino2019r2"):
        assert device in listed


@pytest.mark.parametrize(
    "command",
    [[], ["predict"], ["lat_pred"], ["explain"], ["get_ir"], ["predictors"], ["predictors", "import"],
     ["predictors", "register"], ["predictors", "unregister"], ["predictors", "info"], ["demo"]],
)  # fmt: skip
def test_help_of_every_command_has_examples_that_parse(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    helped = capsys.readouterr().out
    _, _, examples = helped.partition("example")
    lines = [line.strip() for line in examples.splitlines() if "nnmeter-nas " in line]
    assert lines
    for line in lines:
        usage = line.partition("nnmeter-nas ")[2].partition("   ")[0].removesuffix(")")
        words = shlex.split(usage)
        assert callable(argument_parser(words).parse_args(words).run)


def test_version_is_the_one_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nnmeter-nas {version('nnmeter_nas')}\n"


@pytest.mark.parametrize("verbose", [["-v", "predict"], ["predict", "--verbose"]])
def test_verbose_says_more_about_each_model(
    shared_dir: Path, verbose: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sample = str(shared_dir / "data" / "samples" / "mobilenetv3small_0.json")
    assert main([*verbose, sample, "--predictor", DEVICE]) == 0
    assert f"{sample}: nnmeter-ir, " in capsys.readouterr().err
    assert main(["predict", sample, "--predictor", DEVICE]) == 0
    assert capsys.readouterr().err == ""


def test_fault_of_our_own_fails_its_model_alone_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(small_cnn()), encoding="utf-8")
    read = models.read_model

    def faulty(path: Path, *arguments: object) -> object:
        if path.name == "a.json":
            raise ZeroDivisionError("a fault")
        return read(path, *arguments)

    monkeypatch.setattr(models, "read_model", faulty)
    assert main(["predict", str(tmp_path), "--predictor", DEVICE]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"nnmeter-nas: error: {tmp_path / 'a.json'}: unexpected ZeroDivisionError: a fault")
    assert str(tmp_path / "b.json") in out
    assert main(["predict", "-v", str(tmp_path / "a.json"), "--predictor", DEVICE]) == 1
    assert "in faulty" in capsys.readouterr().err


def test_errors_of_the_library_name_arguments_and_no_flags() -> None:
    """They are raised in Python too; the command turns arguments into flags."""
    package = Path(nnmeter_nas.__file__).parent
    commands = {package / "cli", package / "benchmarks", package / "compat"}
    found = []
    for path in sorted(package.rglob("*.py")):
        if not commands.isdisjoint(path.parents):
            continue
        raised = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Raise)]
        parts = [getattr(n, "value", None) for error in raised for n in ast.walk(error)]
        found += [text for text in parts if isinstance(text, str) and re.search(r"(?<!\w)--[a-z]", text)]
    assert found == []
