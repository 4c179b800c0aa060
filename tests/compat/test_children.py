"""Processes that a program starts know nn_meter as the program does, unless they are to be left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnmeter_nas import compat

IMPORT = "import nn_meter; print(nn_meter.load_latency_predictor.__module__)"
OURS = "nnmeter_nas.compat.interface\n"


@pytest.fixture(autouse=True)
def path_of_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Start without a PYTHONPATH, and end without what was installed."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield monkeypatch
    compat.uninstall()


def run(*arguments: str, folder: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_processes_know_nn_meter_until_it_is_uninstalled(tmp_path: Path) -> None:
    compat.install()
    assert run("-c", IMPORT, folder=tmp_path).stdout == OURS
    assert run("-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])", IMPORT,
               folder=tmp_path).stdout == OURS  # fmt: skip
    compat.uninstall()
    assert "PYTHONPATH" not in os.environ
    assert "No module named 'nn_meter'" in run("-c", IMPORT, folder=tmp_path).stderr


def test_processes_are_left_alone_if_asked(tmp_path: Path) -> None:
    compat.install(children=False)
    assert compat.is_installed()
    assert "No module named 'nn_meter'" in run("-c", IMPORT, folder=tmp_path).stderr
    compat.install()
    compat.install(children=False)
    assert "PYTHONPATH" not in os.environ


def test_path_of_the_user_is_kept(path_of_python: pytest.MonkeyPatch) -> None:
    path_of_python.setenv("PYTHONPATH", "/one")
    compat.install()
    compat.install()
    entries = os.environ["PYTHONPATH"].split(os.pathsep)
    assert entries[1:] == ["/one"]
    os.environ["PYTHONPATH"] += os.pathsep + "/two"
    compat.uninstall()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == ["/one", "/two"]


def test_a_sitecustomize_of_the_users_still_runs(tmp_path: Path, path_of_python: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.started = 'by the user'\n")
    path_of_python.setenv("PYTHONPATH", str(tmp_path))
    compat.install()
    code = f"import sys, sitecustomize; print(sys.started, sitecustomize.__file__); {IMPORT}"
    result = run("-c", code, folder=tmp_path)
    assert result.stdout == f"by the user {tmp_path / 'sitecustomize.py'}\n{OURS}"
    assert result.stderr == ""


def test_nothing_but_nn_meter_changes_in_processes(tmp_path: Path) -> None:
    code = "import sys; print(sys.path, {'torch', 'nni', 'numpy', 'networkx'} & set(sys.modules))"
    before = run("-c", code, folder=tmp_path).stdout
    compat.install()
    assert run("-c", code, folder=tmp_path).stdout == before


def test_python_of_another_environment_is_left_alone(
    tmp_path: Path, path_of_python: pytest.MonkeyPatch
) -> None:
    other = getattr(sys, "_base_executable", sys.executable)
    if run("-c", "import nnmeter_nas", folder=tmp_path, python=other).returncode == 0:
        pytest.skip("this Python is no virtual environment")
    (tmp_path / "nn_meter.py").write_text("def load_latency_predictor(): ...\n")
    path_of_python.setenv("PYTHONPATH", str(tmp_path))
    compat.install()
    result = run("-c", IMPORT, folder=tmp_path, python=other)
    assert (result.stdout, result.stderr) == ("nn_meter\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_know_nn_meter(tmp_path: Path, method: str) -> None:
    (tmp_path / "work.py").write_text(f"def work(_):\n    {IMPORT}\n")
    (tmp_path / "script.py").write_text(f"""
import multiprocessing
from work import work

if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        pool.map(work, [1])
""")
    result = run("-m", "nnmeter_nas.compat", "script.py", folder=tmp_path)
    assert result.stdout == OURS, result.stderr


TESTS = """
import nn_meter, subprocess, sys

def test_predictors():
    assert nn_meter.list_latency_predictors()

def test_process():
    subprocess.run([sys.executable, "-c", "import nn_meter"], check=True)
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_modules_run_as_scripts_do(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-q", "-n", workers, "-p", "no:cacheprovider", "test_it.py"]
    result = run("-m", "nnmeter_nas.compat", "-m", "pytest", *options, folder=tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_kernels_of_notebooks_and_their_processes_know_nn_meter(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    v4 = pytest.importorskip("nbformat").v4
    process = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {IMPORT!r}], check=True)"
    cells = ["import subprocess, sys, nnmeter_nas.compat as compat; compat.install()", IMPORT,
             f"print(subprocess.check_output([sys.executable, '-c', {process!r}]))"]
    book = v4.new_notebook(cells=list(map(v4.new_code_cell, cells)))
    kernel_folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, resources=kernel_folder).execute()
    assert [cell.outputs[0].text for cell in book.cells[1:]] == [OURS, f"{OURS.encode()!r}\n"]


def test_wrong_usage_is_refused(tmp_path: Path) -> None:
    for arguments, message in (([], "usage"), (["-m"], "usage"), (["absent.py"], "no script at absent.py")):
        result = run("-m", "nnmeter_nas.compat", *arguments, folder=tmp_path)
        assert result.returncode == 2
        assert message in result.stderr
