"""The code on the pages works as it is written; what cannot run here says why, and is reported as skipped."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from layout import REPOSITORY
from nnmeter_nas import read_model
from nnmeter_nas.benchmarks.networks import build_network, input_shape
from nnmeter_nas.readers.onnx.writer import to_onnx
from snippets import Snippet, snippets

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
BLOCKS = {page: list(snippets(page)) for page in PAGES}
#: A model that readers of a page are supposed to have, under the names that pages give it.
GIVEN, NAMES = "squeezenet1_1", ("mobilenet_v2.onnx", "model.onnx", "models/a.onnx")
_KNOWN_MARKS = ("not run: ", "in ")


def _parameters() -> list[Any]:
    """The pages with code that is run."""
    found = []
    for page, blocks in BLOCKS.items():
        if any(block.why_not_run is None for block in blocks):
            found.append(pytest.param(page, id=page.relative_to(REPOSITORY).as_posix()))
    return found


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that a reader has."""
    folder = tmp_path_factory.mktemp("given")
    graph = read_model(build_network(GIVEN), input_shape=input_shape(GIVEN))
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(to_onnx(graph))
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _parameters())
def test_code_of_a_page_works(
    page: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    folder = tmp_path / "work"
    shutil.copytree(given, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    if page.name == "proxylessnas.md":  # it sets this attribute
        with contextlib.suppress(ImportError):
            proxyless = importlib.import_module("nni.retiarii.oneshot.pytorch.proxyless")
            monkeypatch.setattr(proxyless, "HardwareLatencyEstimator", proxyless.HardwareLatencyEstimator)
    names: dict[str, Any] = {"__name__": "page", "module": build_network(GIVEN)}
    before = set(sys.modules)
    try:
        for block in BLOCKS[page]:
            with subtests.test(f"line {block.line}"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NNI, and of networks that pages make up
                _run(block, folder, names)
    finally:
        # Files of a page are modules too; another page may have one of that name.
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def _run(block: Snippet, folder: Path, names: dict[str, Any]) -> None:
    if block.why_not_run is not None:
        pytest.skip(block.why_not_run)
    block.run(folder, names)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.name)
def test_marks_are_understood(page: Path) -> None:
    unknown = [
        f"{page.name}:{block.line} {block.mark}"
        for block in BLOCKS[page]
        if block.mark and not block.mark.startswith(_KNOWN_MARKS)
    ]
    assert unknown == []


def test_a_page_that_fails_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n<!-- not run: no time -->\n```sh\nexit 3\n```\n\n```sh\nexit 4\n```\n"
        "```python\nassert x == 2\n```\n",
        encoding="utf-8",
    )
    first, left_out, command, last = snippets(page)
    assert left_out.why_not_run == "no time"
    names: dict[str, Any] = {}
    first.run(tmp_path, names)
    assert names["x"] == 1
    with pytest.raises(AssertionError, match=r"page\.md:10"):
        command.run(tmp_path, names)
    with pytest.raises(AssertionError) as failed:
        last.run(tmp_path, names)
    assert failed.traceback[-1].lineno == last.line - 1
