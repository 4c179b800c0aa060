"""Code written for nn-Meter's builder: its calls, its files, and a predictor that predicts in the end."""

from __future__ import annotations

import errno
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sklearn", reason="the forests are scikit-learn's")
pytest.importorskip("onnx")
pytest.importorskip("ai_edge_litert")

from ir import small_cnn
from nnmeter_nas import LatencyWarning, compat, load_latency_predictor
from nnmeter_nas.cli import nn_meter as command
from nnmeter_nas.compat.builder import forests, kernels, runtimes
from nnmeter_nas.compat.builder.kernels import KERNELS
from nnmeter_nas.compat.builder.models import lone_kernel
from nnmeter_nas.compat.builder.sampling import sampler_of
from nnmeter_nas.errors import MeasurementError, SettingsError, UnknownBackendError, WorkspaceError

#: A user's backend, as nn-Meter's documentation has it: a profiler that runs, a parser that reads.
BACKEND = '''
import logging
import re
import time
from pathlib import Path

from nn_meter.builder.backend_meta.utils import Latency, ProfiledResults
from nn_meter.builder.backends import BaseBackend, BaseParser, BaseProfiler


class MyParser(BaseParser):
    def parse(self, content):
        self.ms = float(re.search(r"took ([0-9.]+)", content)[1])
        return self

    @property
    def results(self):
        return ProfiledResults({"latency": Latency(self.ms, 0.1)})


class MyProfiler(BaseProfiler):
    def __init__(self, slow):
        self.slow = slow

    def profile(self, graph_path, **options):
        name = Path(graph_path).stem
        if self.slow and re.search(self.slow, name):
            time.sleep(30)
        # A block takes as long as its first operator, so that all pairs fuse.
        return f"it took {1.0 if name.endswith('block') else 1.0 + len(name) / 1000}"


class MyBackend(BaseBackend):
    parser_class = MyParser
    profiler_class = MyProfiler

    def update_configs(self):
        super().update_configs()
        self.profiler_kwargs.update({"slow": self.configs["SLOW"]})

    def test_connection(self):
        logging.keyinfo("hello backend !")
'''


#: Settings of a kernel type, of which few are measured.
FEW = {"INIT_SAMPLE_NUM": 4, "FINEGRAINED_SAMPLE_NUM": 1, "ITERATION": 2, "ERROR_THRESHOLD": 0.1}


@pytest.fixture(autouse=True)
def nn_meter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """nn-Meter's modules from this package, and a user's folder of its own."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(command, "_has_nn_meter", lambda: False)
    monkeypatch.setattr(forests, "_TREES", 20)  # which are enough here, and quick
    compat.install(children=False)
    yield
    compat.uninstall()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command ``nn-meter``; return its exit code."""

    def run_command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["nn-meter", *map(str, words)])
        return command.main()

    return run_command


def change(workspace: Path, section: str, **settings: Any) -> None:
    """Change settings of a workspace, as a user edits its files."""
    path = workspace / "configs" / f"{section}_config.yaml"
    found = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**(found or {}), **settings}))


@pytest.fixture
def workspace(run: Callable[..., int], tmp_path: Path) -> Path:
    """A workspace on this machine, with two fusion tests and MON."""
    assert run("create", "--tflite-workspace", tmp_path / "ws") == 0
    change(
        tmp_path / "ws", "ruletest",
        BASIC_TESTCASES=["conv_relu", "dwconv_relu", "add_add"], HW=14, CIN=16, COUT=16,
    )  # fmt: skip
    return tmp_path / "ws"


@pytest.fixture
def my_backend(run: Callable[..., int], tmp_path: Path, workspace: Path) -> str:
    """A registered backend of the user's; its name."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "backend.py").write_text(BACKEND)
    settings = tmp_path / "default.yaml"
    settings.write_text("SLOW:\n")
    meta = {
        "builtin_name": "mine", "package_location": str(package), "class_module": "backend",
        "class_name": "MyBackend", "defaultConfigFile": str(settings),
    }  # fmt: skip
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump(meta))
    assert run("register", "--backend", tmp_path / "meta.yaml") == 0
    change(workspace, "backend", SLOW=None)
    return "mine"


# The command.


def test_workspace_has_nn_meters_settings(workspace: Path) -> None:
    rules = yaml.safe_load((workspace / "configs" / "ruletest_config.yaml").read_text())
    assert rules["EMP_ALPHA"] == 0.5
    assert rules["LAYERS_1D"] == ["fc"]
    kernels = yaml.safe_load((workspace / "configs" / "predictorbuild_config.yaml").read_text())["KERNELS"]
    assert len(kernels) == 16
    assert set(kernels["conv-bn-relu"]) == {
        "INIT_SAMPLE_NUM", "FINEGRAINED_SAMPLE_NUM", "ITERATION", "ERROR_THRESHOLD",
    }  # fmt: skip
    phone = yaml.safe_load((workspace / "configs" / "backend_config.yaml").read_text())
    assert set(phone) == {"REMOTE_MODEL_DIR", "BENCHMARK_MODEL_PATH", "DEVICE_SERIAL", "KERNEL_PATH"}


def test_backend_of_the_user_is_listed_connected_and_forgotten(
    run: Callable[..., int], my_backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--list-backends") == 0
    assert "(nn-Meter) [Backend] * mine\n" in capsys.readouterr().out
    own = tmp_path / "own"
    assert run("create", "--customized-workspace", own, "--backend", "mine") == 0
    assert (own / "configs" / "backend_config.yaml").read_text() == "SLOW:\n"
    assert run("connect", "--backend", "mine", "--workspace", own) == 0
    assert run("unregister", "--backend", "mine") == 0
    assert run("unregister", "--backend", "mine") == 0, "as in nn-Meter"
    assert run("create", "--customized-workspace", own, "--backend", "mine") == 2
    capsys.readouterr()
    assert run("--list-backends") == 0
    assert "* mine" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change_of", "message"),
    [({"class_name": "Absent"}, "Absent cannot be imported"), ({"class_module": ""}, "lacks class_module"),
     ({"defaultConfigFile": "/absent.yaml"}, "/absent.yaml does not exist")],
)  # fmt: skip
def test_meta_file_that_is_wrong_is_named(
    run: Callable[..., int], my_backend: str, tmp_path: Path, change_of: dict[str, str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    meta = yaml.safe_load((tmp_path / "meta.yaml").read_text())
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**meta, "builtin_name": "bad", **change_of}))
    assert run("register", "--backend", tmp_path / "bad.yaml") == 2
    assert message in capsys.readouterr().err


WRONG_SETTINGS = [
    ("ruletest", "HW", {"HWW": 28}, "has no setting 'HWW'; did you mean 'HW'"),
    ("ruletest", "IMPLEMENT", {"IMPLEMNT": "torch"}, "did you mean 'IMPLEMENT'"),
    ("ruletest", "BASIC_TESTCASES", {"BASIC_TESTCASE": []}, "did you mean 'BASIC_TESTCASES'"),
    ("ruletest", "LAYERS_1D", {"LAYER_1D": ["fc"]}, "did you mean 'LAYERS_1D'"),
    ("ruletest", "EMP_ALPHA", {"EPM_ALPHA": 0.5}, "did you mean 'EMP_ALPHA'"),
    ("ruletest", "POOL_STRIDES", {"POOL_STRIDE": 2}, "did you mean 'POOL_STRIDES'"),
    ("ruletest", "COUT", {}, "lacks COUT"),
    ("ruletest", "COUT", {"COUT": "many"}, "COUT: many must be a whole number of at least 1"),
    ("ruletest", "LAYERS_1D", {"LAYERS_1D": "fc"}, "LAYERS_1D: fc must be a list"),
    ("ruletest", "EMP_ALPHA", {"EMP_ALPHA": "half"}, "EMP_ALPHA: half must be a number"),
    ("ruletest", "DETAIL", {"DETAIL": "flase"}, "DETAIL: flase must be TRUE or FALSE"),
    ("predbuild", "IMPLEMENT", {"IMPLEMENT": "keras"}, "IMPLEMENT: keras must be one of tensorflow, torch"),
    ("predbuild", "KERNELS", {"KERNEL": {}}, "has no setting 'KERNEL'; did you mean 'KERNELS'"),
    ("predbuild", "KERNELS", {"KERNELS": ["fc"]}, "KERNELS: ['fc'] must be a mapping"),
    ("predbuild", "KERNELS", {"KERNELS": {"fc": 10}}, "KERNELS: fc must be a mapping of INIT_SAMPLE_NUM"),
]


@pytest.mark.parametrize(("section", "without", "settings", "message"), WRONG_SETTINGS)
def test_settings_that_are_wrong_are_named_when_they_are_read(
    workspace: Path, section: str, without: str, settings: dict[str, Any], message: str
) -> None:
    from nn_meter.builder import builder_config

    name = "ruletest" if section == "ruletest" else "predictorbuild"
    path = workspace / "configs" / f"{name}_config.yaml"
    given = yaml.safe_load(path.read_text())
    del given[without]
    path.write_text(yaml.safe_dump(given | settings))
    with pytest.raises(WorkspaceError, match=re.escape(str(path))) as raised:
        builder_config.init(str(workspace))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("without", "settings", "message"),
    [("INIT_SAMPLE_NUM", {"INIT_SAMPL_NUM": 10}, "KERNELS: fc has no setting 'INIT_SAMPL_NUM'; did you mean"),
     ("INIT_SAMPLE_NUM", {"INIT_SAMPLE_NUM": "ten"}, "KERNELS: fc: INIT_SAMPLE_NUM: ten must be a whole"),
     ("ERROR_THRESHOLD", {"ERROR_THRESHOLD": -1}, "ERROR_THRESHOLD: -1 must be a number of at least 0"),
     ("ITERATION", {}, "KERNELS: fc lacks ITERATION")],
)  # fmt: skip
def test_settings_of_a_kernel_type_that_are_wrong_are_named(
    workspace: Path, without: str, settings: dict[str, Any], message: str
) -> None:
    from nn_meter.builder import builder_config

    of_type = {key: value for key, value in FEW.items() if key != without}
    change(workspace, "predictorbuild", KERNELS={"conv-bn-relu": FEW, "fc": of_type | settings})
    with pytest.raises(WorkspaceError, match=re.escape(message)):
        builder_config.init(str(workspace))


def test_keys_of_the_users_own_and_of_nn_meters_documentation_stay(
    workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from nn_meter.builder import builder_config
    from nn_meter.builder.backends import connect_backend

    path = workspace / "configs" / "ruletest_config.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["EPS_ALPHA"] = settings.pop("EMP_ALPHA")
    path.write_text(yaml.safe_dump({**settings, "MY_WIDTH": 3, "HW2": 7}))
    # As nn-Meter's own file for OpenVINO has them.
    (workspace / "configs" / "backend_config.yaml").write_text("OPTIMIZER_PATH': /x\nDEVICE_SERIAL': /y\n")
    builder_config.init(str(workspace))
    connect_backend("tflite_cpu")
    assert builder_config.get("HW2", "ruletest") == 7
    assert "HW2 has no effect but on classes of yours; did you mean 'HW'" in caplog.text
    assert "MY_WIDTH" not in caplog.text


def test_a_phone_that_is_misspelt_is_not_this_machine(workspace: Path) -> None:
    from nn_meter.builder import builder_config
    from nn_meter.builder.backends import connect_backend

    path = workspace / "configs" / "backend_config.yaml"
    path.write_text("DEVICE_SERAIL: abc\n")
    builder_config.init(str(workspace))
    with pytest.raises(WorkspaceError, match=r"backend_config.yaml has .* did you mean 'DEVICE_SERIAL'"):
        connect_backend("tflite_cpu")
    connect_backend("debug_backend")


@pytest.mark.parametrize(
    ("kernels", "message"),
    [(None, "KERNELS names no kernel types"), ({}, "KERNELS names no kernel types"),
     (["conv-bn-rellu"], "KERNELS: no kernel type 'conv-bn-rellu'; did you mean 'conv-bn-relu'")],
)  # fmt: skip
def test_all_kernel_types_are_checked_before_the_first_is_measured(
    workspace: Path, kernels: Any, message: str
) -> None:
    from nn_meter.builder import build_latency_predictor, builder_config

    given = dict.fromkeys(["fc", *kernels], FEW) if kernels else kernels
    change(workspace, "predictorbuild", KERNELS=given)
    builder_config.init(str(workspace))
    with pytest.raises(WorkspaceError, match=message):
        build_latency_predictor(backend="debug_backend")
    assert not (workspace / "predictor_build").exists()


def test_a_full_disk_ends_the_writing_of_models(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nn_meter.builder import build_predictor_for_kernel, builder_config

    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    builder_config.init(str(workspace))
    monkeypatch.setattr(kernels, "write_model", full)
    with pytest.raises(OSError, match="No space left"):
        build_predictor_for_kernel("fc", "debug_backend", 4)


def test_a_misspelt_backend_is_told_before_models_are_written(workspace: Path) -> None:
    from nn_meter.builder import build_predictor_for_kernel, builder_config

    builder_config.init(str(workspace))
    with pytest.raises(UnknownBackendError, match="did you mean 'litert'"):
        build_predictor_for_kernel("fc", "litrt", 4)
    assert not (workspace / "predictor_build").exists()


def own_operator(folder: Path, source: str, implement: str, name: str = "op1") -> Path:
    """Write a class of the user's; return the file that registers it as an operator."""
    (folder / "ops.py").write_text(source)
    meta = {
        "builtin_name": name, "implement": implement, "package_location": str(folder),
        "class_module": "ops", "class_name": "MyOp",
    }  # fmt: skip
    (folder / "op.yaml").write_text(yaml.safe_dump(meta))
    return folder / "op.yaml"


def test_class_that_needs_tensorflow_says_what_to_do(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import tensorflow.keras as keras\nclass MyOp: ...\n"
    assert run("register", "--operator", own_operator(tmp_path, source, "tensorflow")) == 2
    assert "without TensorFlow" in capsys.readouterr().err


def test_operator_for_an_unknown_implementation_is_refused(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "class MyOp: ...\n"
    assert run("register", "--operator", own_operator(tmp_path, source, "pytorch")) == 2
    assert "implement: pytorch is neither of tensorflow, torch" in capsys.readouterr().err
    assert run("register", "--operator", own_operator(tmp_path, source, "torch", name="relu")) == 0
    assert "your operator relu takes the place of the one that comes" in capsys.readouterr().err


def test_customized_workspace_needs_its_backend(
    run: Callable[..., int], my_backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create", "--customized-workspace", tmp_path / "own") == 2
    assert "needs the backend that it is for: --backend NAME" in capsys.readouterr().err


def test_backend_in_the_place_of_a_built_in_one_is_told(
    run: Callable[..., int], my_backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "takes the place" not in capsys.readouterr().err
    meta = yaml.safe_load((tmp_path / "meta.yaml").read_text())
    (tmp_path / "meta.yaml").write_text(yaml.safe_dump({**meta, "builtin_name": "tflite_cpu"}))
    assert run("register", "--backend", tmp_path / "meta.yaml") == 0
    said = capsys.readouterr()
    assert "Successfully register backend: tflite_cpu" in said.out
    assert "your backend tflite_cpu takes the place of the one that comes with this package" in said.err


def test_names_of_nn_meters_classes_are_there() -> None:
    from nn_meter.builder.backends.tflite import (  # type: ignore[import-not-found]
        TFLiteCPUBackend,
        TFLiteGPUBackend,
    )
    from nn_meter.builder.config_manager import (  # type: ignore[import-not-found]
        ConfigData,
        builder_config,
    )

    assert (TFLiteCPUBackend.delegate, TFLiteGPUBackend.delegate) == ("default", "gpu")
    assert isinstance(builder_config, ConfigData)


# The fusion test, as nn-Meter's documentation has it.


def detect(workspace: Path, backend: str) -> dict[str, Any]:
    """The end-to-end demo of ``docs/builder/test_fusion_rules.md``."""
    from nn_meter.builder import builder_config, profile_models  # type: ignore[import-not-found]

    builder_config.init(str(workspace))
    from nn_meter.builder.backend_meta.fusion_rule_tester import (  # type: ignore[import-not-found]
        detect_fusion_rule,
        generate_testcases,
    )
    from nn_meter.builder.backends import connect_backend  # type: ignore[import-not-found]

    origin_testcases = generate_testcases()
    backend = connect_backend(backend_name=backend)
    profiled_results = profile_models(backend, origin_testcases, mode="ruletest")
    found: dict[str, Any] = detect_fusion_rule(profiled_results)
    return found


def test_rules_are_those_that_the_latencies_tell(workspace: Path, my_backend: str) -> None:
    change(workspace, "ruletest", DETAIL=True)
    found = detect(workspace, my_backend)
    assert {name: rule["obey"] for name, rule in found.items() if name != "MON"} == {
        "BF_conv_relu": True, "BF_dwconv_relu": True, "BF_add_add": True,
    }  # fmt: skip
    assert found["MON"]["obey"] == 1  # the block takes little, as the case of two kernels does
    assert set(found["BF_add_add"]["latency"]) == {"add_1", "add_2", "block", "ops"}
    results = workspace / "fusion_rule_test" / "results"
    assert json.loads((results / "detected_fusion_rule.json").read_text()) == found
    profiled = json.loads((results / "profiled_results.json").read_text())
    assert re.fullmatch(r"1\.0\d+ \+- 0\.1", profiled["BF_conv_relu"]["conv"]["latency"])
    model = Path(json.loads((results / "origin_testcases.json").read_text())["BF_conv_relu"]["conv"]["model"])
    assert model.read_bytes()[4:8] == b"TFL3"


def test_what_is_logged_has_nn_meters_words(
    workspace: Path, my_backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from nn_meter.builder import builder_config, convert_models, profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases
    from nn_meter.builder.backends import connect_backend

    builder_config.init(str(workspace))
    backend, models = connect_backend(my_backend), generate_testcases()
    count, results = sum(map(len, models.values())), workspace / "fusion_rule_test" / "results"
    capsys.readouterr()
    convert_models(backend, models, mode="ruletest")
    profile_models(backend, models, mode="ruletest", have_converted=True, log_frequency=count)
    profiled = results / "profiled_results.json"
    assert capsys.readouterr().out.splitlines() == [
        f"(nn-Meter) Complete converting all {count} models. Save the results to "
        f"{results / 'converted_results.json'} Failed information are saved in "
        f"{results / 'convert_error.log'} (if any)",
        "(nn-Meter) Profiling ...",
        f"(nn-Meter) {count} models complete. Still profiling... "
        f"Save the intermediate results to {profiled} ",
        f"(nn-Meter) All {count} models profiling complete. Save all success profiled results to {profiled} "
        f"Failed information are saved in {results / 'profile_error.log'} (if any)",
    ]


def test_results_may_be_given_by_their_files(workspace: Path, my_backend: str) -> None:
    found = detect(workspace, my_backend)
    from nn_meter.builder.backend_meta.fusion_rule_tester import detect_fusion_rule

    results = workspace / "fusion_rule_test" / "results"
    assert detect_fusion_rule(str(results / "profiled_results.json")) == found


def test_model_that_hangs_is_named_and_the_others_go_on(workspace: Path, my_backend: str) -> None:
    change(workspace, "backend", SLOW="conv_relu_conv$")
    from nn_meter.builder import builder_config, profile_models
    from nn_meter.builder.backend_meta.fusion_rule_tester import detect_fusion_rule, generate_testcases
    from nn_meter.builder.backends import connect_backend

    builder_config.init(str(workspace))
    found = profile_models(connect_backend(my_backend), generate_testcases(), time_threshold=1)
    log = (workspace / "fusion_rule_test" / "results" / "profile_error.log").read_text()
    assert re.search(r"BF_conv_relu\.conv: .*within 1 s", log)
    assert set(detect_fusion_rule(found)) == {"BF_dwconv_relu", "BF_add_add", "MON"}
    change(workspace, "backend", SLOW=None)
    builder_config.init(str(workspace))
    again = profile_models(connect_backend(my_backend), generate_testcases(), broken_point_mode=True)
    assert "BF_conv_relu" in detect_fusion_rule(again)


def test_wrong_use_says_what_is_right(workspace: Path) -> None:
    from nn_meter.builder import builder_config
    from nn_meter.builder.backend_meta.fusion_rule_tester import generate_testcases
    from nn_meter.builder.backends import connect_backend

    with pytest.raises(WorkspaceError, match="nn-meter create"):
        builder_config.init(str(workspace / "absent"))
    change(workspace, "ruletest", BASIC_TESTCASES=["conv_rellu"])
    builder_config.init(str(workspace))
    with pytest.raises(SettingsError, match="did you mean 'relu'"):
        generate_testcases()
    with pytest.raises(UnknownBackendError, match="Neural Compute Stick"):
        connect_backend("openvino_vpu")


# Kernels.


@pytest.mark.parametrize("kernel_type", ["conv-bn-relu", "dwconv-relu", "maxpool", "fc", "concat", "se"])
def test_sizes_are_drawn_apart_and_around_others(kernel_type: str) -> None:
    sampler = sampler_of(kernel_type)
    drawn = sampler.prior_config_sampling(30)
    assert len({json.dumps(config, sort_keys=True) for config in drawn}) == len(drawn) == 30
    near = sampler.finegrained_config_sampling(configs=drawn[:1], sample_num=4)
    assert 0 < len(near) <= 4
    for config in near:
        for name, size in config.items():
            if not re.match("CIN|COUT", name):
                assert size == drawn[0][name]
            else:
                assert 0.5 * drawn[0][name] - 1 <= size <= 1.2 * drawn[0][name] + 1


@pytest.mark.parametrize("kernel_type", KERNELS)
def test_kernels_are_drawn_around_those_that_were_missed(kernel_type: str) -> None:
    sampler, parser = sampler_of(kernel_type), forests.get_feature_parser(kernel_type)
    [drawn] = sampler.prior_config_sampling(1)
    missed = parser.get_config_by_feature(parser.get_feature_by_config(drawn))
    assert missed == drawn
    near = sampler.finegrained_config_sampling([missed], sample_num=4)
    assert near
    for config in near:
        assert config.keys() == drawn.keys()
        if kernel_type.endswith("pool") or kernel_type.startswith("dwconv"):
            assert config.get("COUT", config["CIN"]) == config["CIN"]
        operators = [data for _, data in lone_kernel(kernel_type, config).nodes(data=True)]
        strides = {data["attrs"]["stride"] for data in operators if "stride" in data["attrs"]}
        if "STRIDES" in config:
            assert strides == {(drawn["STRIDES"],) * 2}


def test_a_pool_may_have_its_stride_by_one_name() -> None:
    pool = {"HW": 14, "CIN": 8, "KERNEL_SIZE": 3}
    strides = [
        next(data["attrs"]["stride"] for _, data in lone_kernel("maxpool", pool | stride).nodes(data=True)
             if data["op"] == "maxpool")
        for stride in ({"STRIDES": 2}, {"POOL_STRIDES": 2}, {"STRIDES": 1, "POOL_STRIDES": 2})
    ]  # fmt: skip
    assert strides == [(2, 2)] * 3


@pytest.mark.parametrize("kernel_type", ["maxpool", "avgpool", "concat", "se", "dwconv-bn-relu"])
def test_iterations_measure_more_kernels(workspace: Path, kernel_type: str) -> None:
    from nn_meter.builder import build_predictor_for_kernel, builder_config

    builder_config.init(str(workspace))
    _, kernels = build_predictor_for_kernel(kernel_type, "debug_backend", 6, 2, 2, 0.0)
    assert len(kernels[kernel_type]) > 6
    assert not (workspace / "predictor_build" / "results" / "generate_error.log").exists()


def test_adaptive_building_goes_on_from_what_was_measured(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nn_meter.builder import (
        build_adaptive_predictor_by_data,
        build_initial_predictor_by_data,
        builder_config,
    )

    builder_config.init(str(workspace))
    _, data = build_initial_predictor_by_data("bnrelu", "debug_backend", init_sample_num=10, mark="test")
    before = len(data["bnrelu"])
    predictor, more = build_adaptive_predictor_by_data(
        "bnrelu", data, "debug_backend", finegrained_sample_num=3
    )
    assert len(more["bnrelu"]) > before  # random latencies are predicted badly
    assert predictor.predict([[14, 64]])[0] > 0
    said = capsys.readouterr().out
    for step in ("Iteration 0", "finegrained"):
        assert re.search(rf"\(nn-Meter\) {step}: acc10 \S+, error_configs number: \d+\n", said)
    results = workspace / "predictor_build" / "results"
    assert {path.name for path in (results / "predictors").iterdir()} == {
        "bnrelu_prior_test.pkl", "bnrelu_finegrained.pkl",
    }  # fmt: skip
    pair = ([str(results / "bnrelu_prior_test.json")], [str(results / "profiled_bnrelu.json")])
    from nn_meter.builder.kernel_predictor_builder import (  # type: ignore[import-not-found]
        build_predictor_by_data,
    )

    with pytest.raises(MeasurementError, match="0 kernels of type relu"):
        build_predictor_by_data("relu", pair)
    assert build_predictor_by_data("bnrelu", pair, final_predictor=True)[1] is None


CUSTOM = '''
import random
import torch
from nn_meter.builder.backend_meta.fusion_rule_tester import BaseTestCase
from nn_meter.builder.kernel_predictor_builder import BaseConfigSampler, BaseFeatureParser
from nn_meter.builder.nn_modules import BaseBlock, BaseOperator


class MyOp(BaseOperator):
    def get_model(self):
        return torch.nn.Conv2d(self.input_shape[0], self.config["COUT"], 1)


class MyKernel(BaseBlock):
    def __init__(self, config):
        self.config = config
        self.input_tensor_shape = [[config["CIN"], config["HW"], config["HW"]]]

    def get_model(self):
        return torch.nn.Sequential(torch.nn.Conv2d(self.config["CIN"], 8, 3), torch.nn.Tanh())


class MySampler(BaseConfigSampler):
    def prior_config_sampling(self, sample_num):
        return [{"HW": 14, "CIN": random.randint(1, 64)} for _ in range(sample_num)]

    def finegrained_config_sampling(self, sample_num, configs):  # in the order of nn-Meter's documentation
        return [{**config, "CIN": config["CIN"] + i} for config in configs for i in range(sample_num)]


class MyParser(BaseFeatureParser):
    def __init__(self, kernel_type):
        self.kernel_type = kernel_type
        self.needed_config = ["HW", "CIN"]


class MyTestCase(BaseTestCase):
    name = "MyTestCase"
    cases = {"apart": ["conv", "relu"], "joined": ["conv"]}
    true_case = "joined"

    def _model_block(self):
        return torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.ReLU()), [self.input_shape]
'''


@pytest.mark.slow
def test_classes_of_the_user_write_torch_modules(
    run: Callable[..., int], workspace: Path, my_backend: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("torch")
    package = tmp_path / "custom"
    package.mkdir()
    (package / "backend.py").write_text(CUSTOM)  # the name of a module of another package
    of_kernel = {
        "sampler_module": "backend", "sampler_name": "MySampler", "parser_module": "backend",
        "parser_name": "MyParser",
    }  # fmt: skip
    for flag, name, class_name in (
        ("operator", "myop", "MyOp"), ("testcase", "MyTestCase", "MyTestCase"),
        ("kernel", "mykernel", "MyKernel"),
    ):  # fmt: skip
        meta = {
            "builtin_name": name, "implement": "torch", "package_location": str(package),
            "class_module": "backend", "class_name": class_name, **(of_kernel if flag == "kernel" else {}),
        }  # fmt: skip
        (tmp_path / f"{flag}.yaml").write_text(yaml.safe_dump(meta))
        assert run("register", f"--{flag}", tmp_path / f"{flag}.yaml") == 0
        assert run(f"--list-{flag}s") == 0
        assert f"* {name}" in capsys.readouterr().out
    change(
        workspace, "ruletest", IMPLEMENT="torch", BASIC_TESTCASES=["myop_relu", "relu_myop"],
        OTHER_TESTCASES=["MyTestCase"],
    )  # fmt: skip
    change(workspace, "predictorbuild", IMPLEMENT="torch")
    found = detect(workspace, my_backend)
    assert {name: rule["obey"] for name, rule in found.items()} == {
        "BF_myop_relu": True, "BF_relu_myop": True, "MyTestCase": True,
    }  # fmt: skip
    from nn_meter.builder import build_predictor_for_kernel

    predictor, data = build_predictor_for_kernel(
        "mykernel", "debug_backend", init_sample_num=4, finegrained_sample_num=1, iteration=2
    )
    assert len(data["mykernel"]) > 4
    assert predictor.n_features_in_ == 2
    assert run("unregister", "--operator", "myop", "torch") == 0
    assert run("--list-operators") == 0
    assert "* myop" not in capsys.readouterr().out


# All of it, on this machine.


@pytest.mark.slow
def test_from_an_empty_folder_to_a_prediction(
    run: Callable[..., int], workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(runtimes, "_VISITS", 2)
    change(workspace, "ruletest", BASIC_TESTCASES=["conv_relu"], OTHER_TESTCASES=None)
    assert set(detect(workspace, "tflite_cpu")) == {"BF_conv_relu"}
    change(workspace, "predictorbuild", KERNELS=dict.fromkeys(("conv-bn-relu", "fc"), FEW))
    from nn_meter.builder import build_latency_predictor, builder_config

    builder_config.init(str(workspace))
    build_latency_predictor(backend="tflite_cpu")
    # The folder that nn-Meter's docs/builder/customize_predictor.md asks for.
    package = tmp_path / "customized_predictor"
    package.mkdir()
    results = workspace / "fusion_rule_test" / "results"
    (package / "fusion_rules.json").write_bytes((results / "detected_fusion_rule.json").read_bytes())
    predictors = workspace / "predictor_build" / "results" / "predictors"
    for path in predictors.glob("*_finegrained1.pkl"):
        (package / path.name.replace("_finegrained1", "")).write_bytes(path.read_bytes())
    meta = {
        "name": "my_predictor", "version": 1.0, "category": "cpu", "package_location": str(package),
        "kernel_predictors": ["conv-bn-relu", "fc"],
    }  # fmt: skip
    (tmp_path / "predictor.yaml").write_text(yaml.safe_dump(meta))
    rules = (package / "fusion_rules.json").rename(package / "detected_fusion_rule.json")
    assert run("register", "--predictor", tmp_path / "predictor.yaml") == 1
    assert "lacks fusion_rules.json; rename detected_fusion_rule.json there" in capsys.readouterr().err
    rules.rename(package / "fusion_rules.json")
    assert run("register", "--predictor", tmp_path / "predictor.yaml") == 0
    assert run("--list-predictors") == 0
    assert "[Predictor] my_predictor: version=1.0" in capsys.readouterr().out
    with pytest.warns(LatencyWarning, match="no prediction|left out|estimated|leaves out|without"):
        assert 0 < load_latency_predictor("my_predictor").predict(small_cnn()) < math.inf
