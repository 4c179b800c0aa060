"""The documentation site builds without a warning, its links lead somewhere, and it loads what it has."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnmeter_nas
from layout import REPOSITORY
from nnmeter_nas.cli.commands import COMMANDS
from site_tools import site_tool

faults = site_tool("links").faults


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode: a warning of mkdocs is an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", folder],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert list(faults(site)) == []


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    sources = {path.stem for path in (REPOSITORY / "docs").rglob("*.md")}
    assert sources <= {path.stem for path in site.rglob("*.html")}


def test_every_command_is_explained(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"<code>nnmeter-nas {name}</code>" not in page] == []
    assert "<code>nnmeter-nas lut rank</code>" in page
    assert "--max-latency" in page


def test_every_public_name_is_explained(site: Path) -> None:
    page = (site / "reference" / "python" / "nnmeter_nas.html").read_text(encoding="utf-8")
    missing = [name for name in nnmeter_nas.__all__ if f'<h2 id="{name.lower()}"' not in page]
    assert missing == []
    assert "LatencyPredictor.predict_interval" in page


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">', "gone.html"),
        ('<a href="#gone">', "no such anchor"),
        ('<script src="https://elsewhere.example/x.js">', "loads"),
        ('<link rel="stylesheet" href="//elsewhere.example/x.css">', "loads"),
    ],
)
def test_a_bad_link_is_found(tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "index.html").write_text(f'<a id="here" href="#here">{body}', encoding="utf-8")
    (found,) = faults(tmp_path)
    assert fault in found


@pytest.mark.parametrize("name", ["docstrings", "repository"])
def test_examples_in_the_tools_work(name: str) -> None:
    results = doctest.testmod(site_tool(name))
    assert results.attempted > 0
    assert results.failed == 0
