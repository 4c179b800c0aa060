"""Scripts for nn-Meter's builder whose workspace names a phone, here one that exists only here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")

from fake_phone import FakePhone, connected, own_adb
from nnmeter_nas import compat
from nnmeter_nas.compat.builder import runtimes
from nnmeter_nas.compat.builder.workspace import copy_to_workspace
from nnmeter_nas.errors import DeviceLostError, MeasurementError, SettingsError, ToolError


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[FakePhone]:
    """A phone that is attached, with nn-Meter's tool where nn-Meter's settings have it."""
    compat.install(children=False)
    with own_adb(tmp_path), connected(tmp_path / "phone") as found:
        found.tool(found.temporary / "benchmark_model")
        yield found
    compat.uninstall()


@pytest.fixture
def connect(phone: FakePhone, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Connects to a backend of a workspace that names the phone, as ``prepare_backend.md`` has it."""
    from nn_meter.builder import builder_config  # type: ignore[import-not-found]
    from nn_meter.builder.backends import connect_backend  # type: ignore[import-not-found]

    workspace, backends = tmp_path / "workspace", list[Any]()
    copy_to_workspace("tflite", str(workspace))
    changes: dict[str, dict[str, Any]] = {
        "backend": {"DEVICE_SERIAL": phone.serial, "REMOTE_MODEL_DIR": "/data/local/tmp/models/"},
        "ruletest": {"BASIC_TESTCASES": ["conv_relu", "add_add"], "OTHER_TESTCASES": None},
    }
    for section, settings in changes.items():
        path = workspace / "configs" / f"{section}_config.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))
    builder_config.init(str(workspace))

    def connected_to(name: str) -> Any:
        backends.append(connect_backend(backend_name=name))
        return backends[-1]

    yield connected_to
    for backend in backends:
        backend.close()


def runs(phone: FakePhone) -> list[str]:
    """What ran the tool."""
    return [command for command in phone.commands if "--graph" in command]


def test_rules_are_those_of_the_phone(
    phone: FakePhone, connect: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from nn_meter.builder import profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import (  # type: ignore[import-not-found]
        detect_fusion_rule,
        generate_testcases,
    )

    testcases, backend = generate_testcases(), connect("tflite_cpu")
    assert "(nn-Meter) Paper Phone 1, SoC Acme AC100, Android 13\n" in capsys.readouterr().out
    found = detect_fusion_rule(profile_models(backend, testcases, mode="ruletest"))
    # Our files have a relu in the convolution before it, and the phone runs one operator after another.
    assert {name: rule["obey"] for name, rule in found.items()} == {"BF_conv_relu": True, "BF_add_add": False}
    assert set((phone.root / "masks").read_text().split()) == {"70"}, "nn-Meter's cores"
    assert all("--graph=/data/local/tmp/models/nnmeter-nas/BF_" in run for run in runs(phone))
    assert not any("xnnpack" in run for run in runs(phone)), "the tool does what it does unasked"
    assert connect("tflite_gpu") is not backend, "both measure on the phone, one after the other"
    backend.close()
    assert sorted(path.name for path in phone.temporary.rglob("*")) == ["benchmark_model", "models"]


def test_profilers_arguments_reach_the_tool(phone: FakePhone, connect: Callable[[str], Any]) -> None:
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases

    model = generate_testcases()["BF_conv_relu"]["conv"]["model"]
    backend = connect("tflite_cpu")
    backend.test_connection()
    said = backend.profile(model, taskset="f", close_xnnpack=True)["latency"]
    assert said.avg > 0
    assert (phone.root / "masks").read_text().split() == ["f"] * 3
    assert all("--use_xnnpack=false" in run for run in runs(phone))
    phone.commands.clear()
    with pytest.raises(MeasurementError, match="this tool does not know --use_gpu=true"):
        connect("tflite_gpu").profile(model, taskset="")
    assert len(runs(phone)) == 1


def test_what_was_measured_is_kept_when_the_phone_is_lost(
    phone: FakePhone, connect: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nn_meter.builder import profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases

    monkeypatch.setattr(runtimes, "_PATIENCE_S", 0.0)
    testcases, backend = generate_testcases(), connect("tflite_cpu")
    profile, measured = backend.profile, list[str]()

    def unplugged_after_two(model: str, *arguments: Any, **options: Any) -> Any:
        if len(measured) == 2:
            phone.unplug()
        measured.append(model)
        return profile(model, *arguments, **options)

    monkeypatch.setattr(backend, "profile", unplugged_after_two)
    with pytest.raises(DeviceLostError, match=r"is (not there|offline)"):
        profile_models(backend, testcases)
    results = tmp_path / "workspace" / "fusion_rule_test" / "results"
    saved = json.loads((results / "profiled_results.json").read_text())
    assert sum(len(models) for models in saved.values()) == 2
    assert not (results / "profile_error.log").exists()
    phone.plug()
    monkeypatch.setattr(runtimes, "_PATIENCE_S", 60.0)
    found = profile_models(backend, generate_testcases(), broken_point_mode=True)
    assert all("latency" in model for models in found.values() for model in models.values())
    assert len(measured) == 3 + 4, "nothing is measured twice"


def test_a_full_phone_ends_it_and_keeps_what_was_measured(
    phone: FakePhone, connect: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nn_meter.builder import profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases

    testcases, backend = generate_testcases(), connect("tflite_cpu")
    profile, measured = backend.profile, list[str]()

    def full_after_two(model: str, *arguments: Any, **options: Any) -> Any:
        phone.is_full = len(measured) == 2
        measured.append(model)
        return profile(model, *arguments, **options)

    monkeypatch.setattr(backend, "profile", full_after_two)
    with pytest.raises(OSError, match=f"the storage of phone {phone.serial} is full"):
        profile_models(backend, testcases)
    assert len(measured) == 3
    results = tmp_path / "workspace" / "fusion_rule_test" / "results"
    saved = json.loads((results / "profiled_results.json").read_text())
    assert sum(len(models) for models in saved.values()) == 2
    assert not (results / "profile_error.log").exists()


def test_a_tool_without_the_delegate_ends_it(phone: FakePhone, connect: Callable[[str], Any]) -> None:
    from nn_meter.builder import profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases

    testcases, backend = generate_testcases(), connect("tflite_gpu")
    with pytest.raises(ToolError, match="this tool does not know --use_gpu=true"):
        profile_models(backend, testcases)
    assert len(runs(phone)) == 1


def test_a_mask_that_is_none_ends_it(phone: FakePhone, connect: Callable[[str], Any]) -> None:
    from nn_meter.builder import profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases

    with pytest.raises(SettingsError, match="taskset='big' must be a mask"):
        profile_models(connect("tflite_cpu"), generate_testcases(), taskset="big")


def test_a_phone_that_is_not_there_is_told_at_once(connect: Callable[[str], Any]) -> None:
    from nn_meter.builder import builder_config

    builder_config.set("DEVICE_SERIAL", "ABSENT", "backend")
    with pytest.raises(DeviceLostError, match="phone ABSENT is not there"):
        connect("tflite_cpu")


def test_settings_of_a_phone_are_told_by_their_names(connect: Callable[[str], Any], phone: FakePhone) -> None:
    from nn_meter.builder import builder_config

    builder_config.set("REMOTE_MODEL_DIR", "relative/dir", "backend")
    with pytest.raises(SettingsError, match="REMOTE_MODEL_DIR: 'relative/dir' is no absolute path"):
        connect("tflite_cpu")
    builder_config.set("REMOTE_MODEL_DIR", "/data/local/tmp/models", "backend")
    builder_config.set("BENCHMARK_MODEL_PATH", "/data/local/tmp/absent", "backend")
    with pytest.raises(MeasurementError, match="name the file in the setting BENCHMARK_MODEL_PATH"):
        connect("tflite_cpu").test_connection()


def test_of_two_phones_the_setting_names_one(
    connect: Callable[[str], Any], phone: FakePhone, tmp_path: Path
) -> None:
    from nn_meter.builder import builder_config

    builder_config.set("DEVICE_SERIAL", None, "backend")
    with connected(tmp_path / "other"), pytest.raises(DeviceLostError, match="by DEVICE_SERIAL: SERIAL"):
        connect("tflite_gpu")
