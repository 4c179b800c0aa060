"""`predict`: every format, folders and many models, one failure alone, output that scripts can take."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from ir import IrBuilder, small_cnn
from nnmeter_nas import load_latency_predictor, read_model
from nnmeter_nas.cli import main
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.graph.memory import ONNXRUNTIME, TFLITE, MemoryRules, memory_by_operator

COMMAND = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"


def write_ir(path: Path, ir: dict[str, Any] | None = None) -> Path:
    """Write nn-Meter IR, by default of a small network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ir or small_cnn()), encoding="utf-8")
    return path


def write_onnx(path: Path, operator: str = "Relu") -> Path:
    """Write an ONNX model of one operator."""
    pytest.importorskip("onnx")
    from onnx_models import model, node

    path.write_bytes(model([node(operator, "x", "y")]).SerializeToString())
    return path


def with_operator(kind: str) -> dict[str, Any]:
    """A small network with an operator of IR type ``kind`` in it."""
    b = IrBuilder()
    b.classifier(b.unary("odd", kind, b.conv("conv", "input", 8)))
    return b.nodes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three models, one of them broken, and a file that is none."""
    for name, width in (("b.json", 8), ("a.json", 16), ("deep/c.json", 24)):
        write_ir(tmp_path / "models" / name, small_cnn(width))
    (tmp_path / "models" / "a.json").write_text('{"input": ', encoding="utf-8")
    (tmp_path / "models" / "notes.txt").write_text("not a model", encoding="utf-8")
    return tmp_path / "models"


def predicted(path: Path, device: str = CPU) -> float:
    """Latency by the Python interface."""
    return load_latency_predictor(device).predict(path)


def test_one_model_is_one_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_ir(tmp_path / "model.json")
    for arguments in (
        ["predict", str(model), "--predictor", CPU],
        ["predict", "--predictor", CPU, str(model)],
    ):
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert float(out) == predicted(model)
        assert err == ""


def test_device_that_nobody_named_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(write_ir(tmp_path / "model.json"))]) == 0
    out, err = capsys.readouterr()
    assert float(out) > 0
    assert CPU in err


def test_broken_model_in_a_folder_fails_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--nn-meter-ir", str(folder), "--predictor", CPU]) == 1
    out, err = capsys.readouterr()
    heading, *lines = out.splitlines()
    assert heading == f"{CPU} (ms)  model"
    assert [line.split()[1] for line in lines] == [str(folder / "b.json"), str(folder / "deep" / "c.json")]
    assert float(lines[0].split()[0]) == pytest.approx(predicted(folder / "b.json"), abs=1e-4)
    [complaint] = err.splitlines()
    assert complaint.startswith("nnmeter-nas: error: ")
    assert f"{folder / 'a.json'} is not valid JSON" in complaint


def test_json_has_a_record_for_each_model_and_device(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(folder), "--json", "--predictor", CPU, GPU]) == 1
    records = json.loads(capsys.readouterr().out)
    assert [(Path(r["model"]).name, r["predictor"]) for r in records] == [
        (name, device) for name in ("a.json", "b.json", "c.json") for device in (CPU, GPU)
    ]
    for record in records:
        assert record["version"] == load_latency_predictor(record["predictor"]).version
        if record["model"].endswith("a.json"):
            assert record["latency_ms"] is record["low_ms"] is record["high_ms"] is None
            assert "not valid JSON" in record["error"]
        else:
            assert record["latency_ms"] == predicted(Path(record["model"]), record["predictor"])
            interval = load_latency_predictor(record["predictor"]).predict_interval(record["model"])
            assert (record["low_ms"], record["latency_ms"], record["high_ms"]) == interval
            assert record["error"] is None


def test_a_terminal_shows_the_interval_and_a_script_gets_the_number(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "b.json"
    interval = load_latency_predictor(CPU).predict_interval(path)
    assert main(["predict", str(path), "--predictor", CPU]) == 0
    assert float(capsys.readouterr().out) == interval.ms
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["predict", str(path), "--predictor", CPU]) == 0
    assert f"{path}: {interval} on {CPU}" in capsys.readouterr().out
    assert re.fullmatch(r"[\d.]+ ms \([\d.]+ to [\d.]+\)", str(interval))


def test_csv_has_a_header_and_goes_to_a_file_by_its_suffix(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "out" / "latencies.csv"
    assert main(["predict", str(folder), "-o", str(saved), "--predictor", CPU]) == 1
    assert capsys.readouterr().out == ""
    rows = list(csv.DictReader(io.StringIO(saved.read_text(encoding="utf-8"))))
    assert list(rows[0])[:4] == ["model", "predictor", "version", "latency_ms"]
    assert [bool(row["latency_ms"]) for row in rows] == [False, True, True]
    assert [bool(row["error"]) for row in rows] == [True, False, False]
    assert float(rows[1]["latency_ms"]) == predicted(folder / "b.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.json", b'{"a": {"attr": {"type": "Conv2D"}, "inbounds": ["a"]}}'),
        ("model.json", b"[" * 200_000),
        ("model.jsonl", b'{"id": "cut'),
        ("model.onnx", b"\x08\x07\x12\x04junk" * 20),
        ("model.pb", b"\xff\xfe\xfd" * 50),
        ("model.tflite", b"TFL3"),
    ],
)
def test_hostile_file_of_any_format_is_an_error_and_writes_nothing(
    tmp_path: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / name
    model.write_bytes(content)
    table, chart = str(tmp_path / "out.csv"), str(tmp_path / "out.png")
    for command in (["predict", "-o", table], ["explain", "-o", table, "--plot", chart], ["get_ir"]):
        assert main([*command, str(model)]) == 1
        [complaint] = capsys.readouterr().err.splitlines()
        assert complaint.startswith("nnmeter-nas: error: ")
        assert str(model) in complaint
        assert "unexpected" not in complaint
    assert list(tmp_path.iterdir()) == [model]


def test_bench_file_is_a_model_a_line(
    bench_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (bench_dir / "squeezenets.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:3]
    path = tmp_path / "squeezenets.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    assert main(["predict", "--nn-meter-ir", str(path), "--csv", "--predictor", CPU]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["model"] for row in rows] == [f"{path}:{json.loads(line)['id']}" for line in lines]


def test_onnx_files_and_tensorflow_files_are_read_by_their_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("net.onnx", "renamed"):
        write_onnx(tmp_path / name)
    assert main(["predict", "--onnx", str(tmp_path), str(tmp_path / "renamed"), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [Path(record["model"]).name for record in records] == ["net.onnx", "renamed"]
    assert records[0]["latency_ms"] == records[1]["latency_ms"] > 0
    assert main(["predict", "--tensorflow", str(tmp_path / "renamed")]) == 1
    assert main(["predict", "--tensorflow", str(tmp_path)]) == 1
    assert f"{tmp_path} is a folder without .pb files" in capsys.readouterr().err


def test_file_of_unknown_suffix_names_the_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path / "model.net")]) == 1
    assert f"there is no file or folder '{tmp_path / 'model.net'}'" in capsys.readouterr().err
    write_ir(tmp_path / "model.net")
    assert main(["predict", str(tmp_path / "model.net")]) == 1
    assert "name it with --onnx, --tensorflow or --nn-meter-ir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("net.tflite", "pass the frozen GraphDef (.pb) or the ONNX file"),
        ("net.PTH", "predict its module in Python, or export it to ONNX"),
        ("net.safetensors", "predict its module in Python, or export it to ONNX"),
        ("net.keras", "freeze the network to a GraphDef (.pb), or export it to ONNX"),
        ("net.pt2", "load it with torch.export.load"),
        ("net.xml", "pass the ONNX file or frozen GraphDef (.pb) that it was made from"),
    ],
)
def test_file_that_no_reader_takes_says_what_to_pass_instead(
    name: str, way_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path / name)]) == 1
    assert way_out in capsys.readouterr().err
    with pytest.raises(ReaderError, match=re.escape(way_out)):
        read_model(tmp_path / name)


def test_input_shape_reaches_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_ir(tmp_path / "model.json")
    assert main(["predict", str(model), "--predictor", CPU, "--input-shape", "1", "3", "64", "64"]) == 0
    expected = load_latency_predictor(CPU).predict(model, input_shape=(1, 3, 64, 64))
    assert float(capsys.readouterr().out) == expected != predicted(model)
    assert main(["predict", str(model), "--input-shape", "1", "3", "8", "8", "--input-shape", "1", "3"]) == 1
    assert "gives 2 shape(s)" in capsys.readouterr().err


def test_operator_that_is_estimated_is_a_warning_or_under_strict_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_ir(tmp_path / "odd.json", with_operator("Erf"))
    write_ir(tmp_path / "plain.json")
    assert main(["predict", str(tmp_path), "--predictor", CPU, "--json"]) == 0
    out, err = capsys.readouterr()
    assert f"warning: {model}: 1 kernel(s)" in err
    assert [record["estimated"] for record in json.loads(out)] == [{"odd": "erf"}, {}]
    assert main(["predict", str(tmp_path), "--predictor", CPU, "--strict", "--csv"]) == 1
    out, err = capsys.readouterr()
    assert f"error: {model}: 1 kernel(s)" in err
    assert [bool(row["latency_ms"]) for row in csv.DictReader(io.StringIO(out))] == [False, True]


def test_what_is_said_of_all_devices_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_ir(tmp_path / "odd.json", with_operator("Erf"))
    assert main(["predict", str(model), "--predictor", CPU, GPU]) == 0
    [estimated] = [line for line in capsys.readouterr().err.splitlines() if "estimated" in line]
    assert re.search(rf"on {CPU} \([\d.]+% of the latency\) and {GPU} \([\d.]+% of the latency\)", estimated)
    shapeless = write_onnx(tmp_path / "odd.onnx", "NonZero")
    assert main(["predict", str(shapeless), "--predictor", CPU, GPU]) == 1
    out, err = capsys.readouterr()
    [complaint] = err.splitlines()
    assert f"not predicted on {CPU} and {GPU}: " in complaint
    assert out == ""


@pytest.mark.parametrize(("operator", "why"), [("NonZero", "nothing of the model is predicted"),
                                               ("Identity", "it runs nothing")])
def test_no_latency_is_a_failure_and_no_number(
    operator: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_onnx(tmp_path / "net.onnx", operator))
    assert main(["predict", model, "--predictor", CPU]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert why in err
    assert main(["predict", model, "--predictor", CPU, "--json"]) == 1
    [record] = json.loads(capsys.readouterr().out)
    assert record["latency_ms"] is None
    assert why in record["error"]
    assert main(["explain", model, "--predictor", CPU]) == (operator == "Identity")
    out, err = capsys.readouterr()
    assert why in err if operator == "Identity" else f"no kernel predicted on {CPU}" in out
    assert "0.0" not in out.replace("100.0%", "")


def test_quantised_model_is_refused_or_priced_as_the_float_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    from onnx_models import model as model_of
    from onnx_models import node

    scale = {"scale": [0.1], "zero": [3]}
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"), node("DequantizeLinear", "q scale zero", "d"),
        node("Relu", "d", "y"),
    ]  # fmt: skip
    path = tmp_path / "int8.onnx"
    path.write_bytes(model_of(nodes, scale).SerializeToString())
    for command in ("predict", "explain", "get_ir"):
        assert main([command, str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "the model is quantised, at 2 operator(s), the first 'q'" in err
        assert "--allow-quantized" in err
        assert "allow_quantized" not in err
    assert main(["predict", str(path), "--json"]) == 1
    [record] = json.loads(capsys.readouterr().out)
    assert record["error"].endswith("pass the float model, or --allow-quantized to price it as one")
    assert main(["predict", str(path), "--allow-quantized", "--predictor", CPU, GPU]) == 0
    out, err = capsys.readouterr()
    assert err.count("the model is quantised; its latency is that of the float network") == 1
    float_ms = load_latency_predictor(CPU).predict(write_onnx(tmp_path / "float.onnx"))
    assert float(out.splitlines()[1].split()[0]) == pytest.approx(float_ms, abs=1e-4)
    assert main(["explain", str(path), "--allow-quantized", "--predictor", CPU]) == 0
    assert "quantised at 2 operator(s), and priced and sized as the float network" in capsys.readouterr().out
    assert main(["explain", str(path), "--allow-quantized", "--predictor", CPU, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record["quantized"] == ["q", "d"]
    assert main(["get_ir", str(path), "--allow-quantized", "-o", str(tmp_path / "ir.json")]) == 0
    assert predicted(tmp_path / "ir.json") == float_ms


def test_every_device_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_ir(tmp_path / "model.json")
    assert main(["predict", str(model), "--predictor", "all"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    devices = [part for part in heading.split() if "_" in part]
    assert {CPU, GPU} < set(devices)
    figures = dict(zip(devices, map(float, line.split()[:-1]), strict=True))
    assert figures[GPU] == pytest.approx(predicted(model, GPU), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "--predictor", CPU], "required: MODEL"),
        (["predict", "m.json", "--predictor", "phone"], "no predictor for device 'phone'"),
        (["predict", "--predictor", "m.json"], "--predictor: names no device, only m.json"),
        (["predict", "m.json", "--predictor", CPU, "--predictor-version", "9"], "no version 9.0"),
        (["predict", "m.json", "--predictor", "all", "--predictor-version", "9"], "has version 9.0"),
        (["predict", "m.json", "--json", "--csv"], "not allowed with"),
        (["predict", "m.json", "-o", "results.txt"], "format of results.txt; add --json or --csv"),
        (["predict", "m.json", "--scheduler", "tcp://127.0.0.1:1"],
         "--scheduler tcp://127.0.0.1:1 is of a cluster, and --backend loky is this machine"),
        (["predict", "m.json", "--backend", "loky", "--scheduler", "auto"],
         "add --backend dask or --backend ray"),
        (["predict", "m.json", "--json", "-o", "x.parquet"],
         "--json: not allowed with -o x.parquet, which is to be parquet; leave --json out"),
        (["explain", "m.json", "--csv", "-o", "x.JSON"], "let the name end in .csv"),
        (["predict", "m.json", "--json", "-o", "."], "is a folder; name a file in it"),
        (["predict", "m.json", "--input-shape", "1", "3", "wide"], "'wide' is no size"),
        (["explain", "m.json", "--plot", "plot.jpeg"], "plot.jpeg does not end in .png"),
        (["explain", "m.json", "n.json", "--plot", "plot.png"], "draws one model, and 2 are given"),
        (["explain", "m.json", "--top", "0"], "0 is not at least 1"),
        (["get_ir", "m.json", "n.json", "-o", "ir.json"], "is for one model, and 2 are given"),
    ],
)  # fmt: skip
def test_wrong_usage_is_named_before_any_model_is_read(
    arguments: list[str], message: str, refused: Callable[[list[str], str], None]
) -> None:
    refused(arguments, message)


COUNT_GRAPHS_WHILE_PREDICTING = """
import gc, io, sys
import networkx
from nnmeter_nas.cli import main
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.graph.memory import ONNXRUNTIME, TFLITE, MemoryRules, memory_by_operator

class Watched(io.StringIO):
    def write(self, text):
        lines.append(text)
        if len(lines) % 50 == 2:
            gc.collect()
            alive.append(sum(isinstance(thing, networkx.DiGraph) for thing in gc.get_objects()))

lines, alive, sys.stdout = [], [], Watched()
code = main(sys.argv[1:])
sys.stdout = sys.__stdout__
print(code, len(lines), *alive)
"""


def test_folder_of_many_models_streams_and_keeps_no_graph(tmp_path: Path) -> None:
    for number in range(200):
        write_ir(tmp_path / f"{number:03}.json", small_cnn(8 + number % 5, blocks=1))
    command = [sys.executable, "-c", COUNT_GRAPHS_WHILE_PREDICTING, "predict", str(tmp_path), "--csv"]
    result = subprocess.run([*command, "--predictor", CPU], capture_output=True, text=True, check=True)
    code, lines, *alive = map(int, result.stdout.split())
    assert (code, lines) == (0, 201)
    assert len(alive) == 4
    assert set(alive) == {alive[0]}, "graphs of earlier models are kept"
    assert alive[0] < 10


@pytest.mark.slow
def test_torchvision_models_go_by_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from nnmeter_nas.benchmarks.networks import build_network
    from torchvision_stand_in import write_torchvision

    write_torchvision(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*names: str) -> tuple[list[dict[str, Any]], list[str]]:
        command = [COMMAND, "predict", "--predictor", CPU, "--json", "--torchvision", *names]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        complaints = [line for line in result.stderr.splitlines() if "error: " in line]
        assert result.returncode == bool(complaints)
        return json.loads(result.stdout), complaints

    names = ["resnet18", "squeezenet", "inception_v3", "quantized_resnet18", "resnet81"]
    records, [quantised, unknown] = run(*names)
    assert "pass 'resnet18', or --allow-quantized to price it as one" in quantised
    assert "torchvision has no model 'resnet81'; did you mean 'resnet18'?" in unknown
    assert [record["model"] for record in records] == names
    predictor = load_latency_predictor(CPU)
    expected = (("resnet18", 224), ("squeezenet1_0", 224), ("squeezenet1_0", 299))
    for record, (name, size) in zip(records[:3], expected, strict=True):
        with torch.device("meta"):
            network = build_network(name)
        assert record["latency_ms"] == predictor.predict(network, "torch", (1, 3, size, size))
    [priced], complaints = run("quantized_resnet18", "--allow-quantized")
    assert priced["latency_ms"] == records[0]["latency_ms"]
    assert not complaints


def test_absent_torchvision_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert main(["predict", "--torchvision", "resnet18"]) == 1
    assert "pip install torch torchvision" in capsys.readouterr().err


def test_prediction_from_a_file_loads_neither_torch_nor_plotting(tmp_path: Path) -> None:
    write_onnx(tmp_path / "net.onnx")
    write_ir(tmp_path / "net.json")
    program = (
        "import sys; from nnmeter_nas.cli import main\n"
        f"code = main(['predict', {str(tmp_path)!r}])\n"
        "heavy = {'torch', 'nni', 'matplotlib', 'sklearn', 'scipy', 'tensorboard', 'httpx'}\n"
        "print(code, *sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "0"


def test_reader_of_the_output_may_end_first(folder: Path) -> None:
    predict = f"'{COMMAND}' predict '{folder}' '{folder}' --csv --predictor {CPU}"
    command = f"{predict} | head -n 1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    heading, code = result.stdout.splitlines()
    assert heading.startswith("model,predictor")
    assert code in ("0", "1", "141")  # how far it got before the pipe was closed is up to the system
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_memory_and_size_are_columns_and_a_line_of_explain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = IrBuilder((1, 16, 16, 8))
    builder.unary("act", "Relu", "input")
    model = write_ir(tmp_path / "model.json", builder.nodes)
    assert main(["predict", str(model), "--predictor", CPU, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert main(["predict", str(model), "--predictor", CPU, "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    both = 2 * 4 * 16 * 16 * 8  # nothing overwrites the input of a model
    for name, told in {"memory_bytes": both, "memory_tflite_bytes": both, "size_bytes": 0}.items():
        assert (record[name], row[name]) == (told, str(told))
    assert main(["explain", str(model), "--predictor", CPU]) == 0
    assert "activations take at most 0.0164 MB at a time (0.0164 MB in" in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "times"), [([], 0), (["--json"], 1), (["--journal", "journal"], 1)])
def test_memory_is_found_once_a_model_and_only_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], times: int
) -> None:
    found: Counter[MemoryRules] = Counter()

    def counted(graph: nx.DiGraph, rules: MemoryRules) -> dict[str, int]:
        found[rules] += 1
        return memory_by_operator(graph, rules)

    monkeypatch.setattr("nnmeter_nas.graph.memory.memory_by_operator", counted)
    monkeypatch.chdir(tmp_path)
    model = write_ir(tmp_path / "model.json")
    assert main(["predict", str(model), "--predictor", "all", *flags]) == 0
    assert found == Counter({ONNXRUNTIME: times, TFLITE: times})


def test_an_estimated_type_is_a_warning_a_column_and_under_strict_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = IrBuilder((1, 16, 16, 8))
    builder.unary("act", "Sigmoid", "input")
    model = write_ir(tmp_path / "model.json", builder.nodes)
    assert main(["predict", str(model), "--predictor", CPU, "--json"]) == 0
    out, err = capsys.readouterr()
    assert f"1 kernel(s) are estimated on {CPU} (100.0% of the latency)" in err
    [record] = json.loads(out)
    assert (record["estimated"], record["estimated_share"]) == ({"act": "sigmoid"}, 1.0)
    assert record["unpredicted"] == {}
    assert main(["predict", str(model), "--predictor", CPU, "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["estimated_share"], row["extrapolated_share"]) == ("1.0", "0.0")
    assert main(["predict", str(model), "--predictor", CPU, "--strict"]) == 1
    assert "act (sigmoid)" in capsys.readouterr().err
