"""What nn-Meter's settings may be: they are checked when they are read, before hours of work rely on them."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import WorkspaceError, nearest
from .models import SUFFIXES

#: Two names of one setting, in nn-Meter's file and in its documentation.
ALPHAS = ("EMP_ALPHA", "EPS_ALPHA")
#: How like a setting's name a key is that means it.
_ALIKE = 0.75

logger = logging.getLogger("nn-Meter")


class _Kind(NamedTuple):
    """Values of a setting: in words, and whether one is such a value."""

    words: str
    fits: Callable[[Any], bool]


def _whole(least: int) -> _Kind:
    return _Kind(
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def _is_number(value: Any) -> bool:
    """Whether it is a number of at least 0; YAML takes 1e-1 for a text."""
    try:
        return not isinstance(value, bool) and 0 <= float(value) < math.inf
    except (TypeError, ValueError):
        return False


_SIZE, _COUNT = _whole(1), _whole(0)
_NUMBER = _Kind("a number of at least 0", _is_number)
_LIST = _Kind("a list", lambda value: value is None or isinstance(value, list))
_MAPPING = _Kind("a mapping", lambda value: value is None or isinstance(value, dict))
_SWITCH = _Kind("TRUE or FALSE", lambda value: value in (True, False, None))
_IMPLEMENT = _Kind(f"one of {', '.join(SUFFIXES)}", lambda value: value in tuple(SUFFIXES))
_ANY = _Kind("anything", lambda value: True)

_RULETEST = {
    "DETAIL": _SWITCH, "IMPLEMENT": _IMPLEMENT, "HW": _SIZE, "CIN": _SIZE, "SHAPE_1D": _SIZE, "COUT": _SIZE,
    "KERNEL_SIZE": _SIZE, "PADDING": _ANY, "STRIDES": _SIZE, "POOL_STRIDES": _SIZE, ALPHAS[0]: _NUMBER,
    ALPHAS[1]: _NUMBER, "BASIC_TESTCASES": _LIST, "OTHER_TESTCASES": _LIST, "LAYERS_1D": _LIST,
}  # fmt: skip
_PREDBUILD = {"DETAIL": _SWITCH, "IMPLEMENT": _IMPLEMENT, "BATCH_SIZE": _ANY, "KERNELS": _MAPPING}
_OF_KERNEL = {
    "INIT_SAMPLE_NUM": _SIZE, "FINEGRAINED_SAMPLE_NUM": _COUNT, "ITERATION": _SIZE,
    "ERROR_THRESHOLD": _NUMBER,
}  # fmt: skip
_TFLITE = dict.fromkeys(("REMOTE_MODEL_DIR", "BENCHMARK_MODEL_PATH", "DEVICE_SERIAL", "KERNEL_PATH"), _ANY)


def check_ruletest(file: Path, settings: Mapping[str, Any]) -> None:
    """Check the settings of the fusion test.

    Raises:
        WorkspaceError: one is missing, misspelt or of the wrong kind.
    """
    alpha = next((name for name in ALPHAS if name in settings), ALPHAS[0])
    others = set(ALPHAS) - {alpha}
    known = {name: kind for name, kind in _RULETEST.items() if name not in others or name in settings}
    _check(file, settings, known, optional=("POOL_STRIDES",))


def check_predbuild(file: Path, settings: Mapping[str, Any]) -> None:
    """Check the settings of kernels' predictors.

    Raises:
        WorkspaceError: one is missing, misspelt or of the wrong kind.
    """
    _check(file, settings, _PREDBUILD, optional=("DETAIL", "BATCH_SIZE", "KERNELS"))
    for kernel_type, of_type in (settings.get("KERNELS") or {}).items():
        where = f"{file}: KERNELS: {kernel_type}"
        if not isinstance(of_type, dict):
            raise WorkspaceError(f"{where} must be a mapping of {', '.join(_OF_KERNEL)} to numbers")
        for key in of_type:
            if key not in _OF_KERNEL:
                raise WorkspaceError(f"{where} has no setting {str(key)!r}; {nearest(str(key), _OF_KERNEL)}")
        _check(where, of_type, _OF_KERNEL)


def check_tflite(file: Path, settings: Mapping[str, Any]) -> None:
    """Check the settings of TFLite on a phone, all of which may be missing.

    Raises:
        WorkspaceError: one is misspelt.
    """
    # nn-Meter's file for OpenVINO has a quotation mark at the end of its keys.
    whole = {key: value for key, value in settings.items() if not str(key).endswith("'")}
    _check(file, whole, _TFLITE, optional=_TFLITE, others_are_own=True)


def _check(
    where: str | Path,
    settings: Mapping[str, Any],
    known: Mapping[str, _Kind],
    optional: Collection[str] = (),
    others_are_own: bool = False,
) -> None:
    """Check keys and values. Classes of the user's may have keys of their own."""
    absent = [name for name in known if name not in settings]
    for key in settings:
        if key in known or key == "WORKSPACE":
            continue
        hint = nearest(str(key), known)
        if difflib.get_close_matches(str(key).upper(), absent, n=1, cutoff=_ALIKE):
            raise WorkspaceError(f"{where} has no setting {str(key)!r}; {hint}")
        if not others_are_own and difflib.get_close_matches(str(key), known, n=1, cutoff=_ALIKE):
            logger.warning("%s: %s has no effect but on classes of yours; %s", where, key, hint)
    missing = [name for name in absent if name not in optional]
    if missing:
        raise WorkspaceError(
            f"{where} lacks {', '.join(missing)}; a new workspace has all settings, with nn-Meter's values"
        )
    for name, kind in known.items():
        if name in settings and not kind.fits(settings[name]):
            raise WorkspaceError(f"{where}: {name}: {settings[name]} must be {kind.words}")
