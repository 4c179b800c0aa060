"""Try one tool on models of every source, under an interpreter that has it: started by :func:`try_tool`."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..speed.figures import MeasurementError
from .models import load_model, names_of
from .tools import Fvcore, NnMeter, Ours, Profiler, Tool, Torchinfo

#: Models that a tool without patches is tried on: it fails on all for the same reason.
_FEW = 3
#: Longest text of an error that is kept.
_LONGEST = 200
#: What colours a text on a terminal.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Tool -> how it is made, from the options of :func:`main`.
_TOOLS: Mapping[str, Callable[[argparse.Namespace], Tool]] = {
    "nnmeter_nas": lambda options: Ours(options.device),
    "nn-meter": lambda options: NnMeter(options.environment, options.forests),
    "nni": lambda options: Profiler(options.environment, options.forests),
    "fvcore": lambda options: Fvcore(),
    "torchinfo": lambda options: Torchinfo(),
}


def try_tool(
    tool: str,
    python: Path,
    environment: Path,
    models: Path,
    forests: Path,
    networks: Sequence[str],
    device: str,
) -> dict[str, Any]:
    """Try ``tool`` in a process of its own, and return what came of it.

    Args:
        tool: a key of the table's columns.
        python: interpreter of an environment with this package.
        environment: virtual environment of the tool; its packages come after those of ``python``.
        models: folder of the networks' files.
        forests: folder of a predictor in nn-Meter's format.
        networks, device: what is tried, and the applied hardware of our pack.

    Returns:
        ``predicts``; ``versions``; and by source and model ``ms`` of processor time, ``value``, ``beyond``
        and ``flops``, or the ``error``.

    Raises:
        MeasurementError: the tool is not there; the message ends with the last line that its process printed.
    """
    with tempfile.TemporaryDirectory() as home:
        result = Path(home) / "result.json"
        command: list[str | Path] = [
            python, "-W", "ignore", "-m", __name__, tool, models, forests, environment, result,
            "--device", device, "--network", *networks,
        ]  # fmt: skip
        try:
            run = subprocess.run(
                command, capture_output=True, text=True, check=False,
                # nn-Meter writes a folder into the user's home when it is imported.
                env={**os.environ, "HOME": home, "USERPROFILE": home, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        except OSError as error:
            raise MeasurementError(f"{python} does not run: {error}") from error
        if run.returncode:
            raise MeasurementError(f"{tool} cannot be tried: {(run.stderr.splitlines() or ['?'])[-1]}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Try a tool, and write a JSON file of what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, prog=f"python -m {__name__}")
    parser.add_argument("tool", choices=_TOOLS)
    parser.add_argument("models", type=Path, help="folder of the networks' files")
    parser.add_argument("forests", type=Path, help="folder of a predictor in nn-Meter's format")
    parser.add_argument("environment", type=Path, help="virtual environment of the tool")
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", required=True, help="applied hardware of our pack")
    parser.add_argument("--network", nargs="+", required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sys.path += map(str, options.environment.absolute().glob("lib/python*/site-packages"))
    found = tried(_TOOLS[options.tool](options), options.models, options.network)
    packages = {"nni": "nn-meter"}.get(options.tool)
    found["versions"] = {name: version(name) for name in filter(None, (options.tool, packages))}
    options.result.write_text(json.dumps(found), encoding="utf-8")


def tried(tool: Tool, models: Path, networks: Sequence[str]) -> dict[str, Any]:
    """What ``tool`` tells of the models of each source, and how long it takes."""
    sources: dict[str, dict[str, Any]] = {}
    for name, ask in tool.asks.items():
        source, _, released = name.partition(", ")
        names = names_of(source, models, networks)
        sources[name] = {}
        for number, model in enumerate(names[:_FEW] if released else names):
            if not number:
                _asked(tool, ask, source, models, model)  # the first of a process loads modules
            sources[name][model] = _asked(tool, ask, source, models, model)
    return {"predicts": tool.predicts, "sources": sources}


def _asked(tool: Tool, ask: Callable[[Any], float], source: str, folder: Path, name: str) -> dict[str, Any]:
    """What the tool tells of one model; any error is the tool's answer, too."""
    try:
        model = load_model(source, folder, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.process_time()
            value = ask(model)
            took = time.process_time() - start
            if not value:
                raise ValueError("it says 0")
            found = {"ms": 1000 * took, "value": value, "beyond": tool.beyond(model)}
            return {**found, "flops": tool.flops(model)} if source == "torch" else found
    except Exception as error:
        told = _COLOURS.sub("", f"{type(error).__name__}: {error}")
        return {"error": " ".join(told.split())[:_LONGEST]}


if __name__ == "__main__":
    main()
