"""Mend NNI while ``install()`` is in force, as this package mends it for its own filters and profilers.

NNI's modules take seconds to import, and many scripts never need them. So each is mended once it is loaded,
and this module imports next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType


class _User:
    """The code that runs after ``install()``, as a user of the patches of NNI."""


_user = _User()


def _mend_experiments(_: ModuleType) -> None:
    from ..nni import patch_when_experiment_starts

    patch_when_experiment_starts(_user)


def _mend_oneshot(_: ModuleType) -> None:
    from ..nni import NAS, nni_line
    from ..nni.oneshot import patch_oneshot

    if nni_line() == NAS:  # strategies of 2.10.1 take neither penalties nor filters
        patch_oneshot(_user)


def _mend_proxyless(_: ModuleType) -> None:
    from ..nni.proxyless import patch_proxyless

    patch_proxyless(_user)


def _mend_profiler(module: ModuleType) -> None:
    from ..nni.patches import need_patches
    from .nni_profiler import patch_profiler

    need_patches(_user)
    patch_profiler(module)


_PROFILER = "nni.nas.profiler.pytorch.nn_meter"
#: Module of NNI, of either line -> what mends it.
MENDED: dict[str, Callable[[ModuleType], None]] = {
    "nni.nas.experiment": _mend_experiments,
    "nni.nas.oneshot.pytorch.strategy": _mend_oneshot,
    "nni.retiarii.oneshot.pytorch.proxyless": _mend_proxyless,
    _PROFILER: _mend_profiler,
}


def mend_loaded() -> None:
    """Mend what is loaded already."""
    for name, mend in MENDED.items():
        if name in sys.modules:
            mend(sys.modules[name])


def restore_all() -> None:
    """Undo everything, except for this package's own filters, strategies and profilers that still exist."""
    if not any(name in sys.modules for name in MENDED):
        return
    from ..nni import no_longer_need_patches
    from .nni_profiler import restore_profiler

    if _PROFILER in sys.modules:
        restore_profiler(sys.modules[_PROFILER])
    no_longer_need_patches(_user)
