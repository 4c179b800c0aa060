"""Describe a run's environment: the machine, its load, and the versions of the compared packages."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil

#: Packages in the environment of the run that the figures depend on.
_PACKAGES = ("nnmeter_nas", "numpy", "networkx", "scikit-learn", "torch", "nni")


def machine(environments: Mapping[str, tuple[Path, str]]) -> dict[str, Any]:
    """Describe the machine and the installed packages, ready for JSON.

    Args:
        environments: rivals with their own virtual environments: name -> (folder of the environment,
            package). Rivals that are not installed are left out.
    """
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    rivals = {rival: _version_in(*where) for rival, where in environments.items()}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: version(name) for name in _PACKAGES},
        "rivals": {rival: found for rival, found in rivals.items() if found},
    }


def is_busy(described: Mapping[str, Any]) -> bool:
    """Whether more than half of the cores were busy before the run."""
    return bool(described["load_before"] > described["cores"] / 2)


def load_text(described: Mapping[str, Any]) -> str:
    """Say how busy the machine was before the run."""
    busy = ", a busy machine" if is_busy(described) else ""
    return f"load {described['load_before']} before{busy}"


def machine_line(described: Mapping[str, Any], with_load: bool = True) -> str:
    """Describe the machine in one line."""
    packages = {**described["packages"], **described["rivals"]}
    load = f" ({load_text(described)})" if with_load else ""
    return (
        f"Measured {described['date'].partition('T')[0]} on {described['cores']} cores of "
        f"{described['cpu']}, {described['memory_gib']} GiB, {described['system']}{load}, Python "
        f"{described['python']}, {', '.join(f'{name} {number}' for name, number in packages.items())}."
    )


def _version_in(environment: Path, package: str) -> str | None:
    """Return a package's version in another virtual environment; None if it is not installed."""
    folders = map(str, environment.glob("lib/python*/site-packages"))
    return next((found.version for found in distributions(name=package, path=list(folders))), None)
