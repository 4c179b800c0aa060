"""A build on a phone that exists only here: from the command to the pack, whatever goes wrong on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="fitting a predictor needs torch")
pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")
pytest.importorskip("onnx")
pytest.importorskip("scipy")

from fake_phone import FakePhone, connected, own_adb
from nnmeter_nas.builder.build import build
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.builder.plan import Plan
from nnmeter_nas.builder.workspace import MEASURED, RULES, read_device
from nnmeter_nas.cli import main
from nnmeter_nas.errors import WorkspaceError
from nnmeter_nas.packs.registry import find_pack
from nnmeter_nas.readers.onnx.writer import to_onnx

#: What ``--networks 8`` asks for.
PLAN = Plan(networks=8, round_size=8)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePhone]:
    """A phone that is attached, and a home of its own, where built packs go."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("nnmeter_nas.builder.attached._PAUSE_S", 0.05)
    for steps in ("_STEPS", "_QUICK_STEPS"):  # of the fit, which does not matter here
        monkeypatch.setattr(f"nnmeter_nas.builder.fitting.{steps}", 10)
    with own_adb(tmp_path), connected(tmp_path / "phone") as found:
        found.tool(found.temporary / "benchmark_model")
        yield found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_phone_is_built_although_its_cable_comes_loose(
    phone: FakePhone, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    phone.fault("network0002=killed network0004=zero network0006=garbage:1")
    folder, told, said = tmp_path / "work", list[str](), list[str]()

    def tell(text: str) -> None:
        if text.startswith("visit 1: 4 of 8"):
            phone.unplug()
            phone.warm(50.0, 1)
        if text.startswith("waiting: phone") and "waiting" not in told[-1]:
            phone.plug()
        told.append(text)

    options = {"serial": phone.serial, "taskset": "f0"}
    build("paper", "tflite-adb", folder, PLAN, lambda found: None, tell, said.append, options)
    assert any(text.startswith("waiting: phone") for text in told)
    visits = [json.loads(line) for line in (folder / MEASURED).read_text().splitlines()]
    faults = {line["id"]: line["fault"] for line in visits if "fault" in line}
    assert faults["network0002"].startswith("TFLite's tool was killed by signal 9")
    assert faults["network0004"] == "it measured 0.0 ms"
    assert faults["network0006"].startswith("TFLite's tool told no latency")
    assert set(faults) == {"network0002", "network0004", "network0006"}, "the loose cable is no fault"
    measured, profiled = (
        Counter(line["id"] for line in visits if line.get(field)) for field in ("ms", "kernels")
    )
    assert profiled == {name: min(times, 2) for name, times in measured.items()}, "kernels are asked twice"
    assert said[0] == "Paper Phone 1, SoC Acme AC100, Android 13"
    assert "warning: its battery rose from 31.2 to 50.0 °C" in said
    card = find_pack("paper").card
    assert (card["hardware"], card["category"]) == ("Paper Phone 1, Acme AC100", "cpu")
    assert card["runtime"].startswith("tflite-adb xnnpack, 1 thread, tool ")
    assert read_device(folder)["settings"] == {"phone": "PAPER1", "taskset": "f0"}
    assert [path.name for path in phone.temporary.iterdir()] == ["benchmark_model"]

    # The command goes on from there, and measures models of one's own.
    Path("mine.onnx").write_bytes(to_onnx(random_network(5001)))
    command = [
        "build", "paper", "--backend", "tflite-adb", "--workspace", str(folder), "--networks", "8",
        "--serial", phone.serial, "--taskset", "f0", "--verify", "mine.onnx",
    ]  # fmt: skip
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "mine.onnx" in captured.out
    assert captured.err.count("nnmeter-nas: Paper Phone 1, SoC Acme AC100, Android 13\n") == 1
    assert (folder / MEASURED).read_text().count("\n") == len(visits), "nothing is measured twice"
    # But not on other cores, nor on another phone of the same kind.
    with pytest.raises(WorkspaceError, match="another taskset: 'f0', not '0f'"):
        build("paper", "tflite-adb", folder, PLAN, print, tell, print, {**options, "taskset": "0f"})
    with connected(tmp_path / "other", **{"ro.serialno": "PAPER2"}) as other:
        other.tool(other.temporary / "benchmark_model")
        (folder / RULES).unlink()
        options["serial"] = other.serial
        with pytest.raises(WorkspaceError, match="another phone: 'PAPER1', not 'PAPER2'"):
            build("paper", "tflite-adb", folder, PLAN, print, tell, print, options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "litert", "--serial", "1"], "backend 'litert' has no option 'serial'; it has none"),
        (["--backend", "tflite-adb", "--threads", "none"], "--threads 'none' must be a whole number"),
        (["--backend", "tflite-adb", "--benchmark-model", "no"], "--benchmark-model 'no' is no file here"),
    ],
)
def test_wrong_options_of_a_backend_are_told_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["build", "mine", "--workspace", str(tmp_path / "work"), *arguments]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
