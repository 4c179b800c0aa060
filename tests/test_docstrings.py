"""The examples in docstrings are what a reader tries first; they run as written."""

from __future__ import annotations

import doctest
import importlib

import pytest

from layout import SOURCES


def modules_with_examples() -> list[str]:
    """Import names of all modules of the package that hold a ``>>>`` line."""
    names = []
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(folder).with_suffix("").parts
                names.append(".".join([package, *(part for part in parts if part != "__init__")]))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples_work(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
