"""Shared test setup: fixtures for the measured data, slow tests last, one thread per process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from layout import REPOSITORY

BENCH_MODELS_PER_FAMILY = 20

# Set before torch is imported; trials of experiments inherit it. Tests share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Ray gives way to everything else by default, so its tasks would hardly run beside other tests.
os.environ.setdefault("RAY_worker_niceness", "0")

# Examples may be slow on a busy machine, which is not a failure.
settings.register_profile("nnmeter_nas", deadline=None)
settings.load_profile("nnmeter_nas")


#: Packages that tests of the core do without; a module of tests that imports one is left out by ``--core``.
BEYOND_THE_CORE = ("matplotlib", "nni", "psutil", "torch")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let ``--core`` run in an environment that has the core and its readers alone."""
    without = ", ".join(BEYOND_THE_CORE)
    parser.addoption("--core", action="store_true", help=f"skip modules of tests that need one of {without}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With ``--core``, skip a module of tests that cannot be imported without a package beyond the core."""
    report = yield
    cause = report.call.excinfo.value.__cause__ if report.call.excinfo else None
    if collector.config.getoption("--core") and isinstance(cause, ModuleNotFoundError):
        package = str(cause.name).partition(".")[0]
        if package in BEYOND_THE_CORE:
            report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: needs {package}")
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, then the slow ones, of which those that may take longest come first.

    Otherwise one of them is left for the end, and all workers but one have nothing to do.
    """
    items.sort(key=_order)


def _order(item: pytest.Item) -> tuple[bool, float]:
    slow, limit = item.get_closest_marker("slow"), item.get_closest_marker("timeout")
    return slow is not None, -limit.args[0] if slow and limit and limit.args else 0.0


@pytest.fixture(scope="session", autouse=True)
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty user folder, so that tests neither read nor change the user's own packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNMETER_NAS_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder ``shared`` with the measured latencies, next to the checkout or in a folder above it."""
    for folder in REPOSITORY.parents:
        if (folder / "shared" / "data" / "bench").is_dir():
            return folder / "shared"
    pytest.skip("needs the measured latencies: no folder above the checkout has shared/data/bench")


@pytest.fixture(scope="session")
def bench_dir(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bench dataset in the official schema, with the first models of each family."""
    folder = tmp_path_factory.mktemp("bench")
    tool = shared_dir / "tools" / "expand_bench.py"
    limit = str(BENCH_MODELS_PER_FAMILY)
    subprocess.run(
        [sys.executable, tool, shared_dir / "data" / "bench", folder, "--limit", limit],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder
