"""Builds the wheel and the source distribution, and tries each in fresh environments.

    python tools/dist.py [--python 3.10 3.13] [--output dist]

An environment holds the package with its required dependencies, in the newest versions that there are: what
a user gets. In it the command must give its version, and each bundled predictor the latency that it gives
here. Pythons that are not installed are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from nnmeter_nas import list_latency_predictors, load_latency_predictor, read_model
from nnmeter_nas.benchmarks.networks import build_network, input_shape
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NETWORK = "squeezenet1_1"
#: NumPy's releases add up in different orders.
TOLERANCE = 1e-6
_PREDICT = """\
import json, sys
from nnmeter_nas import load_latency_predictor
print(json.dumps({name: load_latency_predictor(name).predict(sys.argv[1]) for name in sys.argv[2:]}))
"""


def main() -> int:
    """Build and try; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="VERSION", help="Pythons to try")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", metavar="DIR",
                        help="folder of the files, emptied first")
    options = parser.parse_args()
    files = build(options.output)
    pythons = {version: interpreter(version) for version in options.python}
    for version in [version for version, path in pythons.items() if path is None]:
        print(f"Python {version} is not installed: not tried on it")
    found = {version: path for version, path in pythons.items() if path is not None}
    if not found:
        print("none of these Pythons is installed, so nothing was tried", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        model, expected = reference(Path(folder))
        for version, path in found.items():
            for file in files:
                try_out(file, path, Path(folder) / "environment", model, expected)
                print(f"{file.name} works on Python {version}", flush=True)
    return 0


def build(output: Path) -> list[Path]:
    """Build the source distribution, and from that the wheel, so that nothing else gets in."""
    shutil.rmtree(output, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", output, REPOSITORY],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sorted(output.iterdir())


def interpreter(version: str) -> Path | None:
    """Return an interpreter of this version that can make environments; None if there is none."""
    shim = shutil.which(f"python{version}")
    if shim is None:
        return None
    # A shim of pyenv is there for every version that pyenv has, and runs only those that are switched on.
    installed = (Path(shim).parent.parent / "versions").glob(f"{version}.*/bin/python{version}")
    for path in [Path(shim), *installed]:
        tried = subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True)
        if tried.returncode == 0:
            return path
    return None


def reference(folder: Path) -> tuple[Path, dict[str, float]]:
    """Write a network in a format that needs no other package; return it and its latencies in ms here."""
    with torch.device("meta"):
        network = build_network(NETWORK)
    model = folder / f"{NETWORK}.json"
    model.write_text(json.dumps(to_nnmeter_ir(read_model(network, input_shape=input_shape(NETWORK)))))
    names = sorted({str(card["name"]) for card in list_latency_predictors()})
    return model, {name: load_latency_predictor(name).predict(model) for name in names}


def try_out(file: Path, python: Path, folder: Path, model: Path, expected: dict[str, float]) -> None:
    """Install a file into a fresh environment, and compare what it says with what this checkout says.

    Raises:
        AssertionError: it says something else.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = folder / "bin" / "python"
    subprocess.run([own, "-m", "pip", "--disable-pip-version-check", "install", "-q", file], check=True)
    said = _output(folder / "bin" / "nnmeter-nas", "--version", cwd=folder)
    assert said == f"nnmeter-nas {file_version(file)}", f"{file.name} on {python} calls itself {said!r}"
    ms: dict[str, float] = json.loads(_output(own, "-c", _PREDICT, model, *expected, cwd=folder))
    for name, latency in expected.items():
        same = math.isclose(ms[name], latency, rel_tol=TOLERANCE)
        assert same, f"{file.name} on {python}: {ms[name]} ms on {name}, and {latency} ms here"


def file_version(file: Path) -> str:
    """The version in the name of a wheel or a source distribution.

    >>> file_version(Path("nnmeter_nas-1.2.3-py3-none-any.whl"))
    '1.2.3'
    >>> file_version(Path("nnmeter_nas-1.2.3.tar.gz"))
    '1.2.3'
    """
    return file.name.removesuffix(".tar.gz").split("-")[1]


def _output(*command: Any, cwd: Path) -> str:
    """What a command prints, run outside the checkout."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
