"""`get_ir`: the file lies where nn-Meter puts it, and predicts what the model does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ir import small_cnn
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main

CPU = "cortexA76cpu_tflite21"


def latency(path: Path) -> float:
    """On one device, in ms."""
    return load_latency_predictor(CPU).predict(path)


@pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")  # it is a small network
def test_onnx_model_becomes_ir_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    from onnx_models import layer, weights

    path = tmp_path / "net.onnx"
    conv = layer("Conv", {"weight": weights(4, 8, 3, 3)}, strides=[2, 2], pads=[1, 1, 1, 1])
    path.write_bytes(conv.SerializeToString())
    assert main(["get_ir", "--onnx", str(path)]) == 0
    saved = tmp_path / "net_onnx_ir.json"
    assert str(saved) in capsys.readouterr().out
    ir = json.loads(saved.read_text(encoding="utf-8"))
    assert {record["attr"]["type"] for record in ir.values()} == {"Placeholder", "Conv2D", "Tanh"}
    assert latency(saved) == latency(path)


def test_tensorflow_graph_becomes_ir_beside_it(tmp_path: Path) -> None:
    graph_pb2 = pytest.importorskip("tensorboard.compat.proto.graph_pb2")
    graph = graph_pb2.GraphDef()
    image = graph.node.add(name="image", op="Placeholder")
    image.attr["dtype"].type = 1
    for size in (1, 16, 16, 8):
        image.attr["shape"].shape.dim.add(size=size)
    graph.node.add(name="act", op="Relu6", input=["image"])
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph.SerializeToString())
    assert main(["get_ir", "--tensorflow", str(path)]) == 0
    ir = json.loads((tmp_path / "frozen_pb_ir.json").read_text(encoding="utf-8"))
    assert [record["attr"]["output_shape"] for record in ir.values()] == [[[1, 16, 16, 8]]] * 2


@pytest.mark.parametrize(("given", "written"), [("out.json", "out.json"), ("out", "out.json")])
def test_output_is_where_it_was_asked_for(tmp_path: Path, given: str, written: str) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(small_cnn()), encoding="utf-8")
    assert main(["get_ir", "--nn-meter-ir", str(model), "-o", str(tmp_path / given)]) == 0
    assert latency(tmp_path / written) == latency(model)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", written}


def test_models_of_a_folder_come_out_one_by_one_and_a_broken_one_fails_alone(
    tmp_path: Path, bench_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(small_cnn()), encoding="utf-8")
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    line = (bench_dir / "squeezenets.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / "c.jsonl").write_text(line, encoding="utf-8")
    assert main(["get_ir", str(tmp_path)]) == 1
    assert str(tmp_path / "b.json") in capsys.readouterr().err
    written = {path.name for path in tmp_path.iterdir()} - {"a.json", "b.json", "c.jsonl"}
    assert written == {"a_ir.json", f"c_{json.loads(line)['id']}_ir.json"}


def test_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps(small_cnn()), encoding="utf-8")
    target = tmp_path / "file" / "out.json"
    target.parent.write_text("in the way", encoding="utf-8")
    assert main(["get_ir", str(model), "-o", str(target)]) == 1
    assert "error: " in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["file", "model.json"]
