"""Import the intrinsics that TVM's tuner wants, quickly."""

from __future__ import annotations

import inspect
import sys
from types import FrameType

from .imports import load_tvm


def load_intrinsics() -> None:
    """Import TVM's intrinsics, as its tuner does itself, but in a few seconds instead of half a minute.

    Each of the hundreds asks for the stack of its callers, for which Python would look for their sources.
    """
    whole_stack = inspect.stack
    inspect.stack = _callers
    try:
        load_tvm("tvm.s_tir.tensor_intrin")
    finally:
        inspect.stack = whole_stack


def _callers(context: int = 0) -> list[inspect.FrameInfo]:
    """The stack of callers, without their sources."""
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return found
