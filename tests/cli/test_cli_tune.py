"""``nnmeter-nas tune`` as a user runs it: a tiny model, a few trials, killed, and more of them later."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="the extra 'tvm' is not installed")
pytest.importorskip("xgboost")
pytest.importorskip("onnx")

import onnx

from commands import Command
from nnmeter_nas.backends.tvm.records import FAILED, open_records, seconds_of, trials_of
from nnmeter_nas.backends.tvm.search import fingerprint
from nnmeter_nas.cli import main
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.readers.onnx.writer import to_onnx

pytestmark = pytest.mark.tvm


def model(features: int) -> bytes:
    """A dense layer and a ReLU."""
    graph = new_graph("model")
    add_input(graph, "x", (1, 128))
    add_op(graph, "fc", "fc", ["x"], {"out_features": features})
    add_op(graph, "relu", "relu", ["fc"])
    return to_onnx(finish(graph))


def lines(path: Path) -> list[str]:
    """The complete lines of a file, which need not exist."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.timeout(1800)
def test_a_tuning_that_is_killed_goes_on_and_its_results_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(model(256))
    Path("other.onnx").write_bytes(model(192))
    recorded, told = Path("tuned/records/database_tuning_record.json"), Path("tuned/trials.jsonl")
    killed = Command(tmp_path, "tune", "model.onnx", "--trials", "1000", "-o", "tuned")
    try:
        killed.wait_until(lambda: len(lines(recorded)) >= 4)  # the kernel as it comes, and three trials
    finally:
        killed.process.kill()
        killed.end()
    kept, before = lines(recorded), lines(told)
    made = len(kept) - 1

    assert main(["tune", "model.onnx", "--trials", str(made + 4), "-o", "tuned"]) == 0
    said = capsys.readouterr()
    assert "4 trials of 1 kernels to go" in said.err
    assert f"{made + 4} of {made + 4} trials" in said.err
    assert "times as fast" in said.out
    assert "fc, relu" in said.out
    assert lines(recorded)[: len(kept)] == kept, "nothing is lost"
    trials = trials_of(open_records(recorded.parent).get_all_tuning_records())
    schedules = {fingerprint(one.as_measure_candidate()) for one in trials}
    assert len(schedules) == len(trials) == made + 4, "nothing is repeated"
    assert lines(told)[: len(before)] == before
    times = [json.loads(line) for line in lines(told)[1:]]
    assert (times[0]["trials"], times[-1]["trials"]) == (0, made + 4)
    assert 0 < times[-1]["best_ms"] < times[0]["best_ms"], "loops as they come are slow"

    assert Path("tuned/trials.png").read_bytes().startswith(b"\x89PNG")
    ran = subprocess.run([sys.executable, "tuned/run.py"], check=True, capture_output=True, text=True)
    assert "[[" in ran.stdout
    with pytest.raises(SystemExit):
        main(["tune", "other.onnx", "-o", "tuned"])
    assert "--output tuned holds trials of another model" in capsys.readouterr().err


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("trials", [0, 5])
def test_ctrl_c_ends_it_after_a_whole_trial(tmp_path: Path, trials: int) -> None:
    (tmp_path / "model.onnx").write_bytes(model(256))
    recorded = tmp_path / "tuned" / "records" / "database_tuning_record.json"
    command = Command(tmp_path, "tune", "model.onnx", "--trials", "1000", "-o", "tuned")
    try:
        command.wait_until(lambda: len(lines(recorded)) >= 1 + trials)
        command.process.send_signal(signal.SIGINT)
    except BaseException:
        command.process.kill()
        raise
    code, printed, errors = command.end()
    assert (code, printed) == (130, "")
    assert errors.endswith("interrupted; all trials are kept in tuned, and the same command goes on\n")
    found = open_records(recorded.parent).get_all_tuning_records()
    assert len(found) == len(lines(recorded)) <= 3 + trials
    assert all(seconds_of(one.run_secs) < FAILED for one in found), "none is taken for one that does not run"


def of_another_writer(path: Path, features: int | str = 64) -> None:
    """Two products of matrices, one named as torch does it and one without a name, and a batch left open."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "large"], ["hidden"], "/first/MatMul"),
        onnx.helper.make_node("Relu", ["hidden"], ["positive"], "/first/Relu"),
        onnx.helper.make_node("MatMul", ["positive", "small"], ["y"]),
    ]
    weights = {"large": (64, 512), "small": (512, 4)}
    constants = [
        onnx.numpy_helper.from_array(np.random.default_rng(0).random(shape, dtype=np.float32) - 0.5, name)
        for name, shape in weights.items()
    ]
    given, result = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", features), ("y", 4))
    )
    graph = onnx.helper.make_graph(nodes, "model", [given], [result], constants)
    opset = onnx.helper.make_opsetid("", 18)
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString())


@pytest.mark.timeout(1800)
def test_the_table_has_the_names_of_nodes_of_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    of_another_writer(Path("model.onnx"))
    assert main(["tune", "model.onnx", "--trials", "4"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["/first/MatMul, /first/Relu", "MatMul 3"]
    (_, _, before, after, gain), (_, _, still, same, remark) = rows
    assert 0 < float(after) < float(before)
    assert float(gain) > 1
    assert (same, remark) == (still, "as it was")


@pytest.mark.timeout(1800)
def test_sizes_that_a_model_leaves_open_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    of_another_writer(Path("model.onnx"), "features")
    assert main(["tune", "model.onnx"]) == 1
    assert "input 'x' leaves dimension 1 open; pass --input-shape, for example" in capsys.readouterr().err
    assert main(["tune", "model.onnx", "--input-shape", "1", "3", "64"]) == 1
    assert "input 'x' has 2 dimensions, not those of --input-shape 1 3 64" in capsys.readouterr().err
    assert not Path("tuned").exists()
    assert main(["tune", "model.onnx", "--input-shape", "3", "64", "--trials", "1"]) == 0
    assert "for shape in [[3, 64]]" in Path("tuned/run.py").read_text()


def test_what_tvm_cannot_compile_is_told_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 4])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Det", ["x"], ["y"])], "model", [given], [result])
    opset = onnx.helper.make_opsetid("", 18)
    Path("model.onnx").write_bytes(onnx.helper.make_model(graph, opset_imports=[opset]).SerializeToString())
    assert main(["tune", "model.onnx"]) == 1
    assert "error: TVM cannot compile this model: The following operators" in capsys.readouterr().err
    assert not Path("tuned").exists()
    assert main(["tune", "model.onnx", "-o", "file"]) == 1
    assert "error: file is a file; name a folder" in capsys.readouterr().err
