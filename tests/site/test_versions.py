"""The version stands in one place; what else speaks of it agrees."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import yaml

from layout import REPOSITORY

PYPROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
(VERSION,) = re.findall(r'^version = "(.*)"$', PYPROJECT, re.M)


def test_the_package_has_the_version_of_its_project() -> None:
    assert version("nnmeter_nas") == VERSION


def test_the_change_log_tells_of_the_version() -> None:
    headings = re.findall(r"^## (.*)$", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] == "Unreleased"
    assert headings[1] == VERSION


def test_no_module_repeats_it() -> None:
    sources = [path for folder in ("nnmeter_nas", "tools") for path in (REPOSITORY / folder).rglob("*.py")]
    holding = [path for path in sources if f'"{VERSION}"' in Path(path).read_text(encoding="utf-8")]
    assert holding == []


def test_the_citation_can_be_read_and_has_the_licence_of_the_project() -> None:
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert f'license = "{cited["license"]}"' in PYPROJECT
    assert "version" not in cited
