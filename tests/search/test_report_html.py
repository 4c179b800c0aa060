"""The page of a search: everything is on it, nothing on it runs or loads that we did not put there."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import pytest

from nnmeter_nas.nni.events import Expected
from nnmeter_nas.pages import escaped, ticks
from nnmeter_nas.search.report.growth import growth
from nnmeter_nas.search.report.outcome import SearchReport
from nnmeter_nas.search.report.page import report_html
from nnmeter_nas.search.report.svg import pareto_chart
from nnmeter_nas.search.report.trials import Trial
from searches import BALANCED, BEATEN, CPU, CPU_MS, FAILED, FAST, GPU, GPU_MS, RUNNING, report_of, two_devices
from web_page import Page

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\ud800"


def expected(trial: Trial, metric: float) -> Trial:
    """The trial, of which this metric was expected, 0.01 more or less."""
    return replace(trial, expected=Expected(metric, metric - 0.01, metric + 0.01))


def points_of(page: Page, chart: int) -> list[dict[str, str | None]]:
    """Attributes of the marks of trials in one of the charts."""
    charts = [i for i, (kind, a) in enumerate(page.elements) if kind == "svg" and a.get("class") == "chart"]
    end = charts[chart + 1] if chart + 1 < len(charts) else len(page.elements)
    return [a for _, a in page.elements[charts[chart] : end] if "data-trial" in a]


def full() -> SearchReport:
    """A search with everything that a page can show."""
    return replace(
        two_devices(FAST, expected(BALANCED, 0.93), expected(BEATEN, 0.94), FAILED, RUNNING),
        rejected={f"{CPU_MS} above 4 ms": 4321},
        latency_by_block={
            CPU_MS: {"layer_1": 1.0, "layer_2": 0.5, "stationary_block": 0.5},
            GPU_MS: {"layer_1": 4.0, "layer_2": 2.0, "stationary_block": 1.0},
        },
        importance={"layer_1": 0.75, "layer_2": 0.25},
        asked=10,
        budget_minutes=30.0,
        note="the strategy had no further candidates",
    )


def test_page_tells_all_there_is_to_know() -> None:
    text = report_html(full())
    page = Page(text)
    assert page.texts["h2"] == [
        "Pareto front", "Growth of the front", "What was learnt", "Latency by block", "Trials",
        "What was rejected, and why", "Settings",
    ]  # fmt: skip
    everything = page.texts["main"][0] + page.texts["header"][0]
    for expected in (
        "trials trained of 10", "1 running, 1 failed", "nnmeter-nas export best/1.json", "no further",
        "75% of the limit 4, at least 1.5", "4,321",
        f"{CPU_MS} above 4 ms", "ValueError: no such kernel [/k9]", "stationary_block", "50.0%",
        "layer_1: k5 layer_2: xception", "spos-small", "2.10.1", "300.0 M", "of a budget of 30",
        "proposed 2 of 5 trials", "off by 0.0150 in the median, and 1 of 2 are within", "75.0%",
    ):  # fmt: skip
        assert expected in everything, expected
    assert {row.get("id") for row in page.all("tbody")} >= {f"trial-{n}" for n in range(1, 6)}


def test_every_trained_trial_is_a_point_that_tells_its_architecture_and_links_to_its_row() -> None:
    page = Page(report_html(report_of(FAST, BALANCED, BEATEN, FAILED)))
    points = points_of(page, 0)
    assert Counter(a["data-trial"] for a in points) == {"1": 1, "2": 1, "3": 1}
    assert {a["href"] for a in points if "href" in a} == {"#trial-1", "#trial-2"}
    titles = page.texts["title"][1:]  # the first is the page's
    assert any("layer_1: k5, layer_2: xception" in title and "0.9500" in title for title in titles)
    assert len(page.all("svg")) > 1


def test_architectures_are_told_by_label_beside_their_figures() -> None:
    page = Page(report_html(report_of(FAST, BALANCED, FAILED)))
    told = [text for text in page.texts["span"] if text.startswith("layer")]
    best, other = (["layer_1: k5", "layer_2: xception"], ["layer_1: k3", "layer_2: xception"])
    assert told == [*best, *other, *best, *other, *other]  # the front, then all trials
    assert not any("title" in attributes for _, attributes in page.elements)


def test_time_of_a_short_trial_is_not_nothing() -> None:
    page = Page(report_html(report_of(replace(FAST, seconds=0.4), replace(BALANCED, seconds=83.2))))
    assert {"0.4", "83"} <= set(page.texts["td"])


def test_a_device_adds_one_column_to_the_latency_by_block() -> None:
    text = report_html(full())
    table = text[text.index("<h2>Latency by block") : text.index("<h2>Trials")]
    page = Page(table[table.index("<div") : table.index("</section>")])
    devices = [f"latency on {device} (ms)" for device in (CPU, GPU)]
    assert page.texts["th"][:5] == ["block", "candidate", *devices, "layer_1"]
    assert "1.00050.0%" in page.texts["td"]


def test_shares_that_were_not_measured_stand_beside_the_interval() -> None:
    report = replace(
        report_of(FAST, BALANCED),
        intervals={"latency_ms": {BALANCED.number: (2.75, 3.25)}},
        not_measured={"latency_ms": {BALANCED.number: {"extrapolated": 0.25, "estimated": 0.0125}}},
    )
    page = Page(report_html(report))
    assert "2.75 to 3.25, 25.0% extrapolated, 1.2% estimated" in page.texts["dl"][0]
    assert page.texts["td"].count("3.0002.75 to 3.2525.0% extrapolated1.2% estimated") == 2
    assert "2.000" in page.texts["td"]
    assert "nine of ten measured latencies" in page.texts["main"][0]
    assert "nine of ten" not in report_html(report_of(FAST, BALANCED))


def test_what_is_unpredicted_is_said_and_never_zero() -> None:
    shares = {FAST.number: {"unpredicted": 0.125}, BALANCED.number: {"estimated": 0.25, "unpredicted": None}}
    report = replace(report_of(FAST, BALANCED), not_measured={"latency_ms": shares})
    page = Page(report_html(report))
    assert page.texts["td"].count("2.000unpredicted: 12.5% of the work") == 2
    assert page.texts["td"].count("3.00025.0% estimatedunpredicted: unknown share of the work") == 2
    assert "What is unpredicted is missing from the latency." in page.texts["main"][0]
    assert "missing from the latency" not in report_html(report_of(FAST, BALANCED))


def test_every_device_and_objective_has_a_chart_of_its_own() -> None:
    page = Page(report_html(two_devices(FAST, BALANCED)))
    charts = [a for a in page.all("svg") if a.get("class") == "chart"]
    assert len(charts) == 3 + 1  # and the growth of the front
    assert all(a["role"] == "group" and a["aria-label"] for a in charts)
    assert sum("outside" in (a.get("class") or "") for a in page.all("rect")) >= 3


def test_step_line_is_drawn_only_where_the_front_is_one() -> None:
    assert 'class="steps"' in report_html(report_of(FAST, BALANCED))
    assert 'class="steps"' not in report_html(two_devices(FAST, BALANCED))


def test_tables_have_headings_for_their_columns_and_name_themselves() -> None:
    page = Page(report_html(full()))
    assert len(page.all("table")) == 7
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    regions = [a for a in page.all("div") if a.get("role") == "region"]
    assert len(regions) == 7
    assert all(a["aria-label"] and a["tabindex"] == "0" for a in regions)


def test_page_loads_nothing_from_elsewhere_and_lets_only_its_own_script_run() -> None:
    text = report_html(full())
    page = Page(text)
    [script] = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not {"src", "srcset", "data", "action"} & {name for _, a in page.elements for name in a}
    assert all((a.get("href") or "#").startswith("#") for _, a in page.elements)
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_every_trial_that_the_model_proposed_stands_at_what_was_reported_and_expected() -> None:
    page = Page(report_html(report_of(FAST, expected(BALANCED, 0.94), expected(BEATEN, 0.93), FAILED)))
    learnt = points_of(page, 2)
    at = {a["data-trial"]: re.findall(r"[\d.]+", a["transform"] or "") for a in learnt}
    (x2, y2), (x3, y3) = (map(float, at[number]) for number in ("2", "3"))
    assert x2 > x3  # 0.95 and 0.93 were reported
    assert y2 < y3  # 0.94 and 0.93 were expected, and up is less
    *limits, _ = [a["d"] or "" for a in page.all("path") if a.get("class") == "interval"]  # the last: legend
    lengths = [re.findall(r"-?[\d.]+", path)[1:] for path in limits]
    assert len(lengths) == 2
    assert all(float(low) == pytest.approx(-float(high), abs=0.2) and float(low) > 0 for low, high in lengths)
    assert any("expected: 0.9400, 0.9300 to 0.9500" in title for title in page.texts["title"])


def test_what_was_learnt_is_told_of_strategies_that_learn_alone() -> None:
    assert "What was learnt" not in report_html(report_of(FAST, BALANCED))
    waiting = report_html(report_of(FAST, expected(FAILED, 0.9), expected(RUNNING, 0.9)))
    assert "What was learnt" not in waiting
    assert "What was learnt" in report_html(replace(report_of(FAST), importance={"layer_1": 1.0}))


def test_importance_is_told_by_choice_with_what_the_best_has() -> None:
    page = Page(report_html(replace(report_of(FAST, BALANCED), importance={"layer_2": 0.2, "layer_1": 0.8})))
    told = [text for text in page.texts["tr"] if "%" in text and "layer" in text]
    assert told == ["layer_180.0%k5", "layer_220.0%xception"]


def test_front_grows_to_its_final_hypervolume_and_never_shrinks() -> None:
    worse, better = replace(BEATEN, number=2, metric=0.85), replace(BALANCED, number=3)
    found = growth(report_of(FAST, worse, better, FAILED, RUNNING))
    numbers, shares = zip(*((trial.number, share) for trial, share in found), strict=True)
    assert numbers == (1, 2, 3)
    assert shares[0] == shares[1] < shares[2] == 1.0
    page = Page(report_html(report_of(FAST, worse, better)))
    assert [a["data-trial"] for a in points_of(page, 1)] == ["1", "3"]
    assert "The search had 99% of it after trial 3 of 3." in page.texts["main"][0]


def test_growth_of_the_front_is_the_hypervolume_below_the_limit() -> None:
    """Between a limit of 4 ms and 0.902, which a tenth of the metrics do not reach."""
    trials = [replace(FAST, metric=0.90), replace(BALANCED, metric=0.91), replace(BEATEN, metric=0.95)]
    poor = 0.902
    areas = [0.0, (4.0 - 3.0) * (0.91 - poor), (4.0 - 3.0) * (0.91 - poor) + (4.0 - 3.5) * (0.95 - 0.91)]
    found = [share for _, share in growth(report_of(*trials))]
    assert found == pytest.approx([area / areas[-1] for area in areas], abs=0.01)


@pytest.mark.parametrize("trials", [(FAST,), (FAST, replace(FAST, number=2)), (FAILED, RUNNING)])
def test_growth_of_few_or_equal_trials_can_be_drawn(trials: tuple[Trial, ...]) -> None:
    assert all(share == 1.0 for _, share in growth(report_of(*trials)))
    Page(report_html(report_of(*trials)))


def test_names_and_failures_that_look_like_markup_stay_text() -> None:
    trial = replace(FAST, choices={EVIL: EVIL, "$title": "${body}"}, values={EVIL: 1.0, "latency_ms": 2.0})
    report = replace(
        report_of(trial, replace(FAILED, failure=EVIL)),
        space=EVIL,
        strategy=EVIL,
        nni=EVIL,
        note=EVIL,
        metric=EVIL,
        maxima={EVIL: 2.0},
        units={EVIL: EVIL},
        objectives=("latency_ms", EVIL),
        rejected={EVIL: 3},
        settings={EVIL: {EVIL: [EVIL]}},
        latency_by_block={"latency_ms": {EVIL: 1.0}},
    )
    text = report_html(report)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert text.count("<script>alert") == 0
    assert "\x1b" not in text
    assert "${body}" in page.texts["main"][0]
    text.encode()
    assert "<script>alert(1)</script>\"'&" in page.texts["h1"][0]


@pytest.mark.parametrize(
    "trials", [(), (RUNNING,), (FAILED,), (FAST,), (FAST, FAST), (replace(FAST, metric=0.0),)]
)
def test_page_is_there_from_the_first_trial_on(trials: tuple) -> None:  # type: ignore[type-arg]
    page = Page(report_html(report_of(*trials)))
    assert ("Pareto front" in page.texts["h2"]) == any(t.metric is not None for t in trials)
    assert "Trials" in page.texts["h2"]


def test_large_and_equal_values_have_an_axis() -> None:
    trials = [replace(t, values={"latency_ms": 3e9}, metric=-1e6) for t in (FAST, BALANCED)]
    Page(report_html(replace(report_of(*trials), maxima={})))
    zero = [replace(t, values={"latency_ms": 0.0}, metric=0.0) for t in (FAST, BALANCED)]
    Page(report_html(report_of(*zero)))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 2.0), (0.9131, 0.9135), (1e8, 3e8), (1.0, 1.1)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in found)


def test_what_is_no_character_is_replaced() -> None:
    assert escaped("a\x00\x1b\ud800\ufffeb\nc\t<") == "a����b\nc\t&lt;"


def test_missing_values_sort_last_whichever_way_a_column_is_sorted() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to run the page's script")
    [script] = Page(report_html(report_of(FAST))).texts["script"]
    compare = script[script.index("function compare") :]
    program = compare + """
    const sorted = (values, sign) => values.sort((a, b) => compare(a, b, sign)).join(" ");
    console.log(sorted(["10", "", "9", "-1"], 1), "|", sorted(["10", "", "9", "-1"], -1), "|",
                sorted(["k5 k3", "", "k3 k7"], 1));
    """
    output = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "-1 9 10  | 10 9 -1  | k3 k7 k5 k3"


def test_numbers_of_the_vertical_axis_leave_room_for_its_title_on_a_phone() -> None:
    """There, text is 17 units high: a digit is about 0.6 of it wide, and a fifth of a title hangs down."""
    close = replace(FAST, metric=0.9912), replace(BALANCED, metric=0.9956)
    chart = pareto_chart(report_of(*close), "latency_ms")
    numbers = re.findall(r'<text x="(\d+)" y="[\d.]+" text-anchor="end">([^<]+)<', chart)
    [title] = re.findall(r'rotate\(-90 (\d+) ', chart)
    assert "0.992" in dict(map(reversed, numbers))
    assert all(int(x) - 0.6 * 17 * len(words) > int(title) + 0.2 * 17 for x, words in numbers)
