"""Scripts that NNI's manager, a program of Node.js, loads before its own code; each says its purpose."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

#: The scripts, by name.
LISTEN, END_WITH_PARENT = "listen", "end_with_parent"
REACH_MACHINES, OWN_PARAMETERS = "reach_machines", "own_parameters"
#: Environment variable with the address that the manager of one's own experiment is to listen on.
ADDRESS = "NNMETER_NAS_LISTEN"
_FOLDER = Path(__file__).with_name("manager")


def node_options(*scripts: str) -> str:
    """Return the value of the environment variable NODE_OPTIONS that loads ``scripts`` too."""
    before = os.environ.get("NODE_OPTIONS")
    return " ".join([*filter(None, [before]), *(f'--require "{_FOLDER / name}.js"' for name in scripts)])


@contextlib.contextmanager
def environment_with(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore the earlier values at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
