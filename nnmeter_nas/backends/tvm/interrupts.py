"""Ctrl-C while TVM works: an exception that Python raises within a call to TVM is lost, or ends the process.

So a signal is only noted, and raised where Python's own code asks.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_asked = threading.Event()


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until :func:`end_if_asked` is called, or until the end.

    Only the main thread can: elsewhere, and where Ctrl-C is not a KeyboardInterrupt, nothing changes.

    Raises:
        KeyboardInterrupt: at the end, if the user asked for it.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main else None
    if not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        end_if_asked()


def end_if_asked() -> None:
    """Raise KeyboardInterrupt if the user asked for it while it was held back."""
    if _asked.is_set():
        _asked.clear()
        raise KeyboardInterrupt


def _note(*_: Any) -> None:
    _asked.set()
