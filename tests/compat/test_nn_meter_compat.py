"""Code written against nn-Meter runs on this package after one line, with nn-Meter's names and arguments."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from download_server import Server, authority, server  # noqa: F401  # the latter two are fixtures
from forests import write_predictor
from ir import IrBuilder, small_cnn
from nnmeter_nas import (
    LatencyWarning,
    list_latency_predictors,
    load_latency_predictor,
)
from nnmeter_nas import (
    compat as nn_meter_compat,
)
from nnmeter_nas.cli import main
from nnmeter_nas.compat import interface as nn_meter_interface
from nnmeter_nas.compat.archives import unpack
from nnmeter_nas.compat.bench import bench_folder
from nnmeter_nas.errors import (
    DatasetError,
    MissingPackageError,
    PackError,
    ReaderError,
    UnknownDeviceError,
)
from nnmeter_nas.files import sha256
from nnmeter_nas.packs import import_predictor
from nnmeter_nas.packs.warmth import Warmth
from torchvision_stand_in import write_torchvision

CPU = "cortexA76cpu_tflite21"
ONE_LINE = "import nnmeter_nas.compat as c; c.install()\n"
REQUIRED = inspect.Parameter.empty

#: Arguments and defaults in nn-Meter 2.0: predictor/nn_meter_predictor.py, predictor/prediction/utils.py,
#: ir_converter/utils.py, utils/config_manager.py, utils/utils.py and dataset/bench_dataset.py of its wheel.
SIGNATURES: dict[str, dict[str, Any]] = {
    "load_latency_predictor": {"predictor_name": REQUIRED, "predictor_version": None},
    "list_latency_predictors": {},
    "nnMeterPredictor.predict": {
        "self": REQUIRED, "model": REQUIRED, "model_type": REQUIRED,
        "input_shape": (1, 3, 224, 224), "apply_nni": False,
    },
    "latency_metrics": {"y_pred": REQUIRED, "y_true": REQUIRED},
    "model_file_to_graph": {
        "filename": REQUIRED, "model_type": REQUIRED,
        "input_shape": (1, 3, 224, 224), "apply_nni": False,
    },
    "model_to_graph": {
        "model": REQUIRED, "model_type": REQUIRED,
        "input_shape": (1, 3, 224, 224), "apply_nni": False,
    },
    "create_user_configs": {},
    "change_user_data_folder": {"new_folder": REQUIRED},
    "download_from_url": {"urladdr": REQUIRED, "ppath": REQUIRED},
    "bench_dataset": {
        "url": "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data/datasets.zip",
        "data_folder": None,  # there the folder itself, which is the user's
    },
}


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the user's data, here and in processes started from here."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NNMETER_NAS_HOME", str(folder))
    return folder


@pytest.fixture
def nn_meter() -> Iterator[Any]:
    """The module that scripts import."""
    nn_meter_compat.install()
    yield importlib.import_module("nn_meter")
    nn_meter_compat.uninstall()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a script in a process of its own and gives the lines that it prints."""

    def run_script(script: str, *arguments: str, launcher: tuple[str, ...] = ()) -> list[str]:
        file = tmp_path / "script.py"
        file.write_text(script)
        command = [sys.executable, *launcher, str(file), *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return run_script


# What nn-Meter offers, by its names.


def test_arguments_and_defaults_are_those_of_nn_meter(nn_meter: Any) -> None:
    found = {}
    for name in SIGNATURES:
        function = nn_meter
        for part in name.split("."):
            function = getattr(function, part)
        found[name] = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    assert found == SIGNATURES
    assert [list(parameters) for parameters in found.values()] == [list(p) for p in SIGNATURES.values()]


def test_names_are_where_nn_meter_has_them(nn_meter: Any) -> None:
    script = """
import nn_meter
from nn_meter import load_latency_predictor, nnMeterPredictor
from nn_meter.dataset import bench_dataset
from nn_meter.ir_converter import model_file_to_graph, model_to_graph
from nn_meter.predictor import latency_metrics, list_latency_predictors
from nn_meter.utils import create_user_configs, get_user_data_folder
assert nn_meter.predictor.load_latency_predictor is load_latency_predictor
"""
    exec(compile(script, "script", "exec"), {})
    assert nn_meter.__version__ == "2.0"


def test_predictors_are_listed_as_nn_meter_lists_them(nn_meter: Any) -> None:
    (listed,) = [p for p in nn_meter.list_latency_predictors() if p["name"] == CPU and p["version"] == 2.1]
    assert listed["category"] == "cpu"
    assert "conv" in listed["kernel_predictors"]


def test_newest_version_is_the_default(nn_meter: Any) -> None:
    assert nn_meter.load_latency_predictor(CPU).version == 2.1
    assert nn_meter.load_latency_predictor(CPU, 2.0).device == CPU


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")  # the forests know few kernels
def test_imported_version_1_is_given_when_asked_for(nn_meter: Any, tmp_path: Path) -> None:
    import_predictor(write_predictor(tmp_path / CPU))
    assert nn_meter.load_latency_predictor(CPU).version == 2.1
    predictor = nn_meter.load_latency_predictor(CPU, predictor_version=1.0)
    assert predictor.version == 1.0
    listed = [p for p in nn_meter.list_latency_predictors() if p["name"] == CPU]
    assert [p["version"] for p in listed] == [2.1, 2.0, 1.0]
    assert "conv-bn-relu" in listed[2]["kernel_predictors"]
    again = pickle.loads(pickle.dumps(predictor))
    assert again.predict(small_cnn(), "nnmeter-ir") == predictor.predict(small_cnn(), "nnmeter-ir") > 0


def test_latency_is_that_of_this_package(nn_meter: Any) -> None:
    predictor = nn_meter.load_latency_predictor(CPU)
    assert isinstance(predictor, nn_meter.nnMeterPredictor)
    assert predictor.predict(small_cnn(), "nnmeter-ir") == load_latency_predictor(CPU).predict(small_cnn())


def test_input_shape_is_heeded_for_torch_alone(nn_meter: Any) -> None:
    torch = pytest.importorskip("torch")
    predictor, module = nn_meter.load_latency_predictor(CPU), torch.nn.Conv2d(3, 16, 3)
    module.input_shape = (1, 3, 32, 32)
    ours = load_latency_predictor(CPU)
    assert predictor.predict(module, "torch") == ours.predict(module, "torch", (1, 3, 224, 224))
    given = predictor.predict(module, "torch", (1, 3, 64, 64), True)
    assert given == ours.predict(module, "torch", (1, 3, 64, 64))
    assert predictor.predict(module, "torch", input_shape=(3, 64, 64)) == given
    assert predictor.predict(module, "torch", input_shape=[1, 3, 64, 64]) == given
    convert = nn_meter.ir_converter.utils.torch_model_to_graph
    assert nn_meter.model_to_graph(module, "torch", (3, 64, 64)) == convert(module, (1, 3, 64, 64))
    graph = small_cnn()
    assert predictor.predict(graph, "nnmeter-ir", (1, 3, 7, 7)) == predictor.predict(graph, "nnmeter-ir")


def test_operators_that_are_estimated_are_warned_of(nn_meter: Any) -> None:
    ir = IrBuilder((1, 56, 56, 8))
    ir.unary("odd", "Unheard", ir.conv("conv", "input", 64, kernel=1))
    with pytest.warns(LatencyWarning, match=r"odd \(unheard\)"):
        nn_meter.load_latency_predictor(CPU).predict(ir.nodes, "nnmeter-ir")


def test_graphs_of_models_are_nn_meter_ir(nn_meter: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    predictor = nn_meter.load_latency_predictor(CPU)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    graph = nn_meter.model_to_graph(module, "torch", input_shape=(1, 3, 32, 32))
    assert json.loads(json.dumps(graph)) == graph
    assert predictor.predict(graph, "nnmeter-ir") == predictor.predict(module, "torch", (1, 3, 32, 32))
    file = tmp_path / "model.json"
    file.write_text(json.dumps(graph))
    assert nn_meter.model_file_to_graph(str(file), "nnmeter-ir") == graph
    assert nn_meter.model_to_graph(graph, "nnmeter-ir") is graph


def write_onnx(path: Path) -> None:
    """A convolution and a ReLU on (1, 3, 32, 32), SAME, as an ONNX file."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = helper.make_tensor("w", floats, [16, 3, 3, 3], [0.0] * 432)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shapes = {"x": [1, 3, 32, 32], "y": [1, 16, 32, 32]}
    x, y = (helper.make_tensor_value_info(name, floats, shape) for name, shape in shapes.items())
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight])), str(path))


def write_frozen_graph(path: Path) -> None:
    """The same as a frozen TensorFlow graph, on (1, 32, 32, 3)."""
    pytest.importorskip("tensorboard")
    from google.protobuf import text_format
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    def shape(sizes: tuple[int, ...]) -> str:
        return " ".join(f"dim {{ size: {size} }}" for size in sizes)

    text = f"""
node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
       attr {{ key: "shape" value {{ shape {{ {shape((1, 32, 32, 3))} }} }} }} }}
node {{ name: "w" op: "Const" attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
       attr {{ key: "value" value {{ tensor {{ dtype: DT_FLOAT tensor_shape {{ {shape((3, 3, 3, 16))} }}
                                         float_val: 0 }} }} }} }}
node {{ name: "c" op: "Conv2D" input: "x" input: "w" attr {{ key: "padding" value {{ s: "SAME" }} }}
       attr {{ key: "strides" value {{ list {{ i: 1 i: 1 i: 1 i: 1 }} }} }}
       attr {{ key: "data_format" value {{ s: "NHWC" }} }} }}
node {{ name: "y" op: "Relu" input: "c" }}
"""
    path.write_bytes(text_format.Parse(text, GraphDef()).SerializeToString())


def test_a_network_takes_the_same_time_in_every_format(nn_meter: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU())
    write_onnx(tmp_path / "model.onnx")
    write_frozen_graph(tmp_path / "model.pb")
    predictor = nn_meter.load_latency_predictor(CPU)
    expected = predictor.predict(module, "torch", (1, 3, 32, 32))
    for file, model_type in (("model.onnx", "onnx"), ("model.pb", "pb")):
        graph = nn_meter.model_file_to_graph(str(tmp_path / file), model_type)
        assert predictor.predict(str(tmp_path / file), model_type=model_type) == pytest.approx(expected)
        assert predictor.predict(graph, "nnmeter-ir") == pytest.approx(expected)
    import onnx

    assert predictor.predict(onnx.load(tmp_path / "model.onnx"), "onnx") == pytest.approx(expected)


def test_torchvision_networks_go_by_name(
    nn_meter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    write_torchvision(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from nnmeter_nas.benchmarks.networks import build_network

    predictor = nn_meter.load_latency_predictor(CPU)
    expected = predictor.predict(build_network("squeezenet1_0"), "torch")
    assert predictor.predict("squeezenet", "torch") == expected
    graph = nn_meter.model_file_to_graph("squeezenet", "torch")
    assert predictor.predict(graph, "nnmeter-ir") == expected
    # The stand-in for Inception is this network, too. nn-Meter reads it at 224 x 224, others at 299 x 299.
    said: list[str] = []
    monkeypatch.setattr(nn_meter_interface.logger, "info", lambda text, *args: said.append(text % args))
    assert predictor.predict("inception_v3", "torch") == expected
    assert any("(1, 3, 224, 224); input_shape=(1, 3, 299, 299) is its usual one" in line for line in said)
    usual = predictor.predict("inception_v3", "torch", (1, 3, 299, 299))
    capsys.readouterr()  # nn-Meter's logger writes to stdout
    for words, latency in (
        (["lat_pred"], expected), (["predict"], usual),
        (["lat_pred", "--input-shape", "1", "3", "299", "299"], usual),
        (["predict", "--input-shape", "1", "3", "224", "224"], expected),
    ):  # fmt: skip
        assert main([*words, "--json", "--predictor", CPU, "--torchvision", "inception_v3"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)[0]["latency_ms"] == latency
        assert ("inception_v3 is read with --input-shape" in err) == (len(words) == 1)
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]


def test_predictor_works_in_processes_without_the_line(
    nn_meter: Any, run: Callable[..., list[str]], tmp_path: Path
) -> None:
    predictor = nn_meter.load_latency_predictor(CPU)
    (tmp_path / "predictor.pickle").write_bytes(pickle.dumps((predictor, small_cnn())))
    assert len(pickle.dumps(predictor)) < 300
    lines = run("""
import pickle
predictor, model = pickle.load(open("predictor.pickle", "rb"))
print(predictor.predict(model, "nnmeter-ir"))
""")
    assert float(lines[-1]) == predictor.predict(small_cnn(), "nnmeter-ir")


# Scripts as they are published.


def test_quick_start_runs(run: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for width in (16, 64):
        (tmp_path / "models" / f"cnn_{width}.json").write_text(json.dumps(small_cnn(width)))
    lines = run(ONE_LINE + f"""
import os
from glob import glob
import nn_meter

for p in nn_meter.list_latency_predictors():
    print(f"[Predictor] {{p['name']}}: version={{p['version']}}")
predictor = nn_meter.load_latency_predictor("{CPU}")
result = {{}}
for test_model in sorted(glob("models/**.json")):
    latency = predictor.predict(test_model, model_type="nnmeter-ir")
    result[os.path.basename(test_model)] = latency
print(*result, *result.values())
""")
    assert f"[Predictor] {CPU}: version=2.1" in lines
    assert "(nn-Meter) Start latency prediction ..." in lines
    predict = load_latency_predictor(CPU).predict
    expected = [str(predict(small_cnn(width))) for width in (16, 64)]
    assert lines[-1].split() == ["cnn_16.json", "cnn_64.json", *expected]


BENCH_SCRIPT = """
import json
import logging
import sys
from nn_meter.dataset import bench_dataset
from nn_meter.predictor import latency_metrics, list_latency_predictors, load_latency_predictor

logging = logging.getLogger("nn-Meter")
for hw in list_latency_predictors():
    predictor = load_latency_predictor(hw["name"], hw["version"])
    for filename in bench_dataset(data_folder=sys.argv[1]):
        true, predicted = [], []
        for i, line in enumerate(open(filename)):
            item = json.loads(line)
            predicted.append(predictor.predict(item["graph"], model_type="nnmeter-ir"))
            true.append(item[hw["name"]])
            logging.result(f"{filename}[{i}]: predict: {predicted[-1]}, real: {true[-1]}")
        rmse, rmspe, error, acc5, acc10, _ = latency_metrics(predicted, true)
        logging.keyinfo(f"{filename} on {hw['name']}: rmse: {rmse}, 5%accuracy: {acc5}, 10%accuracy: {acc10}")
"""


def test_benchmark_runs_as_it_is_under_the_command(run: Callable[..., list[str]], tmp_path: Path) -> None:
    packs = [(pack["name"], pack["version"]) for pack in list_latency_predictors()]
    newest = {device: max(v for name, v in packs if name == device) for device, _ in packs}
    data = tmp_path / "data"
    data.mkdir()
    with (data / "smalls.jsonl").open("w") as file:
        for width in (16, 64):
            latencies = {d: load_latency_predictor(d).predict(small_cnn(width)) * 1.07 for d in newest}
            print(json.dumps({"id": f"small_{width}", **latencies, "graph": small_cnn(width)}), file=file)
    lines = run(BENCH_SCRIPT, str(data), launcher=("-m", "nnmeter_nas.compat"))
    summaries = [line for line in lines if "rmse" in line]
    assert len(summaries) == len(packs)
    for line, (device, version) in zip(summaries, packs, strict=True):
        assert line.startswith("(nn-Meter) ")
        if version == newest[device]:
            assert line.endswith("5%accuracy: 0.0, 10%accuracy: 1.0")


class LatencyFilter:
    """The filter of NNI's example of a multi-trial search, by its arguments."""

    def __init__(
        self, threshold: float, predictor: str, predictor_version: float | None = None, reverse: bool = False
    ) -> None:
        import nn_meter

        self.predictors = nn_meter.load_latency_predictor(predictor, predictor_version)
        self.threshold = threshold

    def __call__(self, ir_model: Any) -> bool:
        latency = self.predictors.predict(ir_model, "nni-ir")
        return latency < self.threshold


@pytest.mark.slow  # imports NNI
def test_filter_of_the_nni_example_decides_on_candidates_of_the_graph_engine(nn_meter: Any) -> None:
    pytest.importorskip("nni.retiarii", reason="candidates of NNI 2.10")
    from nni_candidates import make_candidates
    from nnmeter_nas.search_spaces import spos

    candidates = make_candidates(spos("small", depths=(2, 1), channels=(16, 32)), "graph", 4)
    latencies = [load_latency_predictor(CPU).predict(candidate) for candidate in candidates]
    limit = sum(latencies) / len(latencies)
    accept = LatencyFilter(limit, CPU)
    assert [accept(candidate) for candidate in candidates] == [latency < limit for latency in latencies]
    assert len(set(map(accept, candidates))) == 2


@pytest.mark.slow  # imports NNI
def test_table_of_nni_prices_candidates_and_what_stays(
    nn_meter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("nni.retiarii", reason="the estimator of NNI 2.10")
    from nni.retiarii import model_wrapper
    from nni.retiarii.nn import pytorch as nn
    from nni.retiarii.oneshot.pytorch.proxyless import HardwareLatencyEstimator

    def narrow() -> Any:
        return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())

    def wide() -> Any:
        return nn.Sequential(nn.Conv2d(16, 64, 1), nn.ReLU(), nn.Conv2d(64, 16, 1))

    @model_wrapper
    class Space(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU())
            self.first = nn.LayerChoice([narrow(), wide()], label="first")
            self.second = nn.LayerChoice([narrow(), wide()], label="second")
            self.head = nn.Conv2d(16, 64, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.second(self.first(self.stem(x))))

    file = str(tmp_path / "lut" / "table.yaml")
    pack = load_latency_predictor(CPU).pack
    # What small networks gain is nothing to blocks, as they are parts.
    card = {**pack.card, "warmth": Warmth(100.0, 0.5, 0.01).to_card()}
    warm = nn_meter_interface.nnMeterPredictor(replace(pack, card=card))
    monkeypatch.setattr(nn_meter, "load_latency_predictor", lambda name: warm)
    with pytest.warns(LatencyWarning, match="left out: second"):
        estimator = HardwareLatencyEstimator(CPU, Space(), (1, 3, 64, 64), file)
    predict, inner = load_latency_predictor(CPU).predict, (1, 16, 32, 32)
    candidates = [predict(block, "torch", inner) for block in (narrow(), wide())]
    stem = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, stride=2, padding=1), torch.nn.ReLU())
    stays = predict(stem, "torch", (1, 3, 64, 64)) + predict(torch.nn.Conv2d(16, 64, 1), "torch", inner)
    table = estimator.block_latency_table
    assert table["stationary_block"]["root"] == pytest.approx(stays)
    for label in ("first", "second"):
        assert list(table[label].values()) == pytest.approx(candidates)


def test_layers_of_a_space_are_read_with_whatever_they_take() -> None:
    """NNI hands a layer over with its arguments: tensors, lists of them, numbers; some layers do nothing."""
    torch = pytest.importorskip("torch")
    from nnmeter_nas.compat.nni_profiler import layer_graph

    class Mix(torch.nn.Module):
        def forward(self, x: torch.Tensor, others: list[torch.Tensor], keep: int) -> torch.Tensor:
            return torch.cat([x, *others[:keep]], 1)

    maps = [torch.randn(1, width, 8, 8) for width in (2, 3, 4)]
    graph = layer_graph(Mix(), (maps[0], maps[1:], 1))
    (concat,) = [data for _, data in graph.nodes(data=True) if data["op"] == "concat"]
    assert concat["in_shapes"] == [(1, 2, 8, 8), (1, 3, 8, 8)]
    with pytest.warns(LatencyWarning, match="runs nothing"):
        assert load_latency_predictor(CPU).predict(layer_graph(torch.nn.Identity(), maps[0]), "onnx") == 0


# Another nn-Meter in the environment.


def write_package(folder: Path) -> None:
    (folder / "nn_meter").mkdir()
    (folder / "nn_meter" / "__init__.py").write_text("from . import builder\nowner = 'somebody else'\n")
    (folder / "nn_meter" / "builder.py").touch()


@pytest.mark.parametrize("imported", [True, False], ids=["imported", "installed"])
def test_another_nn_meter_is_replaced_and_put_back(
    imported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    theirs: ModuleType | None = importlib.import_module("nn_meter") if imported else None
    nn_meter_compat.install()
    nn_meter_compat.install()
    assert hasattr(importlib.import_module("nn_meter"), "load_latency_predictor")
    nn_meter_compat.uninstall()
    nn_meter_compat.uninstall()
    again = importlib.import_module("nn_meter")
    assert again.owner == "somebody else"
    assert theirs in (None, again)
    for name in ("nn_meter", "nn_meter.builder"):
        del sys.modules[name]


def test_nothing_is_left_behind_without_another_nn_meter() -> None:
    before = list(sys.meta_path)
    nn_meter_compat.install()
    importlib.import_module("nn_meter.predictor")
    nn_meter_compat.uninstall()
    assert sys.meta_path == before
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nn_meter")


def test_installing_imports_neither_torch_nor_nni(run: Callable[..., list[str]]) -> None:
    lines = run(ONE_LINE + "import sys, nn_meter; print({'torch', 'nni', 'httpx'} & set(sys.modules))")
    assert lines == ["set()"]


@pytest.mark.parametrize("name", ["utils.graph_tool", "builder.backends.openvino"])
def test_what_is_not_offered_says_so(nn_meter: Any, name: str) -> None:
    with pytest.raises(MissingPackageError, match=rf"no 'nn_meter\.{name}'.*install nn-Meter"):
        importlib.import_module(f"nn_meter.{name}")


# The user's data.


def test_data_folder_can_be_moved(nn_meter: Any, home: Path, tmp_path: Path) -> None:
    home.rmdir()
    nn_meter.create_user_configs()
    assert home.is_dir()
    nn_meter.change_user_data_folder(str(tmp_path / "after"))
    assert nn_meter.utils.get_user_data_folder() == str(tmp_path / "after")
    (tmp_path / "after" / "dataset").mkdir()
    (tmp_path / "after" / "dataset" / "vggs.jsonl").touch()
    assert nn_meter.bench_dataset() == [str(tmp_path / "after" / "dataset" / "vggs.jsonl")]


def make_zip(file: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file


def test_unpacking_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    unpack(make_zip(tmp_path / "a.zip", {"x.jsonl": b"1", "sub/y.txt": b"2"}), folder)
    unpack(make_zip(tmp_path / "b.zip", {"sub/z.txt": b"3"}), folder)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"x.jsonl", "sub/y.txt", "sub/z.txt"}


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt"])
def test_entry_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "bad.zip", {"good.txt": b"", name: b""})
    with pytest.raises(PackError, match="lies outside the folder"):
        unpack(archive, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_archive_that_is_no_honest_one_is_refused(tmp_path: Path) -> None:
    bomb = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(10_000_000)})
    (tmp_path / "text.zip").write_text("no zip")
    whole = make_zip(tmp_path / "whole.zip", {"a": bytes(range(256))}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    for name in (bomb.name, "text.zip", "cut.zip", "link.zip"):
        with pytest.raises(PackError, match=name):
            unpack(tmp_path / name, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


# Bad input.


def test_unknown_predictor_names_the_nearest(nn_meter: Any) -> None:
    with pytest.raises(UnknownDeviceError, match=f"did you mean '{CPU}'"):
        nn_meter.load_latency_predictor("cortexA76cpu")
    with pytest.raises(UnknownDeviceError, match=r"no version 7\.0"):
        nn_meter.load_latency_predictor(CPU, 7.0)


def test_version_1_says_how_to_import_it(nn_meter: Any) -> None:
    with pytest.raises(UnknownDeviceError, match=f"nnmeter-nas predictors import {CPU}"):
        nn_meter.load_latency_predictor(CPU, predictor_version=1.0)


@pytest.mark.parametrize("model_type", ["tensorflow", "Torch", ""])
def test_unknown_model_type_is_a_value_error(nn_meter: Any, model_type: str) -> None:
    with pytest.raises(ValueError, match=r"nni-ir, torch, onnx, pb, nnmeter-ir") as caught:
        nn_meter.load_latency_predictor(CPU).predict(small_cnn(), model_type)
    assert isinstance(caught.value, ReaderError)


@pytest.mark.parametrize("model_type", ["pb", "onnx", "nnmeter-ir"])
def test_missing_file_is_named(nn_meter: Any, model_type: str) -> None:
    for call in (nn_meter.load_latency_predictor(CPU).predict, nn_meter.model_file_to_graph):
        with pytest.raises(ReaderError, match=r"absent\.model"):
            call("absent.model", model_type)


def test_dataset_is_fetched_once(nn_meter: Any, server: Server, tmp_path: Path) -> None:  # noqa: F811
    archive = make_zip(tmp_path / "datasets.zip", {"vggs.jsonl": b"{}\n", "alexnets.jsonl": b"{}\n"})
    server.content = archive.read_bytes()
    for _ in range(2):
        files = nn_meter.bench_dataset(f"{server.address}/datasets.zip", str(tmp_path / "data"))
        assert files == [str(tmp_path / "data" / name) for name in ("alexnets.jsonl", "vggs.jsonl")]
    assert len(server.requests) == 1


def test_hint_when_offline_is_for_what_was_asked_for(nn_meter: Any, tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    folder = tmp_path / "data"
    message = r"cannot be downloaded.*elsewhere and unpack it into .*data"
    with pytest.raises(PackError, match=message) as caught:
        nn_meter.bench_dataset("https://127.0.0.1:9/datasets.zip", str(folder))
    assert "predictors import" not in str(caught.value)


def test_dataset_has_the_hash_that_its_address_names(
    nn_meter: Any, server: Server, tmp_path: Path  # noqa: F811
) -> None:
    archive = make_zip(tmp_path / "datasets.zip", {"vggs.jsonl": b"{}\n"})
    server.content, folder = archive.read_bytes(), tmp_path / "data"
    with pytest.raises(PackError, match="SHA-256"):
        nn_meter.bench_dataset(f"{server.address}/datasets.zip#sha256={'0' * 64}", str(folder))
    assert not folder.exists()
    url = f"{server.address}/datasets.zip#sha256={sha256(archive)}"
    assert nn_meter.bench_dataset(url, str(folder)) == [str(folder / "vggs.jsonl")]


def test_dataset_may_be_a_zip_on_disk(nn_meter: Any, home: Path, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "datasets.zip", {"vggs.jsonl": b"{}\n"})
    files = nn_meter.bench_dataset(str(archive), str(tmp_path / "data"))
    assert files == [str(tmp_path / "data" / "vggs.jsonl")]
    folder = bench_folder(archive)
    assert [path.name for path in folder.iterdir()] == ["vggs.jsonl"]
    assert folder.is_relative_to(home)
    archive.write_bytes(archive.read_bytes())
    assert bench_folder(archive) == folder
    assert bench_folder(folder) == folder


def test_dataset_may_be_a_zip_of_a_folder(nn_meter: Any, home: Path, tmp_path: Path) -> None:
    entries = {"datasets/vggs.jsonl": b"{}\n", "__MACOSX/._vggs.jsonl": b""}
    archive, folder = make_zip(tmp_path / "datasets.zip", entries), tmp_path / "data"
    for _ in range(2):
        files = nn_meter.bench_dataset(str(archive), str(folder))
        assert files == [str(folder / "datasets" / "vggs.jsonl")]
        archive.unlink(missing_ok=True)
    make_zip(archive, entries)
    assert [path.name for path in bench_folder(archive).iterdir()] == ["vggs.jsonl"]
    assert bench_folder(folder) == folder / "datasets"


def test_zip_without_a_dataset_is_refused(nn_meter: Any, server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.content = make_zip(tmp_path / "other.zip", {"readme.txt": b""}).read_bytes()
    with pytest.raises(DatasetError, match=r"other\.zip holds no"):
        nn_meter.bench_dataset(f"{server.address}/other.zip", str(tmp_path / "data"))


def test_dataset_is_fetched_from_https_alone(nn_meter: Any, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="only https"):
        nn_meter.bench_dataset("http://localhost/datasets.zip", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()
