"""Run a script written for nn-Meter unchanged: ``python -m nnmeter_nas.compat script.py``.

``-m MODULE`` in place of the script runs a module, such as ``pytest`` or ``jupyter``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import install

_USAGE = "usage: python -m nnmeter_nas.compat (SCRIPT | -m MODULE) [ARGUMENT ...]"


def main(arguments: list[str]) -> None:
    """Run the script or the module named first in ``arguments``, as Python would."""
    if len(arguments) > 1 and arguments[0] == "-m":
        install()
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    if not arguments or arguments[0].startswith("-"):
        _refuse(_USAGE)
    script = Path(arguments[0])
    if not script.is_file():
        _refuse(f"no script at {script}")
    install()
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
