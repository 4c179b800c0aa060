"""The page of a build: everything is on it, and nothing on it is loaded from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from nnmeter_nas.builder.findings import Findings, KindFound, LeftOut, NetworkFound
from nnmeter_nas.builder.report import report_html
from nnmeter_nas.builder.rules import Found
from nnmeter_nas.builder.workspace import Round
from web_page import Page

EVIL = "<script>alert(1)</script>"

FOUND = Findings(
    device={
        "name": "my-board", "backend": "board:Board", "runtime": "tflite 2.14", "machine": "Cortex-A76",
        "plan": {"minutes": 5.0, "networks": 48},
    },
    rounds=[Round(23, 1, 1.25, 40.0, 60.0, 80.0, 90.0), Round(46, 2, 2.5, 55.0, 75.0, 81.0, 91.0)],
    networks=[
        NetworkFound("network0000", False, False, 10.0, 10.2, (10.0, 10.4)),
        NetworkFound("network0001", True, True, 2.0, 2.3, (2.0, 2.02)),
        NetworkFound("network0002", False, False, 0.5, 0.5, (0.5, 0.75)),
        NetworkFound("network0005", True, True, 8.0, 7.8, (8.0, 8.1)),
    ],
    kinds=[
        KindFound("conv", 40, 12, 71.25, -3.5, 8.25, 66.7),
        KindFound("matmul", 4, 0, 28.75, None, None, None),
    ],
    rules=["conv->relu"],
    votes=[
        Found(("conv", "relu"), 30, 31), Found(("conv", "add"), 0, 7), Found(("conv", "add", "relu"), 0, 5),
    ],
    left_out=[LeftOut("network0003", 3, "it did not end within 60 s")],
    finished=False,
)  # fmt: skip


def test_page_tells_all_there_is_to_know() -> None:
    page = Page(report_html(FOUND))
    assert page.texts["h2"] == [
        "Predicted and measured", "Accuracy over time", "Noise", "Error by kernel type", "Fusion rules",
        "Networks left out", "Device and plan",
    ]  # fmt: skip
    text = page.texts["header"][0] + page.texts["main"][0]
    for words in (
        "Predictor of my-board", "tflite 2.14 on Cortex-A76", "The build goes on, after 2 rounds",
        "of 2 not trained on; the device repeats 91.0 %", "network0001, not trained on", "+15.0 %",
        "differ by 1.1 % in the median, and by 1.2 % at most", "71.2 %", "-3.5 %", "8.2 %",
        "conv->relu", "it did not end within 60 s", "board:Board", "1 network left out",
    ):  # fmt: skip
        assert words in text, words
    assert "50.0 %" in page.texts["dd"][0], "one of the two that judge is within 10 %"
    assert "conv->add->relu" not in text, "longer chains are on the page where they are rules"
    assert [text for text in page.texts["tr"] if "->" in text] == ["conv->relu303197 %yes"]
    assert "conv->add 7" in page.texts["span"], "it was never fused"


def test_page_of_a_finished_build_says_how_to_use_it() -> None:
    networks = [one._replace(unseen=True) for one in FOUND.networks]
    page = Page(report_html(replace(FOUND, networks=networks, finished=True)))
    assert "The predictor is made, after 2 rounds" in page.texts["header"][0]
    assert "--predictor my-board" in page.texts["header"][0]
    assert "of 4 not trained on" in page.texts["dl"][0], "each is predicted by a fit without it"
    assert "predicted by a fit that was not trained on it" in page.texts["main"][0]
    assert "trained on" not in [text.strip() for text in page.texts["span"]]


def test_pairs_that_time_does_not_tell_are_called_uncertain() -> None:
    votes = [
        *FOUND.votes, Found(("conv", "gelu"), 0, 0, True), Found(("dwconv", "relu"), 1, 2, True),
    ]  # fmt: skip
    page = Page(report_html(replace(FOUND, rules=["conv->relu", "dwconv->relu"], votes=votes)))
    assert "conv->gelu 0 of 0" in page.texts["span"]
    assert "dwconv->relu 1 of 2, taken for a rule" in page.texts["span"]
    assert [text for text in page.texts["tr"] if "->" in text] == ["conv->relu303197 %yes"]
    assert "Uncertain" not in Page(report_html(FOUND)).texts["main"][0]


def test_networks_and_rounds_are_drawn_each() -> None:
    page = Page(report_html(FOUND))
    kinds = [a.get("class") for a in page.all("g")]
    assert kinds.count("point front") == 2 + 1, "and the legend"
    assert kinds.count("point") == 2 + 1
    lines = {"line ten", "line five", "line ten repeat", "line five repeat"}
    assert {kind: kinds.count(kind) for kind in lines} == dict.fromkeys(lines, 2), "a mark for each round"
    assert "band" in {a.get("class") for a in page.all("path")}


def test_page_loads_nothing_and_escapes_what_it_shows() -> None:
    device = {**FOUND.device, "machine": EVIL, "runtime": EVIL}
    left_out = [LeftOut(EVIL, 1, EVIL)]
    text = report_html(replace(FOUND, device=device, left_out=left_out))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not {"src", "srcset", "href"} & {name for _, a in page.elements for name in a}
    assert not re.search(r"url\(|@import|https?://", text)


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_page_is_there_for_a_device_that_tells_little(seconds: float) -> None:
    first = [Round(2, 0, seconds / 60, 0.0, 0.0, 100.0, 100.0)]
    networks = [one._replace(measured=1.0, predicted=50.0, halves=(1.0, 1.0)) for one in FOUND.networks[:2]]
    bare = replace(
        FOUND, rounds=first, networks=networks, kinds=[], rules=[], votes=[], left_out=[]
    )
    text = Page(report_html(bare)).texts["main"][0]
    assert "does not tell what its kernels take" in text
    assert "does not tell what it fuses" in text
    assert "nan" not in report_html(bare)
