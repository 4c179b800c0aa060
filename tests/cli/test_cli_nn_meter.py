"""Output in nn-Meter's form, which scripts parse: of ``lat_pred``, and of all commands of ``nn-meter``."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from forests import write_predictor
from ir import small_cnn
from nnmeter_nas import compat, list_latency_predictors, load_latency_predictor
from nnmeter_nas.cli import main, nn_meter

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two models."""
    for width in (16, 64):
        (tmp_path / f"cnn_{width}.json").write_text(json.dumps(small_cnn(width)))
    return tmp_path


@pytest.fixture
def no_nn_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nn-Meter itself not be installed."""
    monkeypatch.setattr(nn_meter, "_has_nn_meter", lambda: False)


def latency(path: Path, device: str = CPU) -> float:
    return load_latency_predictor(device).predict(path)


def results(out: str) -> list[list[str]]:
    """Name and ms of each model, found as nn-Meter's own integration test finds them."""
    found = re.findall(r"(?<=\[RESULT\] predict latency for ).*(?= ms\n)", out)
    return [re.sub(r"\s*", "", one).split(":") for one in found]


def nn_meter_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command ``nn-meter``."""
    monkeypatch.setattr(sys, "argv", ["nn-meter", *map(str, words)])
    return nn_meter.main()


def test_help_of_nn_meter_shows_its_builder(
    no_nn_meter: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        nn_meter_command(monkeypatch, "--help")
    helped = capsys.readouterr().out
    for word in ("create", "connect", "register", "unregister"):
        assert re.search(rf"^    {word}\s+\w", helped, re.MULTILINE)
    for kind in ("backends", "kernels", "operators", "testcases"):
        assert f"  --list-{kind}  " in helped
    assert "nn-meter predict model.onnx" in helped
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--list-kernels" not in capsys.readouterr().out, "nnmeter-nas has none of that"


def test_an_unknown_command_of_nn_meter_suggests_the_nearest_alone(
    no_nn_meter: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        nn_meter_command(monkeypatch, "registr", "--backend", "meta.yaml")
    assert capsys.readouterr().err.endswith("error: no command 'registr'; did you mean 'register'?\n")


def test_a_list_may_be_asked_for_by_the_beginning_of_its_flag(
    no_nn_meter: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nn_meter_command(monkeypatch, "--list-back") == 0
    assert "[Backend] tflite_cpu" in capsys.readouterr().out


def test_lat_pred_prints_nn_meters_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lat_pred", "--predictor", CPU, "--nn-meter-ir", str(folder)]) == 0
    out, err = capsys.readouterr()
    expected = [[name, repr(latency(folder / name))] for name in ("cnn_16.json", "cnn_64.json")]
    assert results(out) == expected
    assert out.splitlines()[0] == f"(nn-Meter) [RESULT] predict latency for cnn_16.json: {expected[0][1]} ms"
    assert err == ""


def test_lat_pred_tells_devices_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder / "cnn_16.json"
    assert main(["lat_pred", "--predictor", CPU, GPU, "--nn-meter-ir", str(model)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"(nn-Meter) [RESULT] predict latency for cnn_16.json on {device}: {latency(model, device)} ms"
        for device in (CPU, GPU)
    ]


def test_lat_pred_goes_on_after_a_broken_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.json").write_text("{}")
    assert main(["lat_pred", "--predictor", CPU, "--nn-meter-ir", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert [name for name, _ in results(out)] == ["cnn_16.json", "cnn_64.json"]
    assert "broken.json" in err


def test_formats_come_before_nn_meters_form(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lat_pred", "--predictor", CPU, "--json", "--nn-meter-ir", str(folder)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


@pytest.mark.usefixtures("no_nn_meter")
@pytest.mark.parametrize("command", ["predict", "lat_pred"])
def test_nn_meter_predicts_in_its_own_form(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder / "cnn_16.json"
    words = [command, "--nn-meter-ir", model, "--predictor", CPU, "--predictor-version", "2.0"]
    assert nn_meter_command(monkeypatch, *words) == 0
    expected = load_latency_predictor(CPU, 2.0).predict(model)
    assert results(capsys.readouterr().out) == [["cnn_16.json", repr(expected)]]


@pytest.mark.usefixtures("no_nn_meter")
def test_nn_meter_lists_predictors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nn_meter_command(monkeypatch, "--list-predictors") == 0
    found = re.findall(r"(?<=\[Predictor\] ).+(?=\n)", capsys.readouterr().out)
    expected = [f"{card['name']}: version={card['version']}" for card in list_latency_predictors()]
    assert found == expected


@pytest.mark.usefixtures("no_nn_meter")
def test_nn_meter_says_where_it_saved_a_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["get_ir", "--nn-meter-ir", "cnn_16.json", "--output", "graph"]
    assert nn_meter_command(monkeypatch, *words) == 0
    said = f"(nn-Meter) The nn-meter ir graph has been saved. Saved path: {folder / 'graph.json'}\n"
    assert capsys.readouterr().out == said
    assert latency(folder / "graph.json") == pytest.approx(latency(folder / "cnn_16.json"))


@pytest.mark.usefixtures("no_nn_meter")
def test_nn_meter_registers_predictors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    package = write_predictor(tmp_path / "my_phone")
    meta = tmp_path / "meta.yaml"
    kernels = [file.stem for file in package.glob("*.pkl")]
    meta.write_text(json.dumps({
        "name": "my_phone", "version": 1.5, "category": "cpu", "package_location": str(package),
        "kernel_predictors": kernels,
    }))  # fmt: skip

    def said(*words: object) -> str:
        assert nn_meter_command(monkeypatch, *words) == 0
        return capsys.readouterr().out

    assert said("register", "--predictor", meta) == "(nn-Meter) Successfully register predictor: my_phone\n"
    assert "(nn-Meter) [Predictor] my_phone: version=1.5\n" in said("--list-predictors")
    failed = "(nn-Meter) Unregister failed: there is no predictor named my_phone.\n"
    assert said("unregister", "--predictor-version", "1.0", "--predictor=my_phone") == failed
    unregister = ("-v", "unregister", "--predictor", "my_phone", "--predictor-version", "1.5")
    assert said(*unregister) == "(nn-Meter) Successfully unregister my_phone.\n"
    assert "my_phone: version" not in said("--list-predictors")
    assert said("unregister", "--predictor", "my_phone") == failed


@pytest.mark.usefixtures("no_nn_meter")
def test_nn_meter_keeps_the_predictors_of_the_package_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    assert nn_meter_command(monkeypatch, "unregister", "--predictor", CPU) == 0
    out, err = capsys.readouterr()
    assert out == f"(nn-Meter) Unregister failed: there is no predictor named {CPU}.\n"
    assert f"no imported predictor '{CPU}' to remove" in err
    assert any(card["name"] == CPU for card in list_latency_predictors())


@pytest.mark.usefixtures("no_nn_meter")
@pytest.mark.parametrize(
    ("flag", "heading", "line"),
    [
        ("--list-backends", "backends: ('*' indicates customized backends)", "[Backend] tflite_cpu"),
        ("--list-kernels", "kernels: ('*' indicates customized kernels)", "[Kernel] conv-bn-relu"),
        ("--list-operators", "operators: ('*' indicates customized operators)", "[Operator] dwconv"),
        ("--list-testcases", "testcases: ('*' indicates customized test cases)", "[TestCase] MON"),
    ],
)
def test_nn_meter_lists_what_its_builder_has(
    flag: str, heading: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("sklearn")
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    for words in ((flag,), ("--verbose", flag)):
        assert nn_meter_command(monkeypatch, *words) == 0
        first, *others = capsys.readouterr().out.splitlines()
        assert first == f"(nn-Meter) Supported {heading}"
        assert f"(nn-Meter) {line}" in others


def test_nn_meter_gives_way_to_nn_meter_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs: Any = ModuleType("nn_meter.utils.nn_meter_cli.interface")
    theirs.nn_meter_cli = lambda: print("theirs")
    for name in ("nn_meter", "nn_meter.utils", "nn_meter.utils.nn_meter_cli"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    distribution = importlib.metadata.distribution
    monkeypatch.setattr(nn_meter, "distribution", lambda name: distribution("pytest"))
    assert nn_meter_command(monkeypatch, "--list-predictors") == 0
    assert capsys.readouterr().out == "theirs\n"
    compat.install()
    try:
        assert nn_meter_command(monkeypatch, "--list-predictors") == 0
    finally:
        compat.uninstall()
    assert "(nn-Meter) [Predictor]" in capsys.readouterr().out


def test_command_exists_for_the_extra_alone() -> None:
    """Pip makes it always, which is why it gives way."""
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="nn-meter")
    assert command.module == "nnmeter_nas.cli.nn_meter"
    assert command.extras == ["compat"]
