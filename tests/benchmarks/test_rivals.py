"""The page that compares tools: its cells say what was measured, and when; parts are measured alone."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

pytest.importorskip("torch")
pytest.importorskip("psutil")

from layout import REPOSITORY
from nnmeter_nas.benchmarks.__main__ import RIVAL_PARTS, RIVALS, main
from nnmeter_nas.benchmarks.networks.files import network_graph
from nnmeter_nas.benchmarks.rivals.cells import Cell
from nnmeter_nas.benchmarks.rivals.comparison import PARTS, Environments, load_results, run_comparison
from nnmeter_nas.benchmarks.rivals.kept import kept_cells
from nnmeter_nas.benchmarks.rivals.models import write_models
from nnmeter_nas.benchmarks.rivals.page import TOOLS, cells, table
from nnmeter_nas.benchmarks.rivals.proportional import best_scale, judge, within
from nnmeter_nas.benchmarks.rivals.published import PUBLISHED
from nnmeter_nas.benchmarks.rivals.tools import Ours
from nnmeter_nas.benchmarks.rivals.trying import tried, try_tool
from nnmeter_nas.benchmarks.speed.figures import MeasurementError
from nnmeter_nas.errors import DatasetError, ReaderError
from nnmeter_nas.graph.work import flops
from nnmeter_nas.readers import read_model
from synthetic_bench import CPU, write_bench

COUNTERS = REPOSITORY / ".venv-flops"
MACHINE = {
    "cores": 2, "cpu": "a CPU", "memory_gib": 8, "system": "Linux", "load_before": 0, "python": "3.11",
    "packages": {"numpy": "2"}, "rivals": {},
}  # fmt: skip


def machine(day: str) -> dict[str, Any]:
    return {**MACHINE, "date": f"{day}T10:00+00:00"}


def answered(ms: float, *beyond: str, flops: float = 100.0) -> dict[str, Any]:
    return {"ms": ms, "value": 1.0, "beyond": list(beyond), "flops": flops}


FAILED = {"error": "RuntimeError: no"}
RESULTS: dict[str, Any] = {
    "tried": {
        "nnmeter_nas": {
            "machine": machine("2026-01-02"),
            "predicts": ["latency", "memory"],
            "sources": {
                "torch": {"a": answered(2), "b": answered(4), "c": answered(99, flops=103)},
                "onnx": {"a": answered(1), "b": answered(1, "gelu"), "c": answered(1, "matmul", "gelu")},
            },
        },
        "nn-meter": {
            "machine": machine("2026-01-03"),
            "predicts": ["latency"],
            "sources": {
                "torch": {"a": answered(200), "b": answered(400), "c": FAILED},
                "torch, as released": {"a": FAILED, "b": FAILED},
                "onnx": {"a": answered(10), "b": FAILED, "c": FAILED},
            },
        },
        "fvcore": {
            "machine": machine("2026-01-04"),
            "predicts": ["FLOPs"],
            "sources": {"torch": {"a": answered(6), "b": answered(8), "c": answered(9)}},
        },
    },
    "right": {
        "flops": {
            "machine": machine("2026-01-05"),
            "of_each": 300,
            "devices": {
                "cortexA76cpu_tflite21": {
                    "new": {"within_10": 12.34, "spearman": 0.5, "models": 1200}, "families": 7.0,
                },
                "adreno640gpu_tflite21": {
                    "new": {"within_10": 50, "spearman": 0.75, "models": 1100}, "families": None,
                },
            },
        }
    },
    "needs": {
        "nn-meter": {
            "machine": machine("2026-01-06"), "packages": {"nn-meter": 1.0, "onnx": 1999.0}, "also": ["onnx"],
            "requires_python": None,
        }
    },
}  # fmt: skip


def test_each_cell_says_what_came_of_it_and_when() -> None:
    found = {place: cell.shown for place, cell in cells(RESULTS).items()}
    assert found["reads torch", "nnmeter_nas"] == "3 of 3 (2026-01-02)"
    assert found["reads torch", "nn-meter"] == (
        "2 of 3 (not c) with patches, as torch changed; 0 of 2 as released (2026-01-03)"
    )
    assert found["reads onnx", "nn-meter"] == "1 of 3 (2026-01-03)", "most failed, so that none is named"
    assert found["beyond", "nnmeter_nas"] == (
        "in 2 of 3 ONNX files; estimated, and said: gelu, matmul (2026-01-02)"
    )
    assert found["beyond", "nn-meter"] == (
        "in 0 of 1 ONNX files; left out of the sum, and not said (2026-01-03)"
    )
    assert found["flops", "nnmeter_nas"] == "2 of 3 (not c) (2026-01-02)"
    right = (
        "cortexA76 12.3 % (Spearman 0.500), adreno640 50.0 % (Spearman 0.750) within ±10 %, of 1,100 to "
        "1,200 models held out, of the first 300 of each family; a latency proportional to FLOPs"
    )
    assert found["new", "torchinfo"].startswith(right)
    assert found["families", "fvcore"].endswith("fitted to the other models (2026-01-05)")
    assert found["needs", "nn-meter"] == "2 packages, 2,000 MB; does not declare onnx (2026-01-06)"
    assert found["python", "nn-meter"] == "not declared (2026-01-06)"
    assert found["families", "nn-meter"].startswith("not measured: ")


def test_times_are_of_the_models_that_all_tools_read() -> None:
    found = {place: cell.text for place, cell in cells(RESULTS).items()}
    assert found["ms torch", "nnmeter_nas"] == "3 ms, median of 2"
    assert found["ms torch", "nn-meter"] == "300 ms, median of 2"
    assert found["ms torch", "fvcore"] == "7 ms, median of 2"
    assert found["ms onnx", "nnmeter_nas"] == "1 ms, median of 1"


def test_the_table_has_a_column_for_each_tool_and_the_machines_below() -> None:
    lines = table({("new", "litepred"): Cell("all", "a paper, 2024")}, RESULTS)
    head, _, *rows = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in (head, *rows)} == {len(TOOLS) + 2}
    [row] = [row for row in rows if "**right**" in row]
    assert row == "| **right**: whole models | – | – | – | all (a paper, 2024) | – | – |"
    assert len([line for line in lines if line.startswith("Measured 2026-01-0")]) == 5


def test_a_machine_is_told_once_with_the_rows_that_it_measured() -> None:
    busy = {**machine("2026-01-02"), "load_before": 3}
    right = {"flops": {**RESULTS["right"]["flops"], "machine": busy}}
    lines = table({}, {**RESULTS, "right": right})
    [line] = [line for line in lines if line.startswith("Measured 2026-01-02")]
    assert "how fast it is, of nnmeter_nas (load 0 before); how right it is (load 3 before, a busy" in line


def test_what_was_published_names_its_source_and_year() -> None:
    for (_, tool), one in PUBLISHED.items():
        assert tool in TOOLS
        assert "https://" in one.source
        assert one.source.rstrip()[-4:] in ("2021", "2024")


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    results = load_results(REPOSITORY / "benchmarks" / "results" / "comparison.json")
    text = (REPOSITORY / "docs" / "comparison.md").read_text(encoding="utf-8")
    assert [cell.shown for cell in cells(results).values() if f"| {cell.shown} |" not in text] == []


def test_figures_of_other_commands_keep_their_date(tmp_path: Path) -> None:
    found = kept_cells(REPOSITORY / "benchmarks" / "results")
    assert {row for row, _ in found} == {"reads nni-ir", "device"}
    assert all(cell.when[:4].isdigit() for cell in found.values())
    assert all(cell.text.startswith("not measured: no results in ") for cell in kept_cells(tmp_path).values())


def test_a_part_measured_anew_leaves_the_others_with_their_date(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tools: begin -->\n<!-- tools: end -->\nafter\n", encoding="utf-8")
    words = ["comparison", "--only", "needs", "--tool", "nnmeter_nas"]
    words += ["--output", str(tmp_path), "--page", str(page)]
    assert main(words) == 0
    kept = load_results(tmp_path / "comparison.json")
    assert {name: kept["needs"][name] for name in ("nn-meter",)} == RESULTS["needs"]
    assert (kept["tried"], kept["right"]) == (RESULTS["tried"], RESULTS["right"])
    ours = kept["needs"]["nnmeter_nas"]
    assert {"numpy", "networkx", "onnx"} < set(ours["packages"])
    assert "torch" not in ours["packages"], "prediction needs none"
    assert 1 < ours["packages"]["nnmeter-nas"] < 60, "MB of the package with its packs and tables"
    text = page.read_text(encoding="utf-8")
    assert "2,000 MB; does not declare onnx (2026-01-06)" in text
    assert (text.startswith("before\n"), text.endswith("after\n")) == (True, True)


def test_what_is_not_installed_is_named_and_what_was_kept_stays(tmp_path: Path) -> None:
    results = tmp_path / "comparison.json"
    results.write_text(json.dumps(RESULTS), encoding="utf-8")
    console = Console(file=io.StringIO(), width=500)
    nowhere = Environments(*[tmp_path / "none"] * 4)
    run_comparison(
        nowhere, ["needs", "right"], ["nn-meter"], [], CPU, [CPU], None, None, results, console
    )  # fmt: skip
    assert load_results(results) == RESULTS
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not measured: needs of nn-meter: no package" in told
    assert "not measured: right needs the bench dataset" in told


@pytest.mark.parametrize("text", ["", "[]", '{"tried": {}}', '{"tried": 1, "right": 2, "needs": 3}'])
def test_a_file_of_something_else_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"comparison\.json holds no results"):
        load_results(path)


def test_the_command_knows_all_parts_and_tools() -> None:
    assert PARTS == RIVAL_PARTS
    assert set(RIVALS) == set(TOOLS) - {"litepred"}


def test_we_are_tried_on_a_module_and_on_files(tmp_path: Path) -> None:
    write_models(tmp_path, ["thin", "unet"])
    found = tried(Ours(CPU), tmp_path, ["thin", "unet"])["sources"]
    for source in ("torch", "onnx", "nnmeter-ir"):
        assert set(found[source]) == {"thin", "unet"}
        assert all(one["value"] > 0 and one["ms"] > 0 for one in found[source].values()), source
    assert found["torch"]["thin"]["value"] == pytest.approx(found["onnx"]["thin"]["value"])
    assert found["onnx"]["thin"]["beyond"] == ["swish"]
    assert all("cannot be read" in one["error"] for one in found["tflite"].values())


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="'resnet19'"):
        write_models(tmp_path, ["resnet19"])


@pytest.mark.skipif(not (COUNTERS / "lib").is_dir(), reason="needs the counters: `make rivals` sets them up")
def test_a_counter_is_tried_for_real(tmp_path: Path) -> None:
    found = try_tool("fvcore", Path(sys.executable), COUNTERS, tmp_path, tmp_path, ["grouped"], CPU)
    assert list(found["versions"]) == ["fvcore"]
    expected = flops(network_graph("grouped"))
    assert found["sources"]["torch"]["grouped"]["flops"] == pytest.approx(expected, rel=0.05)


def test_a_tool_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="none does not run"):
        try_tool("nni", tmp_path / "none", tmp_path, tmp_path, tmp_path, ["thin"], CPU)


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=12))
def test_no_other_scale_makes_more_models_right(pairs: list[tuple[float, float]]) -> None:
    work, measured = np.array(pairs).T
    best = within(best_scale(work, measured) * work, measured)
    for ratio in measured / work:
        for scale in (0.9 * ratio, ratio, 1.1 * ratio):
            assert best >= within(scale * work, measured) - 1e-9


def test_latencies_that_are_proportional_to_flops_are_predicted_by_them(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, models=20)
    for path in bench.glob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record[CPU] = flops(read_model(record["graph"])) / 1e6
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = judge(bench, [CPU])
    new = found["flops"][CPU]["new"]
    assert (new["within_10"], found["flops"][CPU]["families"]) == (100, 100)
    assert new["models"] == found["nnmeter_nas"][CPU]["new"]["models"] > 0
    assert judge(bench, [CPU], models=10)["flops"][CPU]["new"]["models"] < new["models"]
