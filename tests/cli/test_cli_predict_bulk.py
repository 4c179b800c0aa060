"""`predict` of many models: on workers, with a journal, into Parquet; nothing lost, nothing twice."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bulk_tasks
from ir import small_cnn
from nnmeter_nas.cli import main, models, outcomes, predict
from nnmeter_nas.journal import read_journal
from synthetic_bench import write_bench

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"

DIE_AT_THE_FOURTH = """
import os, signal, sys
from nnmeter_nas.cli import main, outcomes

def dying(source, order):
    seen.append(source)
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(source, order)

seen, predict, outcomes._predict_source = [], outcomes._predict_source, dying
main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six models, the second of them broken."""
    found = tmp_path / "models"
    found.mkdir()
    for number in range(6):
        ir = json.dumps(small_cnn(8 + 8 * number, blocks=1))
        (found / f"{number}.json").write_text(ir[:50] if number == 1 else ir, encoding="utf-8")
    return found


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that this process has predicted so far."""
    names: list[str] = []
    original = outcomes._predict_source

    def noted(source: models.Source, order: outcomes.Order) -> outcomes.Done:
        names.append(Path(source.name).name)
        return original(source, order)

    monkeypatch.setattr(outcomes, "_predict_source", noted)
    return names


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


# --- Workers ---


@pytest.mark.timeout(120)
def test_workers_print_what_this_process_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("joblib")
    command = ["predict", str(folder), "--predictor", CPU, GPU, "--json"]
    assert main(command) == 1
    expected = capsys.readouterr()
    assert len(json.loads(expected.out)) == 12
    assert main([*command, "--jobs", "2"]) == 1
    assert capsys.readouterr() == expected


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_file_that_kills_its_worker_fails_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("joblib")
    (folder / "killer.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(models, "_CHUNKS", 1)  # all files are one chunk, which is taken apart
    monkeypatch.setattr(outcomes, "_predict_chunk", bulk_tasks.predict_chunk_or_die)
    journal = folder.parent / "journal"
    command = ["predict", str(folder), "--predictor", CPU, "--json", "--jobs", "2", "--journal", str(journal)]
    assert main(command) == 1
    out, err = capsys.readouterr()
    errors = {Path(record["model"]).name: record["error"] for record in json.loads(out)}
    assert list(errors) == [*(f"{number}.json" for number in range(6)), "killer.json"]
    assert "its worker dies" in errors["killer.json"]
    assert f"error: {folder / 'killer.json'}: its worker dies" in err
    assert [name for name, error in errors.items() if error] == ["1.json", "killer.json"]
    kept = [Path(record["source"][0]).name for record in read_journal(journal)[1:]]
    assert kept == [f"{number}.json" for number in range(6)], "memory may not be short next time"


def test_a_worker_in_another_folder_finds_the_files_and_names_them_as_the_user_did(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = [models.Source(f"models/{number}.json", "nnmeter-ir") for number in range(2)]
    order = outcomes.Order(
        models.Models(sources, str(tmp_path), None), (), strict=False, verbose=False, sized=True
    )
    here = outcomes._predict_chunk(order)
    monkeypatch.chdir(folder)
    assert outcomes._predict_chunk(order) == here
    assert here[0].stamp is not None
    [complaint] = here[1].outcomes[0].messages
    assert complaint.startswith("error: models/1.json is not valid JSON")


# --- A journal ---


def test_command_that_was_killed_goes_on_where_it_was(
    folder: Path, predicted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out, journal = (folder.parent / name for name in ("whole.csv", "out.csv", "journal"))
    command = ["predict", str(folder), "--predictor", CPU]
    assert main([*command, "-o", str(whole)]) == 1
    expected = capsys.readouterr().err.replace(str(whole), str(out))
    assert predicted == []
    command += ["-o", str(out), "--journal", str(journal)]
    killed = subprocess.run([sys.executable, "-c", DIE_AT_THE_FOURTH, *command], check=False)
    assert killed.returncode < 0
    journal.write_bytes(journal.read_bytes()[:-20])  # as a crash of the machine may leave it
    left = {path.name for path in folder.parent.iterdir()}
    assert left == {"models", "whole.csv", "journal", ".journal.lock"}, "no half-written file lies about"
    assert main([*command]) == 1
    assert predicted == ["2.json", "3.json", "4.json", "5.json"]
    assert rows_of(out) == rows_of(whole)
    assert capsys.readouterr().err == expected
    predicted.clear()
    assert main([*command]) == 1
    assert predicted == []
    assert rows_of(out) == rows_of(whole)


def test_files_that_change_between_runs_are_told_from_those_that_stay(
    folder: Path, predicted: list[str]
) -> None:
    out, journal = folder / "out.csv", folder / "journal.jsonl"  # neither is a model, though they lie here
    command = ["predict", str(folder), "--predictor", CPU, "-o", str(out), "--journal", str(journal)]
    assert main(command) == 1
    predicted.clear()
    (folder / "1.json").write_text(json.dumps(small_cnn(16)), encoding="utf-8")
    (folder / "2.json").unlink()
    (folder / "6.json").write_text(json.dumps(small_cnn(24)), encoding="utf-8")
    assert main(command) == 0
    assert sorted(predicted) == ["1.json", "6.json"]
    names = sorted(Path(row["model"]).name for row in rows_of(out))
    assert names == [f"{number}.json" for number in (0, 1, 3, 4, 5, 6)]


def test_error_that_is_not_the_models_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from onnx_models import model, node

    path, journal = tmp_path / "net.onnx", tmp_path / "journal"
    path.write_bytes(model([node("Relu", "x", "y")]).SerializeToString())
    command = ["predict", str(path), "--predictor", CPU, "--journal", str(journal)]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnx", None)
        assert main(command) == 1
    assert len(read_journal(journal)) == 1
    assert main(command) == 0
    assert len(read_journal(journal)) == 2


def test_journal_of_other_flags_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], refused: Callable[[list[str], str], None]
) -> None:
    journal = folder.parent / "journal"
    command = ["predict", str(folder / "0.json"), "--journal", str(journal)]
    assert main([*command, "--predictor", CPU]) == 0
    capsys.readouterr()
    refused([*command, "--predictor", GPU], f"--journal {journal} was begun with other predictors")
    command += ["--predictor", CPU, "--input-shape", "1", "3", "64", "64"]
    refused(command, "was begun without --input-shape;")
    refused([*command[:-5], "--strict"], f"--journal {journal} was begun without --strict;")
    refused(["lat_pred", *command[1:-5]], f"--journal {journal} was begun by predict;")


def test_a_folder_or_a_damaged_file_is_no_journal(
    folder: Path, capsys: pytest.CaptureFixture[str], refused: Callable[[list[str], str], None]
) -> None:
    command = ["predict", str(folder / "0.json"), "--journal"]
    refused([*command, str(folder)], f"--journal: {folder} is a folder; name a file in it")
    damaged = folder.parent / "journal"
    damaged.write_text("no JSON\n")
    assert main([*command, str(damaged)]) == 1
    assert "restore it, or start anew with another file or folder" in capsys.readouterr().err


def test_large_file_of_one_model_a_line_is_several_sources_and_a_bad_line_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predicted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = min(write_bench(tmp_path, models=6).glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"nonsense\n", *lines[2:]]))
    monkeypatch.setattr(models, "_RANGE_BYTES", len(lines[0]) * 2)
    command = ["predict", str(path), "--predictor", CPU, "--json"]
    assert main(command) == 1
    expected = json.loads(capsys.readouterr().out)
    assert [Path(record["model"]).name for record in expected] == [
        f"{path.name}:{json.loads(line)['id']}" if line else path.name
        for line in [*lines[:2], None, *lines[2:]]
    ]
    assert f"{path}:3: not a model" in expected[2]["error"]
    assert main([*command, "--journal", str(tmp_path / "journal")]) == 1
    assert json.loads(capsys.readouterr().out) == expected
    assert len(predicted) >= 3


# --- Parquet ---


def test_parquet_holds_what_json_does(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    named = folder / "caf\udce9.json"  # a file's name need not be text
    named.write_bytes((folder / "0.json").read_bytes())
    table, records = tmp_path / "out.parquet", tmp_path / "out.json"
    command = ["predict", str(folder), "--predictor", CPU, GPU, "-o"]
    assert main([*command, str(table)]) == main([*command, str(records)]) == 1
    found = parquet.read_table(table)
    expected: list[dict[str, Any]] = json.loads(records.read_text(encoding="utf-8"))
    for record in expected:
        record["model"] = record["model"].replace("\udce9", "\\udce9")
    assert found.to_pylist() == [{name: record[name] for name in found.column_names} for record in expected]
    types = {str(field.type) for field in found.schema if field.name.endswith(("_ms", "_share"))}
    assert types == {"double"}


def test_columns_of_a_parquet_file_keep_their_types_though_the_first_rows_are_empty(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("nnmeter_nas.cli.results._ROWS", 1)
    (folder / "0.json").write_text("{", encoding="utf-8")
    out = tmp_path / "out.parquet"
    assert main(["predict", str(folder), "--predictor", CPU, "-o", str(out)]) == 1
    assert [ms is not None for ms in parquet.read_table(out).column("latency_ms").to_pylist()] == [
        False, False, True, True, True, True,
    ]  # fmt: skip
    assert parquet.ParquetFile(out).metadata.num_row_groups == 6


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["explain", "MODEL", "--top", "2"], 2),
        (["lut", "rank", "spos", "--top", "3"], 3),
        (["lut", "show", "nasbench201"], 31),
    ],
)
def test_other_tables_go_to_parquet_too(command: list[str], rows: int, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    words = [str(folder / "0.json") if word == "MODEL" else word for word in command]
    assert main([*words, "--predictor", CPU, "-o", str(out)]) == 0
    found = parquet.read_table(out)
    assert found.num_rows == rows
    assert found.column("predictor").to_pylist() == [CPU] * rows


def test_missing_pyarrow_is_told_before_anything_is_predicted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["predict", str(folder), "-o", str(tmp_path / "out.parquet")]) == 1
    [complaint] = capsys.readouterr().err.splitlines()
    assert "Parquet files needs the package 'pyarrow': pip install 'nnmeter_nas[parquet]'" in complaint
    assert not (tmp_path / "out.parquet").exists()


# --- What people see ---


def test_more_errors_than_anyone_reads_are_left_to_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "_MESSAGES", 1)
    for number in (2, 3):
        (folder / f"{number}.json").write_text("{", encoding="utf-8")
    command, out = ["predict", str(folder), "--predictor", CPU, "--csv"], folder.parent / "out.csv"
    assert main([*command, "-o", str(out)]) == 1
    first, more, saved = capsys.readouterr().err.splitlines()
    assert f"{folder / '1.json'} is not valid JSON" in first
    assert "2 more warnings and errors" in more
    assert saved.endswith(f"saved {out}")
    assert [bool(row["error"]) for row in rows_of(out)] == [False, True, True, True, False, False]
    assert main(command) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_terminal_shows_how_fast_it_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich asks the stream in its own way
    for number in range(6, 12):
        (folder / f"{number}.json").write_bytes((folder / "0.json").read_bytes())
    assert main(["predict", str(folder), "--predictor", CPU, "--csv"]) == 1
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"models .* 12/12 [\d.]+/s \d:\d\d:\d\d", shown)
