"""Run code written for nn-Meter on this package, with one line.

    import nnmeter_nas.compat as compat; compat.install()

From then on, ``import nn_meter`` imports :mod:`nnmeter_nas.compat.interface`, whether or not nn-Meter is
installed, NNI 3.0's ``NnMeterProfiler`` works on today's torch, and NNI is patched as for this package's own
filters and profilers (:mod:`nnmeter_nas.compat.nni_mended`). To run a script unchanged, call
``python -m nnmeter_nas.compat script.py [argument ...]``.
"""

from __future__ import annotations

import sys
from types import ModuleType

from .children import include_children, leave_children_alone
from .imports import PACKAGE, Finder
from .nni_mended import mend_loaded, restore_all

__all__ = ["install", "is_installed", "uninstall"]

_finder = Finder()
#: Modules of nn-Meter that were imported before this package replaced them.
_displaced: dict[str, ModuleType] = {}


def is_installed() -> bool:
    """Return whether ``import nn_meter`` imports this package."""
    return _finder in sys.meta_path


def install(children: bool = True) -> None:
    """Make ``import nn_meter`` import this package, in this process and those that it starts.

    Calling it again changes nothing, except for ``children``.

    This does not import NNI or torch. Code that already imported nn-Meter keeps it, except NNI's profiler,
    which uses this package from now on. Experiments of NNI are patched when they start
    (:func:`nnmeter_nas.nni.patch`), and its one-shot strategies heed penalties and filters.

    Args:
        children: include processes that this one starts from now on, such as trials of NNI. They inherit an
            entry of ``PYTHONPATH`` (:mod:`nnmeter_nas.compat.children`).

    >>> install()
    >>> import nn_meter
    >>> nn_meter.load_latency_predictor("cortexA76cpu_tflite21").version
    2.1
    >>> uninstall()
    """
    if children:
        include_children()
    else:
        leave_children_alone()
    if is_installed():
        return
    _displaced.update(_take_modules())
    sys.meta_path.insert(0, _finder)
    mend_loaded()


def uninstall() -> None:
    """Make ``import nn_meter`` import what it did before :func:`install`, and restore NNI.

    NNI stays patched for filters, strategies and profilers of this package that still exist.
    """
    leave_children_alone()
    if not is_installed():
        return
    sys.meta_path.remove(_finder)
    _take_modules()
    sys.modules.update(_displaced)
    _displaced.clear()
    restore_all()


def _take_modules() -> dict[str, ModuleType]:
    """Remove ``nn_meter`` and all its modules from the imported modules; return them by name."""
    names = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    return {name: sys.modules.pop(name) for name in names}
