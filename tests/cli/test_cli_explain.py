"""`explain`: the kernels add up, the costliest are shown, and the chart is a picture of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

import onnx_models
from ir import IrBuilder, small_cnn
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main
from nnmeter_nas.cli.runs import FOOTPRINT

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """nn-Meter IR of a small network."""
    path = tmp_path / "model.json"
    path.write_text(json.dumps(small_cnn()), encoding="utf-8")
    return path


def test_table_lists_every_kernel_in_its_order(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(model), "--predictor", CPU]) == 0
    printed = capsys.readouterr().out
    places = [printed.index(name) for name in ("stem", "b0/expand", "b1/depthwise", "fc")]
    assert places == sorted(places)


def test_records_of_kernels_add_up_to_the_prediction(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(model), "--predictor", CPU, GPU, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["predictor"] for record in records] == [CPU, GPU]
    for record in records:
        latency = load_latency_predictor(record["predictor"]).predict(model)
        assert record["latency_ms"] == latency
        assert sum(kernel["ms"] for kernel in record["kernels"]) == pytest.approx(latency)
        assert sum(kernel["share"] for kernel in record["kernels"]) == pytest.approx(1)
    assert main(["explain", str(model), "--predictor", CPU, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["kernel"] for row in rows] == [kernel["kernel"] for kernel in records[0]["kernels"]]
    assert {row["model"] for row in rows} == {str(model)}
    assert rows[0]["input"] == "1x3x32x32"


def test_kernels_tell_their_memory_and_size(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(model), "--predictor", CPU, GPU, "--json"]) == 0
    for record in json.loads(capsys.readouterr().out):
        kernels = record["kernels"]
        for name in ("memory_bytes", "memory_tflite_bytes"):
            assert max(kernel[name] for kernel in kernels) == record[name]
        assert sum(kernel["size_bytes"] for kernel in kernels) == record["size_bytes"] > 0
        first = kernels[0]
        assert first["memory_bytes"] == 4 * (3 * 32 * 32 + 8 * 16 * 16)  # input and result
    assert main(["explain", str(model), "--predictor", CPU, "--csv"]) == 0
    row = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {name: row[name] for name in FOOTPRINT} == {name: str(first[name]) for name in FOOTPRINT}


def test_top_shows_the_costliest_and_sums_up_the_rest(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(model), "--predictor", CPU, "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    costs = sorted((kernel["ms"] for kernel in record["kernels"]), reverse=True)
    assert main(["explain", str(model), "--predictor", CPU, "--json", "--top", "3"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert [kernel["ms"] for kernel in record["kernels"]] == costs[:3]
    assert main(["explain", str(model), "--predictor", CPU, "--top", "3"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(costs) - 3} more" in printed
    assert f"{sum(costs[3:]):.4f}" in printed


def model_of_unknown_size() -> onnx.ModelProto:
    """An operator that nobody knows behind a convolution."""
    nodes = [
        onnx_models.node("Conv", "x w", "y0"),
        onnx_models.node("Odd", "y0", "y", name="odd", domain="com.example"),
    ]
    constants = {"w": onnx_models.weights(8, onnx_models.IMAGE[1], 3, 3)}
    domains = [helper.make_opsetid("com.example", 1)]
    return onnx_models.model(nodes, constants, outputs={"y": None}, domains=domains)


def test_operator_that_is_not_predicted_is_in_table_and_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(model_of_unknown_size(), path)
    assert main(["explain", str(path), "--predictor", CPU, "--plot", str(tmp_path / "odd.png")]) == 0
    assert "not predicted: 1 operator(s), onnx_com.example.odd; their share of the work is unknown" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert main(["explain", str(path), "--predictor", CPU, "--csv"]) == 0
    [row] = [r for r in csv.DictReader(io.StringIO(capsys.readouterr().out)) if r["kernel"] == "odd"]
    assert row["ms"] == row["share"] == row["memory_bytes"] == row["size_bytes"] == ""


@pytest.mark.parametrize("devices", [[CPU], [CPU, GPU, "myriadvpu_openvino2019r2"]])
def test_chart_is_an_image_with_bars(
    model: Path, devices: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    chart = model.with_name("kernels.png")
    assert main(["explain", str(model), "--predictor", *devices, "--plot", str(chart), "--top", "5"]) == 0
    assert f"saved {chart}" in capsys.readouterr().err
    image = imread(chart)
    assert image.shape[0] > 300
    assert image.shape[1] > 1000 * min(2, len(devices))
    white = (image[..., :3] > 0.99).all(axis=-1).mean()
    assert 0.3 < white < 0.98


def test_chart_cuts_no_text(model: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    long = model.with_name(f"{'a_long_name_' * 9}.json")
    model.rename(long)
    chart = model.with_name("kernels.png")
    assert main(["explain", str(long), "--predictor", CPU, GPU, "--plot", str(chart)]) == 0
    image = imread(chart)[..., :3]
    middle = image.shape[1] // 2
    gap = image[:, middle - 80 : middle + 80]
    assert image[:, [0, 1, -2, -1]].min() > 0.8  # nothing is drawn at the left and right edges
    below = gap[-50:]  # notes of neighbours do not run into one another
    assert (below.min(axis=(0, 2)) > 0.8).any()


def test_two_models_are_told_apart_and_a_broken_one_fails_alone(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a long path would be broken in two
    broken = model.with_name("broken.json")
    broken.write_text("[]", encoding="utf-8")
    assert main(["explain", str(broken), str(model), "--predictor", CPU]) == 1
    out, err = capsys.readouterr()
    assert str(model) in out
    assert str(broken) not in out
    assert str(broken.name) in err


def test_an_estimated_kernel_is_marked_in_every_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = IrBuilder((1, 16, 16, 8))
    builder.unary("act", "Sigmoid", "input")
    path = tmp_path / "model.json"
    path.write_text(json.dumps(builder.nodes), encoding="utf-8")
    for options in ([], ["--top", "1"]):
        assert main(["explain", str(path), "--predictor", CPU, *options]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert " ~ " in printed
        assert "~ estimated, as sigmoid was never measured on the device: 100.0% of the latency" in printed
    assert main(["explain", str(path), "--predictor", CPU, "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["estimated"], row["extrapolated"]) == ("True", "False")
