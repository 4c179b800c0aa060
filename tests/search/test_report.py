"""What a search leaves behind: the right front and best networks, and files that are whole."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from nnmeter_nas.errors import SearchError
from nnmeter_nas.nni.events import Expected
from nnmeter_nas.pages import figure
from nnmeter_nas.search.report.files import empty_folder, trials_table, write_report
from nnmeter_nas.search.report.outcome import SearchReport, limits_text
from nnmeter_nas.search.report.plot import numbers_of
from nnmeter_nas.search.report.trials import Trial, failures, pareto_front
from searches import BALANCED, BEATEN, CPU, CPU_MS, FAILED, FAST, GPU_MS, RUNNING, report_of, two_devices

LATENCY = ("latency_ms",)


def printed(report: SearchReport) -> str:
    """The table as a terminal of 120 columns shows it."""
    text = io.StringIO()
    Console(file=text, width=120).print(trials_table(report))
    return text.getvalue()


def test_front_is_what_nothing_else_beats() -> None:
    assert pareto_front([BEATEN, FAST, RUNNING, BALANCED, FAILED], LATENCY) == [BALANCED, FAST]


@pytest.mark.parametrize("objectives", [("a",), ("a", "b"), ()])
def test_front_of_random_trials_matches_its_definition(objectives: tuple[str, ...]) -> None:
    draw = random.Random(0)
    trials = [
        Trial(i, {}, {"a": draw.randint(1, 9), "b": draw.randint(1, 9)}, draw.randint(1, 9) / 10)
        for i in range(80)
    ]

    def point(trial: Trial) -> tuple[float, ...]:
        return (-(trial.metric or 0.0), *(trial.values[name] for name in objectives))

    def beaten(trial: Trial) -> bool:
        return any(
            point(other) != point(trial)
            and all(a <= b for a, b in zip(point(other), point(trial), strict=True))
            for other in trials
        )

    expected = sorted({point(trial) for trial in trials if not beaten(trial)})
    assert [point(trial) for trial in pareto_front(trials, objectives)] == expected


def test_trial_that_failed_reported_nan_or_lacks_an_objective_is_not_on_the_front() -> None:
    nan = replace(FAST, number=7, metric=math.nan)
    lacking = replace(FAST, number=8, values={}, metric=0.99)
    assert pareto_front([nan, lacking, FAILED, RUNNING], LATENCY) == []
    assert [t.state for t in (FAST, FAILED, RUNNING, nan)] == ["trained", "failed", "running", "failed"]
    assert failures([nan, FAILED, FAST, replace(FAILED, number=9)]) == {
        FAILED.failure: 2, "the metric is nan": 1,
    }  # fmt: skip


def test_best_is_the_most_accurate_and_of_equals_the_fastest() -> None:
    slower = replace(BALANCED, number=9, values={"latency_ms": 3.9})
    assert report_of(slower, FAST, BALANCED, FAILED).best == BALANCED


def test_failed_and_running_trials_are_shown_beside_the_others() -> None:
    text = printed(report_of(FAST, FAILED, BALANCED, RUNNING))
    for expected in ("failed", "ValueError: no such kernel [/k9]", "running", "0.9500", "k5 xception"):
        assert expected in text
    assert text.count("★") == 3  # two on the front, one in the caption
    assert "latency on cortexA76cpu_tflite21 at most 4 ms" in text


def test_limits_of_several_measures_are_named_with_their_units() -> None:
    assert limits_text(two_devices(FAST)) == (
        "latency on cortexA76cpu_tflite21 at least 1.5 and at most 4 ms; "
        "latency on adreno640gpu_tflite21 at most 9 ms; flops at most 500 M"
    )


def test_worst_ratio_is_that_of_the_tightest_limit() -> None:
    report = two_devices(FAST)
    assert report.worst_ratio(report.trials[0]) == pytest.approx(8.0 / 9.0)
    assert replace(report, maxima={}).worst_ratio(report.trials[0]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (9999, "9999"), (12_345, "12.35 k"), (5e6, "5 M"), (2.5e9, "2.5 G"), (-3.14159, "-3.142")],
)
def test_figures_are_short(value: float, expected: str) -> None:
    assert figure(value) == expected


def test_saved_files_hold_every_trial_the_front_and_a_readable_plot(tmp_path: Path) -> None:
    report = report_of(FAST, BALANCED, BEATEN, FAILED)
    files = write_report(report, tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in files} == {
        "trials.csv", "best/1.json", "best/2.json", "report.html", "pareto.png",
    }  # fmt: skip
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pareto_front"] for row in rows] == ["1", "1", "0", "0"]
    assert [row["state"] for row in rows] == ["trained", "trained", "trained", "failed"]
    assert rows[1]["accuracy"] == "0.95"
    assert rows[1]["latency_ms"] == "3.0"
    assert rows[3]["accuracy"] == ""
    assert rows[3]["failure"] == "ValueError: no such kernel [/k9]"
    assert rows[0]["layer_2"] == "xception"
    with Image.open(tmp_path / "pareto.png") as image:
        assert image.format == "PNG"
        assert image.width >= 1000
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def test_architecture_files_say_where_they_were_predicted_and_how_to_build_them(tmp_path: Path) -> None:
    write_report(report_of(FAST, BALANCED), tmp_path)
    first, second = (json.loads((tmp_path / "best" / f"{n}.json").read_text()) for n in (1, 2))
    assert (first["metric"], second["metric"]) == (0.95, 0.90)
    assert "best/1.json" in first.pop("rebuild")
    assert first.pop("export") == "nnmeter-nas export best/1.json -o network.onnx"
    assert first == {
        "space": "spos-small", "input_shape": [1, 3, 32, 32], "choices": dict(BALANCED.choices),
        "values": {"latency_ms": 3.0}, "intervals": {}, "not_measured": {}, "metric": 0.95,
        "metric_name": "accuracy", "expected": None,
        "devices": {"latency_ms": {"device": CPU, "pack_version": 2.0, "pack_fingerprint": "abc"}},
        "limits": {"maxima": {"latency_ms": 4.0}, "minima": {}}, "objectives": ["latency_ms"], "trial": 2,
        "strategy": "random", "nni": "2.10.1", "settings": {"seed": 7},
    }  # fmt: skip


def test_intervals_are_in_every_file(tmp_path: Path) -> None:
    report = replace(report_of(FAST, BALANCED), intervals={"latency_ms": {BALANCED.number: (2.75, 3.25)}})
    write_report(report, tmp_path)
    first, second = (json.loads((tmp_path / "best" / f"{n}.json").read_text()) for n in (1, 2))
    assert first["intervals"] == {"latency_ms": [2.75, 3.25]}
    assert second["intervals"] == {}
    rows = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))
    by_trial = {row["trial"]: (row["latency_ms_low"], row["latency_ms_high"]) for row in rows}
    assert by_trial == {str(FAST.number): ("", ""), str(BALANCED.number): ("2.75", "3.25")}
    assert "2.75 to 3.25" in (tmp_path / "report.html").read_text()


def test_metrics_that_were_expected_are_in_every_file(tmp_path: Path) -> None:
    write_report(report_of(FAST, replace(BALANCED, expected=Expected(0.93, 0.91, 0.96))), tmp_path)
    first, second = (json.loads((tmp_path / "best" / f"{n}.json").read_text()) for n in (1, 2))
    assert first["expected"] == {"metric": 0.93, "low": 0.91, "high": 0.96}
    assert second["expected"] is None
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    columns = ("accuracy_expected", "accuracy_low", "accuracy_high")
    assert [tuple(row[name] for name in columns) for row in rows] == [("",) * 3, ("0.93", "0.91", "0.96")]
    page = (tmp_path / "report.html").read_text()
    assert "<small>expected 0.9300</small><small>0.9100 to 0.9600</small>" in page
    write_report(report_of(FAST, BALANCED), tmp_path)
    assert "expected" not in (tmp_path / "trials.csv").read_text()


def test_shares_that_were_not_measured_are_in_the_files(tmp_path: Path) -> None:
    shares = {"latency_ms": {BALANCED.number: {"estimated": 0.25}}}
    write_report(replace(report_of(FAST, BALANCED), not_measured=shares), tmp_path)
    first, second = (json.loads((tmp_path / "best" / f"{n}.json").read_text()) for n in (1, 2))
    assert (first["not_measured"], second["not_measured"]) == ({"latency_ms": {"estimated": 0.25}}, {})
    rows = csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text()))
    assert [row["latency_ms_estimated"] for row in rows] == ["0.0", "0.25"]


def test_names_of_devices_are_whole_in_the_table() -> None:
    text = "".join(printed(two_devices(FAST, BALANCED)).split())
    assert "…" not in text


def test_time_of_a_short_trial_is_not_nothing() -> None:
    assert " 0.4 " in printed(report_of(replace(FAST, seconds=0.4)))


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    trial = replace(FAST, values={"latency_ms": np.float64(2.5)}, metric=np.float64(0.5))
    write_report(report_of(trial), tmp_path)
    assert json.loads((tmp_path / "best" / "1.json").read_text())["values"] == {"latency_ms": 2.5}
    assert "float64" not in (tmp_path / "trials.csv").read_text() + (tmp_path / "report.html").read_text()


def test_plot_has_a_panel_for_each_device_and_objective(tmp_path: Path) -> None:
    report = two_devices(FAST, BALANCED, BEATEN)
    assert report.axes == [CPU_MS, GPU_MS, "flops"]
    sizes = []
    for shown in (report, replace(report, objectives=(CPU_MS,), hardware={CPU_MS: report.hardware[CPU_MS]})):
        write_report(shown, tmp_path)
        with Image.open(tmp_path / "pareto.png") as image:
            sizes.append(image.size)
    assert sizes[0][0] > 1.5 * sizes[1][0]
    assert sizes[0][1] > 1.5 * sizes[1][1]


@pytest.mark.parametrize("limit", [0.1, 3.0, 1000.0])
def test_plot_can_be_drawn_for_one_trial_and_any_limit(tmp_path: Path, limit: float) -> None:
    report = replace(report_of(BALANCED), maxima={"latency_ms": limit})
    assert (tmp_path / "pareto.png") in write_report(report, tmp_path)


def test_plot_can_be_drawn_where_a_name_looks_like_a_formula(tmp_path: Path) -> None:
    report = replace(report_of(BALANCED, FAST), space="mine:$\\frac{$", metric="$\\alpha{$", maxima={})
    assert (tmp_path / "pareto.png") in write_report(report, tmp_path)


def test_search_without_latency_is_drawn_over_its_objective(tmp_path: Path) -> None:
    trials = [replace(t, values={"params": 1e6 * t.number}) for t in (FAST, BALANCED)]
    report = replace(report_of(*trials), hardware={}, maxima={"params": 4e6}, objectives=("params",))
    assert report.axes == ["params"]
    assert (tmp_path / "pareto.png") in write_report(report, tmp_path)


def test_search_without_a_trained_network_says_why_and_saves_the_trials_and_a_page(tmp_path: Path) -> None:
    report = report_of(RUNNING, FAILED)
    assert write_report(report, tmp_path) == [tmp_path / "trials.csv", tmp_path / "report.html"]
    with pytest.raises(SearchError, match="no such kernel"):
        _ = report.best


def test_report_written_again_keeps_nothing_of_a_longer_front(tmp_path: Path) -> None:
    write_report(report_of(FAST, BALANCED), tmp_path)
    better = replace(BALANCED, number=9, values={"latency_ms": 1.5})
    write_report(report_of(FAST, BALANCED, better), tmp_path)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["1.json"]
    assert json.loads((tmp_path / "best" / "1.json").read_text())["trial"] == 9


def test_a_new_search_does_not_leave_the_result_of_an_earlier_one(tmp_path: Path) -> None:
    write_report(report_of(FAST), tmp_path)
    (tmp_path / "mine.txt").touch()
    (tmp_path / "best" / "mine.json").touch()
    empty_folder(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["best", "mine.json", "mine.txt"]


def test_a_plot_that_cannot_be_drawn_does_not_leave_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(report_of(FAST), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best", "report.html", "trials.csv"]


def test_numbers_of_trials_that_would_cover_each_other_stand_together() -> None:
    near = replace(BEATEN, values={"latency_ms": 3.01}, metric=0.951)
    assert numbers_of([near, BALANCED, FAST], "latency_ms", 0.05, 0.01) == [
        ("1", (2.0, 0.90)), ("2, 3", (3.0, 0.951)),
    ]  # fmt: skip
    assert len(numbers_of([near, BALANCED, FAST], "latency_ms", 0.05, 0.0005)) == 3
