"""The notebooks run from top to bottom, and draw their plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from layout import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")

NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    notebook = nbformat.read(path, as_version=4)
    # The limit is for a busy machine; each takes less than half a minute.
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert len(plots(notebook)) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_output_and_its_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if cell.get("outputs")] == []
    for cell in notebook.cells:
        for target in links(cell) if cell.cell_type == "markdown" else []:
            assert (path.parent / target).exists(), target


def plots(notebook: Any) -> list[str]:
    """The pictures that its cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def links(cell: Any) -> list[str]:
    """Where the links of a cell lead, without those to other sites."""
    found = [part.split(")")[0] for part in cell.source.split("](")[1:]]
    return [target.partition("#")[0] for target in found if "://" not in target]
