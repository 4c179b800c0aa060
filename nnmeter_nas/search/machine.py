"""What a machine has for trials, whether that will do, and running one if it does.

This module is sent to other machines as it is, so it needs nothing but Python there.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

#: Package -> how many parts of its version must be the same; None means all of it. A build for another
#: accelerator (2.13.0+cu126) is the same version.
_PACKAGES = {"nnmeter_nas": None, "nni": None, "torch": 2}
#: Seconds for the driver to list its GPUs: it may have to load first.
_LIST_S = 60


def facts(modules: Sequence[str] = ()) -> dict[str, Any]:
    """Return the versions on this machine, and why those of ``modules`` that cannot be imported cannot."""
    versions: dict[str, str | None] = {"Python": ".".join(map(str, sys.version_info[:2]))}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    failures = {}
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # importing a user's module can raise anything
            failures[module] = f"{type(error).__name__}: {error}"
    sys.path.remove("")
    return {"versions": versions, "failures": failures}


def gpus() -> int:
    """Return how many GPUs this machine has for trials: NNI gives them those that nvidia-smi lists."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_LIST_S)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def lacks(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Say why a machine with the facts ``there`` cannot run trials of a search on one with those ``here``.

    >>> lacks({"versions": {"nni": "3.0"}}, {"versions": {"nni": None}, "failures": {}})
    ['it has no nni, and the search runs with 3.0']
    """
    found = []
    for package, mine in here["versions"].items():
        its = there["versions"].get(package)
        if _compared(package, its) != _compared(package, mine):
            found.append(f"it has {package} {its}, and the search runs with {mine}" if its else
                         f"it has no {package}, and the search runs with {mine}")  # fmt: skip
    found += [f"it cannot import {module}: {why}" for module, why in there["failures"].items()]
    return found


def _compared(package: str, its: str | None) -> str | None:
    """Return the part of a version that must be the same."""
    return its and ".".join(its.partition("+")[0].split(".")[: _PACKAGES.get(package)])


def attempt(
    here: Mapping[str, Any], modules: Sequence[str], task: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Run a trial as a task of Ray.

    Args:
        here: :func:`facts` of the machine that the search runs on.
        modules: what the trial imports.
        task: what :func:`.distant.run_task` takes.

    Yields:
        ``node`` and Ray's number of the machine; if that machine will not do, ``lacks`` and why, and nothing
        more; ``outcome`` and what :func:`.distant.run_task` returns.
    """
    import ray

    yield "node", ray.get_runtime_context().get_node_id()
    if reasons := lacks(here, facts(modules)):
        yield "lacks", reasons
        return
    # Late, and by its full name: only now it is known that the machine has the package.
    from nnmeter_nas.search.distant import run_task

    yield "outcome", run_task(task)


if __name__ == "__main__":
    print(json.dumps({**facts(sys.argv[1:]), "gpus": gpus()}))
