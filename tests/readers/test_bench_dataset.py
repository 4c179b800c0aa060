"""Bench dataset: official files are streamed line by line, and errors name the malformed line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ir import small_cnn
from nnmeter_nas import read_model
from nnmeter_nas.benchmarks.packs import kernel_table
from nnmeter_nas.errors import DatasetError
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, family_of, iter_models
from synthetic_bench import CPU, VPU, write_bench


def line(**changes: Any) -> str:
    """One model in the official schema; changing an entry to ``...`` removes it."""
    record = {"id": "net_0", CPU: 12.5, VPU: None, "graph": small_cnn(blocks=1), **changes}
    return json.dumps({key: value for key, value in record.items() if value is not ...}) + "\n"


def test_model_has_id_family_graph_and_measured_latencies(tmp_path: Path) -> None:
    path = tmp_path / "nets.jsonl"
    path.write_text(line() + "\n" + line(id="net_1"), encoding="utf-8")
    first, second = iter_models(path)
    assert (first.id, second.id) == ("net_0", "net_1")
    assert first.family == family_of(path) == "net"
    assert first.latency_ms == {CPU: 12.5}
    assert read_model(first.graph).nodes["fc"]["out_shapes"] == [(1, 10)]


def test_official_files_of_every_family_are_read(bench_dir: Path) -> None:
    files = dataset_files(bench_dir)
    assert len(files) == 13
    for path in files:
        models = list(iter_models(path))
        assert models
        for model in models:
            graph = read_model(model.graph, "nnmeter-ir")
            assert not graph.graph["shape_mismatches"], (
                f"{model.id}: inferred shapes differ from the traced ones"
            )
            assert set(model.latency_ms) <= set(devices())
            assert all(ms > 0 for ms in model.latency_ms.values())


def test_file_larger_than_memory_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "nets.jsonl"
    text = line()
    count = 20_000_000 // len(text)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(text)
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_models(path)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 10


def test_models_before_a_malformed_line_are_still_yielded(tmp_path: Path) -> None:
    path = tmp_path / "nets.jsonl"
    path.write_text(line() + line()[:-20] + "\n" + line(), encoding="utf-8")
    models = iter_models(path)
    assert next(models).id == "net_0"
    with pytest.raises(DatasetError, match=r"nets\.jsonl:2: "):
        next(models)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "3",
        "null",
        '"text"',
        "{}",
        line(id=...),
        line(graph=...),
        line(graph=None),
        line(graph="a graph"),
        line(**{CPU: "fast"}),
        line(**{CPU: [1.0]}),
        line(**{CPU: -1.0}),
        line(**{CPU: 0}),
        line(**{CPU: float("nan")}),
        line(**{CPU: float("inf")}),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_error_names_file_and_number_of_a_malformed_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "nets.jsonl"
    text = line() + "\n" + content.rstrip("\n") + "\n"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(DatasetError, match=r"nets\.jsonl:3: not a model of the official schema"):
        list(iter_models(path))


def test_error_for_a_folder_without_dataset_says_which_files_it_needs(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match=r"<family>s\.jsonl.*datasets\.zip"):
            dataset_files(folder)


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absents\.jsonl"):
        list(iter_models(tmp_path / "absents.jsonl"))


def test_changed_dataset_is_detected(tmp_path: Path) -> None:
    write_bench(tmp_path, models=20)
    before = kernel_table.dataset_fingerprint(tmp_path)
    assert kernel_table.dataset_fingerprint(tmp_path) == before
    path = tmp_path / "wideceptions.jsonl"
    content = bytearray(path.read_bytes())
    position = content.rindex(b'"cortexA76cpu_tflite21": ') + 26
    content[position] = ord("7") if content[position] != ord("7") else ord("8")
    path.write_bytes(content)
    assert kernel_table.dataset_fingerprint(tmp_path) != before, "a changed figure is not detected"
