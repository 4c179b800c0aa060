"""Run a script written for nn-Meter unchanged: ``python -m nnmeter_nas.compat script.py``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import install


def main(arguments: list[str]) -> None:
    """Run the script named first in ``arguments``, as Python would."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit("usage: python -m nnmeter_nas.compat SCRIPT [ARGUMENT ...]")
    script = Path(arguments[0])
    if not script.is_file():
        sys.exit(f"no script at {script}")
    install()
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
