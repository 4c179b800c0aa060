"""What a user gets by installing the package: a light core, every public name, the packs, the command."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from layout import PLUGIN_FOLDERS, REPOSITORY, SOURCES

DEVICES = {
    "adreno630gpu_tflite21",
    "adreno640gpu_tflite21",
    "cortexA76cpu_tflite21",
    "myriadvpu_openvino2019r2",
}

IMPORT_EVERY_CORE_MODULE = f"""
import importlib, pkgutil, sys
import nnmeter_nas
others = tuple("nnmeter_nas." + name for name in ({PLUGIN_FOLDERS} + ("nni.", "training.", "compat.gnn_")))
for module in pkgutil.walk_packages(nnmeter_nas.__path__, "nnmeter_nas."):
    if not module.name.startswith(others):
        importlib.import_module(module.name)
print(*sorted({{"nni", "onnx", "sklearn", "torch"}} & set(sys.modules)))
"""

LIST_DEVICES_OF_INSTALLED_PACKAGE = """
import nnmeter_nas, nnmeter_nas.benchmarks, nnmeter_nas.strategies
print(nnmeter_nas.__file__)
print(*sorted({predictor["name"] for predictor in nnmeter_nas.list_latency_predictors()}))
"""


def tracked() -> list[str]:
    """The files that git tracks and that are there, by their path in the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def names_in_wheel(folder: Path, package: str, ending: str) -> set[str]:
    """The tracked files of a source folder that end so, by the names that they have in a wheel."""
    prefix = package.replace(".", "/")
    paths = (REPOSITORY / name for name in tracked() if name.endswith(ending))
    inside = (path.relative_to(folder) for path in paths if path.is_relative_to(folder))
    return {f"{prefix}/{path.as_posix()}" for path in inside}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the files that git tracks, so that nothing else that lies about leaks into it."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, source / name)
    folder = tmp_path_factory.mktemp("wheel")
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "-w", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.nni3
def test_prediction_needs_neither_torch_nor_nni() -> None:
    command = [sys.executable, "-c", IMPORT_EVERY_CORE_MODULE]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert loaded == []


@pytest.mark.nni3
@pytest.mark.parametrize("package", SOURCES)
def test_every_public_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_wheel_holds_every_module_and_no_other_top_level_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = set().union(*(names_in_wheel(folder, package, ".py") for package, folder in SOURCES.items()))
    assert {name for name in names if name.endswith(".py")} == expected
    top_level = {name.split("/")[0] for name in names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"nnmeter_nas"}


def test_wheel_holds_packs_licence_and_attribution(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("nnmeter_nas", "nnmeter_nas.benchmarks.search"):
        folder = SOURCES["nnmeter_nas"] if package == "nnmeter_nas" else REPOSITORY / "benchmarks" / "search"
        expected = names_in_wheel(folder / "data", f"{package}.data", "")
        assert f"{package.replace('.', '/')}/data/ATTRIBUTION.md" in expected
        assert expected <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_wheel_predicts_for_every_device_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", wheel]
    subprocess.run(pip, check=True)
    result = subprocess.run(
        [sys.executable, "-c", LIST_DEVICES_OF_INSTALLED_PACKAGE],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    location, devices = result.stdout.splitlines()
    assert Path(location).is_relative_to(tmp_path)
    assert set(devices.split()) >= DEVICES


def test_installed_command_explains_itself() -> None:
    command = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
    result = subprocess.run([command, "--help"], check=True, capture_output=True, text=True)
    assert "usage: nnmeter-nas" in result.stdout
