"""Let processes that are started from this one know ``nn_meter``, too.

They inherit the environment: its ``PYTHONPATH`` leads them to a folder with nothing but a ``sitecustomize``,
which Python runs as it starts. So workers of ``multiprocessing``, trials of NNI, and kernels of notebooks
know it. Python does not do so under its options ``-I``, ``-E`` and ``-S``.
"""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = str(Path(__file__).resolve().parent / "at_start")
_VARIABLE = "PYTHONPATH"


def include_children() -> None:
    """Prepare processes that are started from now on."""
    os.environ[_VARIABLE] = os.pathsep.join([_FOLDER, *_others()])


def leave_children_alone() -> None:
    """Undo :func:`include_children`."""
    if _FOLDER not in _entries():
        return
    if others := _others():
        os.environ[_VARIABLE] = os.pathsep.join(others)
    else:
        del os.environ[_VARIABLE]


def _entries() -> list[str]:
    return list(filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep)))


def _others() -> list[str]:
    return [entry for entry in _entries() if entry != _FOLDER]
