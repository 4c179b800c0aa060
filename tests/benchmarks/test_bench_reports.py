"""Reports on packs: the tables are what the installed packs do, and nothing else on a page changes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.benchmarks.packs.pack_training import Plan, train_packs
from nnmeter_nas.benchmarks.packs.reports import evaluate_packs, write_readme
from nnmeter_nas.errors import DatasetError, UnknownDeviceError
from nnmeter_nas.packs import registry
from nnmeter_nas.readers.nnmeter_ir.dataset import iter_models
from synthetic_bench import CPU, VPU, write_bench

# Barely trained packs predict far outside what they saw, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning")

PAGE = """before
<!-- standard networks: begin -->
old figures
<!-- standard networks: end -->
between
<!-- accuracy: begin -->
<!-- accuracy: end -->
after
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A made-up dataset and packs trained on it."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "bench").mkdir()
    bench = write_bench(folder / "bench")
    plan = Plan(devices=(CPU, VPU), members=1, seed=0, epochs=1, lofo_epochs=1)
    train_packs(bench, folder / "packs", folder / "work", plan)
    return bench, folder / "packs"


@pytest.fixture
def bench(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up dataset, while its packs are the ones installed."""
    monkeypatch.setattr(registry, "bundled_packs", lambda: trained[1])
    return trained[0]


def test_tables_replace_their_sections_alone(bench: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    write_readme(bench, [CPU, VPU], page)
    once = page.read_text(encoding="utf-8")
    write_readme(bench, [CPU, VPU], page)
    assert page.read_text(encoding="utf-8") == once
    kept = [line for line in once.splitlines() if not line.startswith("|")]
    assert kept == [line for line in PAGE.splitlines() if line != "old figures"]


def test_standard_networks_show_predicted_beside_measured(bench: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    write_readme(bench, [CPU, VPU], page)
    [row] = [
        line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| plainnet |")
    ]
    model = next(iter_models(bench / "plainnets.jsonl"))
    measured, predicted = model.latency_ms[CPU], load_latency_predictor(CPU).predict(model.graph)
    assert model.id == "plainnet_0"
    assert f"{predicted:.1f} / {measured:.1f} ({predicted / measured - 1:+.1%})" in row
    assert row.endswith("| – |"), "the VPU has no figure of this model"


@pytest.mark.parametrize("section", ["standard networks", "accuracy"])
def test_page_without_a_section_is_left_alone(bench: Path, tmp_path: Path, section: str) -> None:
    page = tmp_path / "page.md"
    text = PAGE.replace(f"<!-- {section}: end -->", "")
    page.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"page\.md has no section between .*{section}"):
        write_readme(bench, [CPU], page)
    assert page.read_text(encoding="utf-8") == text


def test_evaluation_prints_accuracy_by_family(bench: Path) -> None:
    console = Console(width=160)
    with console.capture() as captured:
        evaluate_packs(bench, [CPU, VPU], console)
    text = captured.get()
    for word in (CPU, VPU, "plainnet", "wideception", "all", "MAPE", "Spearman"):
        assert word in text


def test_evaluation_of_a_device_that_is_not_installed_is_refused(bench: Path) -> None:
    with pytest.raises(UnknownDeviceError, match="adreno640gpu_tflite21"):
        evaluate_packs(bench, ["adreno640gpu_tflite21"], Console(file=io.StringIO()))
