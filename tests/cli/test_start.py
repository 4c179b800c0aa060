"""What a command imports before it works: what it runs, and nothing of the other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ir import small_cnn
from nnmeter_nas.cli import main
from nnmeter_nas.cli.commands import COMMANDS

#: Rooms and packages that predicting an nn-Meter IR file has no use for.
UNUSED_ROOMS = ("compat", "costs", "estimators", "nni", "search", "search_spaces", "solve", "strategies",
                "supernet")  # fmt: skip
UNUSED_PACKAGES = ("httpx", "joblib", "matplotlib", "nni", "onnx", "pandas", "rich", "scipy", "sklearn",
                   "tensorboard", "torch")  # fmt: skip

PROGRAM = """
import sys
from nnmeter_nas.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(code, *sys.modules, file=sys.stderr)
"""


def modules_of(*arguments: str) -> set[str]:
    """The modules that are loaded when a command has ended well."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *modules = result.stderr.splitlines()[-1].split()
    assert code == "0", result.stderr
    return set(modules)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(small_cnn()), encoding="utf-8")
    return str(path)


def test_predict_loads_nothing_that_it_does_not_run(model: str) -> None:
    for arguments in (["predict", "--help"], ["predict", model]):
        modules = modules_of(*arguments)
        unused = {f"nnmeter_nas.{room}" for room in UNUSED_ROOMS} | set(UNUSED_PACKAGES)
        assert unused & modules == set()
        commands = {name for name in COMMANDS if f"nnmeter_nas.cli.{name}" in modules}
        assert commands == {"predict"}
        assert "nnmeter_nas.cli.plots" not in modules
    assert "nnmeter_nas.readers.nnmeter_ir.reader" in modules
    others = {f"nnmeter_nas.readers.{name}.operators" for name in ("nni", "onnx", "tensorflow", "torch")}
    assert others & modules == set()


def test_help_loads_no_command_and_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    modules = modules_of("--help")
    assert {"numpy", "networkx"} & modules == set()
    assert {name for name in COMMANDS if f"nnmeter_nas.cli.{name}" in modules} == set()
    with pytest.raises(SystemExit):
        main(["--help"])
    helped = " ".join(capsys.readouterr().out.split())
    for name, summary in COMMANDS.items():
        assert name in helped
        assert summary in helped


def test_a_word_that_is_also_a_command_may_be_a_file_or_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "model.json").write_text(json.dumps(small_cnn()), encoding="utf-8")
    assert main(["predict", "search"]) == 0
    assert float(capsys.readouterr().out) > 0


def test_an_unknown_command_is_told_the_nearest(refused: Callable[[list[str], str], None]) -> None:
    refused(["predct"], "no command 'predct'; did you mean 'predict'?")
    refused(["xyzzy"], "no command 'xyzzy'; nnmeter-nas --help lists them")
