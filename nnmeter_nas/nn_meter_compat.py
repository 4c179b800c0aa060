"""The old name of :mod:`nnmeter_nas.compat`, for code that was written against it."""

import sys

from .compat import install, uninstall
from .compat.__main__ import main

__all__ = ["install", "uninstall"]

if __name__ == "__main__":
    main(sys.argv[1:])
