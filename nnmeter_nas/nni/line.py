"""Find which of the two supported NNI lines is installed; no other module decides this."""

from __future__ import annotations

from importlib.util import find_spec

#: The two lines, named by the versions used in tests.
RETIARII, NAS = "2.10.1", "3.0"


def nni_line() -> str | None:
    """Return :data:`RETIARII` or :data:`NAS`; None if NNI is not installed, or is older than both.

    Each line is recognised by a module that only it has.
    """
    if find_spec("nni") is None:
        return None
    if find_spec("nni.mutable") is not None:
        return NAS
    is_retiarii = find_spec("nni.nas") is not None and find_spec("nni.nas.mutable") is not None
    return RETIARII if is_retiarii else None
