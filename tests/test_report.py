"""What a search leaves behind: the right front and best network, and files that are whole."""

from __future__ import annotations

import csv
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from nnmeter_nas.errors import SearchError
from nnmeter_nas.report import (
    SearchReport,
    Trial,
    best_architecture,
    empty_folder,
    pareto_front,
    trials_table,
    write_report,
)

CHOICES = {"layer_1": "k3", "layer_2": "xception"}
FAST = Trial(1, CHOICES, 2.0, accuracy=0.90, seconds=9.0)
BALANCED = Trial(2, CHOICES, 3.0, accuracy=0.95, seconds=9.0)
BEATEN = Trial(3, CHOICES, 3.5, accuracy=0.93, seconds=9.0)
FAILED = Trial(4, CHOICES, 1.0, failure="ValueError: no such kernel [/k9]")


def report_of(*trials: Trial) -> SearchReport:
    """A search on the CPU with the given trials."""
    return SearchReport("cortexA76cpu_tflite21", 2.0, 4.0, trials, "network = build()", {"seed": 7})


def printed(report: SearchReport) -> str:
    """The table as a terminal of 120 columns shows it."""
    text = io.StringIO()
    Console(file=text, width=120).print(trials_table(report))
    return text.getvalue()


def test_front_is_what_nothing_else_beats() -> None:
    assert pareto_front([BEATEN, BALANCED, FAST, FAILED]) == [FAST, BALANCED]


def test_front_of_random_trials_matches_its_definition() -> None:
    draw = random.Random(0)
    trials = [Trial(i, {}, draw.randint(1, 9), accuracy=draw.randint(1, 9) / 10) for i in range(60)]

    def beaten(trial: Trial) -> bool:
        return any(
            (other.latency_ms, -(other.accuracy or 0)) != (trial.latency_ms, -(trial.accuracy or 0))
            and other.latency_ms <= trial.latency_ms and (other.accuracy or 0) >= (trial.accuracy or 0)
            for other in trials
        )

    expected = {(t.latency_ms, t.accuracy) for t in trials if not beaten(t)}
    front = pareto_front(trials)
    assert {(t.latency_ms, t.accuracy) for t in front} == expected
    assert len(front) == len(expected)


def test_best_is_the_most_accurate_and_of_equals_the_fastest() -> None:
    slower = replace(BALANCED, number=9, latency_ms=3.9)
    assert report_of(slower, FAST, BALANCED, FAILED).best == BALANCED


def test_failed_trials_are_shown_as_failed_beside_the_others() -> None:
    text = printed(report_of(FAST, FAILED, BALANCED))
    assert "failed" in text
    assert "ValueError: no such kernel [/k9]" in text
    assert "95.00" in text
    assert "90.00" in text
    assert text.count("★") == 3  # two on the front, one in the caption


def test_best_architecture_says_how_to_build_it_and_where_it_was_predicted() -> None:
    assert best_architecture(report_of(FAST, BALANCED)) == {
        "choices": CHOICES, "latency_ms": 3.0, "accuracy": 0.95, "device": "cortexA76cpu_tflite21",
        "pack_version": 2.0, "threshold_ms": 4.0, "trial": 2, "settings": {"seed": 7},
        "rebuild": "network = build()",
    }


def test_saved_files_hold_every_trial_and_a_readable_plot(tmp_path: Path) -> None:
    report = report_of(FAST, BALANCED, BEATEN, FAILED)
    table, best, plot = write_report(report, tmp_path)
    assert json.loads(best.read_text())["accuracy"] == 0.95
    rows = list(csv.DictReader(table.open()))
    assert [row["pareto_front"] for row in rows] == ["1", "1", "0", "0"]
    assert rows[3]["accuracy"] == ""
    assert rows[3]["failure"] == "ValueError: no such kernel [/k9]"
    assert rows[0]["layer_2"] == "xception"
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert image.width >= 1000
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.mark.parametrize("threshold", [0.1, 3.0, 1000.0])
def test_plot_can_be_drawn_for_one_trial_and_any_limit(tmp_path: Path, threshold: float) -> None:
    report = replace(report_of(BALANCED), threshold_ms=threshold)
    assert (tmp_path / "pareto.png") in write_report(report, tmp_path)


def test_search_without_a_trained_network_says_why_and_saves_only_the_trials(tmp_path: Path) -> None:
    report = report_of(FAILED)
    assert write_report(report, tmp_path) == [tmp_path / "trials.csv"]
    with pytest.raises(SearchError, match="no such kernel"):
        _ = report.best


def test_a_new_search_does_not_leave_the_result_of_an_earlier_one(tmp_path: Path) -> None:
    write_report(report_of(FAST), tmp_path)
    (tmp_path / "mine.txt").touch()
    empty_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_plot_that_cannot_be_drawn_does_not_leave_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(report_of(FAST), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "trials.csv"]
