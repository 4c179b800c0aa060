"""Run by Python as it starts, in processes that are started while ``nnmeter_nas.compat`` is installed.

Python runs one module of this name. Where it hides another, that one runs too, as if this one were not there.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    hidden = PathFinder.find_spec("sitecustomize", sys.path)
    if hidden is not None and hidden.loader is not None:
        module = importlib.util.module_from_spec(hidden)
        sys.modules["sitecustomize"] = module
        hidden.loader.exec_module(module)
    # Another Python, of another environment, may have been started.
    if importlib.util.find_spec("nnmeter_nas") is not None:
        from nnmeter_nas.compat import install

        install()


_start()
