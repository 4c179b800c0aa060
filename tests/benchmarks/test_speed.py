"""Figures of speed and size say what was measured, and in files and pages nothing of them is lost."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

pytest.importorskip("torch")
pytest.importorskip("nni.retiarii", reason="measured with NNI 2.10")

from nnmeter_nas.benchmarks.speed import report
from nnmeter_nas.benchmarks.speed.figures import Figure, Sample, Unmeasured, load, measured, save
from nnmeter_nas.benchmarks.speed.footprint import (
    EvaluationError,
    as_large_as,
    memory_figures,
    repeated_dataset,
)
from nnmeter_nas.benchmarks.speed.machine import machine, machine_line
from nnmeter_nas.benchmarks.speed.markdown import number, row, shown, table, target
from nnmeter_nas.benchmarks.speed.report import run_speed, write_speed
from nnmeter_nas.benchmarks.speed.scaling import (
    CANDIDATES,
    OPERATORS,
    exponent,
    number_figures,
    size_figures,
    sizes,
)
from nnmeter_nas.benchmarks.speed.synthetic import SMALLEST, synthetic_graph
from nnmeter_nas.errors import DatasetError, MissingPackageError
from nnmeter_nas.graph.model_graph import finish
from nnmeter_nas.readers.nnmeter_ir.dataset import iter_models
from synthetic_bench import write_bench

DEVICE = "cortexA76cpu_tflite21"
POINTS = ((10, Sample((0.1, 0.2, 0.3))), (100, Sample((2.0,))), (1000, Sample((20.0,))))
TWICE = Figure("warm", "ms", Sample((2.0, 2.2, 1.8)), Sample((4.0,)), "him", at_least=2, limit=3, note="why")
RESULTS = [
    TWICE,
    Figure("ranked", "per second", Sample((1e7,)), limit=1e6, more_is_better=True),
    Figure("fusion, by operators", "exponent", Sample((1.0,)), limit=1.1, points=POINTS),
    Unmeasured("memory", "no dataset"),
]
PAGE = "before\n<!-- {0}: begin -->\nold figures\n<!-- {0}: end -->\nafter\n"


def test_the_ratio_says_how_many_times_better_either_way_round() -> None:
    assert TWICE.ratio == 2
    assert Figure("", "1/s", Sample((6.0,)), Sample((2.0,)), more_is_better=True).ratio == 3
    assert Figure("", "s", Sample((1.0,))).ratio is None


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("", "ms", Sample((2.0,)), Sample((4.0,)), at_least=2, limit=2), True),
        (Figure("", "ms", Sample((2.0,)), Sample((3.9,)), at_least=2, limit=2), False),
        (Figure("", "ms", Sample((2.1,)), Sample((9.0,)), at_least=2, limit=2), False),
        (Figure("", "ms", Sample((2.0,)), at_least=2), False),
        (Figure("", "1/s", Sample((2.0,)), limit=2, more_is_better=True), True),
        (Figure("", "1/s", Sample((1.9,)), limit=2, more_is_better=True), False),
    ],
)
def test_a_figure_is_met_if_all_its_targets_are(figure: Figure, met: bool) -> None:
    assert figure.met is met


def test_outliers_move_neither_the_median_nor_the_spread() -> None:
    assert (Sample((1.0, 2, 3, 4, 5)).median, Sample((1.0, 2, 3, 4, 5)).spread) == (3, 1)
    assert (Sample((1.0, 2, 3, 4, 500)).median, Sample((1.0, 2, 3, 4, 500)).spread) == (3, 1)
    assert Sample((7.0,)).spread == 0


def test_everything_is_measured_as_often_as_said_and_once_before() -> None:
    calls: list[None] = []
    assert len(measured(lambda: calls.append(None), 2).values) == 2
    assert len(calls) == 3
    assert len(measured(lambda: calls.append(None), 1, warm=False).values) == 1
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ((0.00307, 0.003035, 0.0031), "s", "3.07 ± 0.02 ms"),
        ((0.01296, 0.01327, 0.0126), "ms", "13.0 ± 0.2 µs"),
        ((96.44, 95.3, 97.7), "ms", "96.4 ± 0.6 ms"),
        ((1890.0, 1872.0, 1908.0), "ms", "1,890 ± 9 ms"),
        ((10.0, 40.0, 25.0), "ms", "25.0 ± 7.5 ms"),
        ((10.0, 100.0, 55.7), "ms", "55.7 ± 22 ms"),
        ((1.06836,), "MB", "1.07 MB"),
        ((5.0, 5.0), "", "5.00 ± 0"),
        ((0.0,), "s", "0 µs"),
    ],
)
def test_numbers_have_the_digits_that_count(values: tuple[float, ...], unit: str, text: str) -> None:
    assert shown(Sample(values), unit) == text


@given(st.floats(1e-9, 1e12))
def test_no_number_is_off_by_more_than_its_third_digit(value: float) -> None:
    text = number(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.00501)


def test_the_table_has_each_result_and_the_notes_once_below() -> None:
    again = Figure("cold", "ms", Sample((9.0,)), Sample((9.0,)), "a rival", at_least=2, note="why")
    lines = table([*RESULTS, again])
    assert lines[2:] == [
        "| warm¹ | 2.00 ± 0.10 ms | 4.00 ms (him) | 2 × | ≥ 2 ×, ≤ 3 ms | yes |",
        "| ranked | 10,000,000 per second | – | – | ≥ 1,000,000 per second | yes |",
        "| fusion, by operators | 1.00 exponent | – | – | ≤ 1.1 exponent | yes |",
        "| memory | not measured: no dataset | | | | |",
        "| cold¹ | 9.00 ms | 9.00 ms (a rival) | 1 × | ≥ 2 × | **no** |",
        "",
        "1. why",
    ]
    free = Figure("free", "ms", Sample((1.0,)))
    assert (target(free), row(free, {})) == ("–", "| free | 1.00 ms | – | – | – | – |")


def test_results_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    described = machine({})
    path = save(RESULTS, tmp_path / "results", "topic", described)
    assert load(path) == (RESULTS, described)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert (kept["figures"][0]["ratio"], kept["figures"][0]["met"]) == (2, True)


@pytest.mark.parametrize("text", ["", "[]", '{"figures": []}', '{"figures": [{"name": 1}]}'])
def test_a_file_without_figures_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "topic.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"topic\.json holds no figures"):
        load(path)


def pages(folder: Path) -> tuple[Path, Path]:
    """A README and a page about scaling."""
    readme, page = folder / "README.md", folder / "speed.md"
    readme.write_text(PAGE.format("speed"), encoding="utf-8")
    page.write_text(PAGE.format("scaling"), encoding="utf-8")
    return readme, page


def test_results_replace_their_sections_alone(tmp_path: Path) -> None:
    readme, page = pages(tmp_path)
    described = machine({})
    save(RESULTS[:2], tmp_path, "footprint", described)
    save(RESULTS[2:3], tmp_path, "scaling", described)
    for _ in range(2):
        write_speed(tmp_path, readme, page)
        shown_in_readme, shown_on_page = (file.read_text(encoding="utf-8") for file in (readme, page))
        for text in (shown_in_readme, shown_on_page):
            assert text.startswith("before\n<!-- ")
            assert text.endswith(" end -->\nafter\n")
            assert "old figures" not in text
            assert machine_line(described) in text
    assert "| warm¹ |" in shown_in_readme
    assert "fusion" not in shown_in_readme
    curve = "| fusion, by operators | 1.00 | ≤ 1.1 | yes | 20,000 (of 10) | 20,000 (of 1,000) |"
    assert curve in shown_on_page
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("section", ["speed", "scaling"])
def test_pages_without_their_marks_are_left_alone(tmp_path: Path, section: str) -> None:
    readme, page = pages(tmp_path)
    save(RESULTS[2:3], tmp_path, "scaling", machine({}))
    broken = readme if section == "speed" else page
    broken.write_text(text := broken.read_text().replace(f"<!-- {section}: end -->", ""), encoding="utf-8")
    with pytest.raises(DatasetError, match=f"{broken.name} has no section between .*{section}"):
        write_speed(tmp_path, readme, page)
    assert broken.read_text(encoding="utf-8") == text
    assert not (tmp_path / "scaling.png").exists()


def test_topics_of_several_runs_say_what_each_was_measured_on(tmp_path: Path) -> None:
    readme, _ = pages(tmp_path)
    described = machine({})
    save(RESULTS[:1], tmp_path, "footprint", described)
    save(RESULTS[1:2], tmp_path, "searches", {**described, "load_before": described["cores"]})
    write_speed(tmp_path, readme)
    text = readme.read_text(encoding="utf-8")
    assert f"- footprint: {machine_line(described)}" in text
    assert "- searches: Measured" in text
    assert "a busy machine" in text


@pytest.mark.parametrize(("load_before", "warned"), [(0.6, True), (0.4, False)])
def test_a_busy_machine_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_before: float, warned: bool
) -> None:
    monkeypatch.setattr(report, "TOPICS", {"topic": lambda setting: iter(RESULTS)})
    monkeypatch.setattr("os.getloadavg", lambda: (load_before * (os.cpu_count() or 1), 0.0, 0.0))
    console = Console(file=(said := io.StringIO()), width=200)
    [path] = run_speed(tmp_path, tmp_path, DEVICE, ["topic"], console)
    assert ("warning: the load is" in said.getvalue()) is warned
    assert "| memory | not measured: no dataset" in said.getvalue()
    results, described = load(path)
    assert results == RESULTS
    assert ("a busy machine" in machine_line(described)) is warned


def test_an_environment_without_nn_meter_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match="has no nn-Meter"):
        run_speed(tmp_path, tmp_path, DEVICE, ["candidates"], Console(file=io.StringIO()))


@pytest.mark.parametrize("operators", [SMALLEST, 100, 316, 1001])
def test_synthetic_graphs_have_the_size_asked_for_and_are_valid(operators: int) -> None:
    graph = synthetic_graph(operators)
    assert len(graph) == operators + 1, "one more is the input"
    finish(graph)
    assert 0.8 * operators < len(graph) <= operators + 1, "h-swish and channel shuffles become one operator"
    assert not graph.graph["shape_mismatches"]


def test_synthetic_graphs_are_mixed_and_depend_on_the_seed_alone() -> None:
    one, same, other = (synthetic_graph(500, seed=seed) for seed in (0, 0, 1))
    assert list(one.nodes(data=True)) == list(same.nodes(data=True))
    assert list(one.edges(data=True)) == list(same.edges(data=True))
    assert list(one.nodes(data=True)) != list(other.nodes(data=True))
    operators = {op for _, op in finish(one).nodes(data="op")}
    assert operators >= {"conv", "dwconv", "bn", "add", "concat", "split", "channelshuffle", "hswish", "mul"}
    with pytest.raises(ValueError, match=f"operators={SMALLEST - 1} must be at least"):
        synthetic_graph(SMALLEST - 1)


@given(st.floats(0.2, 3), st.floats(1e-6, 1e3))
def test_the_exponent_of_a_power_is_found(power: float, factor: float) -> None:
    points = [(n, Sample((factor * n**power,))) for n in sizes(10, 100_000)]
    assert exponent(points) == pytest.approx(power)


def test_the_exponent_is_that_of_the_top_two_decades() -> None:
    points = [(n, Sample((max(n, 1000) / 1e6, 9.0, 0.0))) for n in sizes(10, 100_000)]
    assert exponent(points) == pytest.approx(1)


@pytest.mark.slow
def test_every_curve_is_measured_at_every_size() -> None:
    curves = [*size_figures(DEVICE, 215), *number_figures(DEVICE, predicted=22, looked_up=100)]
    units = [figure.name.rpartition(", by ")[2] for figure in curves]
    assert units == 4 * [OPERATORS] + 3 * [CANDIDATES]
    assert [[size for size, _ in figure.points] for figure in curves] == (
        4 * [[100, 215]] + [[10, 22]] + 2 * [[10, 22, 46, 100]]
    )
    assert all(min(taken.values) > 0 for figure in curves for _, taken in figure.points)


def test_files_are_read_again_until_they_are_of_the_size(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for path, size in zip(files, (3, 5), strict=True):
        path.write_bytes(size * b"x")
    assert as_large_as(files, 3) == files[:1]
    assert as_large_as(files, 17) == [*files, *files, files[0]]


def test_a_dataset_is_repeated_under_other_ids(tmp_path: Path) -> None:
    (bench := tmp_path / "bench").mkdir()
    (twice := tmp_path / "twice").mkdir()
    write_bench(bench, models=5)
    assert repeated_dataset(bench, 23, twice) == 10
    models = [model for path in sorted(twice.iterdir()) for model in iter_models(path)]
    assert len(models) == len({model.id for model in models}) == 23
    assert {model.id.removeprefix("turn 1: ").removeprefix("turn 2: ") for model in models} == {
        model.id for path in bench.iterdir() for model in iter_models(path)
    }
    for path in bench.iterdir():
        path.write_text("\n")
    with pytest.raises(DatasetError, match="hold no models"):
        repeated_dataset(bench, 23, twice)


@pytest.mark.slow
def test_the_memory_of_an_evaluation_is_that_of_its_process_alone(tmp_path: Path) -> None:
    write_bench(tmp_path, models=3)
    with pytest.raises(EvaluationError, match="holds no latency of 'adreno640gpu_tflite21'"):
        next(memory_figures(tmp_path, "adreno640gpu_tflite21", 6))
    [figure] = memory_figures(tmp_path, DEVICE, 7)
    assert isinstance(figure, Figure)
    assert 40 < figure.ours.median < psutil.Process().memory_info().rss / 1e6, "NNI takes more, here"
    assert "a dataset of 6 models" in figure.note


def test_without_a_dataset_the_memory_is_said_to_be_unmeasured() -> None:
    [left_out] = memory_figures(None, DEVICE)
    assert isinstance(left_out, Unmeasured)
    assert "BENCH=DIR" in left_out.reason
