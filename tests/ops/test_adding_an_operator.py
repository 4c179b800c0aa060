"""What ``docs/adding_an_operator.md`` shows is what stands in the package, and works."""

from __future__ import annotations

import inspect
import re

import pytest

from layout import REPOSITORY
from nnmeter_nas.ops import operator

PAGE = (REPOSITORY / "docs" / "adding_an_operator.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"<!-- in (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
RUN = [code for mark, code in re.findall(r"(-->\n)?```python\n(.*?)```", PAGE, re.DOTALL) if not mark]


@pytest.mark.parametrize(("path", "code"), QUOTED)
def test_quoted_code_stands_in_the_package(path: str, code: str) -> None:
    assert code in (REPOSITORY / path).read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    pytest.importorskip("torch")
    assert len(QUOTED) == 2
    for code in RUN:
        exec(code, {})
    assert RUN


def test_the_table_has_every_argument() -> None:
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert told == {*inspect.signature(operator).parameters} - {"name"}


@pytest.mark.parametrize("link", re.findall(r"\]\(\.\./(.*?)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()
