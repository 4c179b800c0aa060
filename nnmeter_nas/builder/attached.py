"""A device that is attached: what it says of itself, waiting until it is back, and leaving it as it was."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..backends import Backend, as_attached
from ..errors import DeviceLostError, MeasurementError

#: How long to wait for a device that is gone, in all, and between two looks, in s.
_PATIENCE_S, _PAUSE_S = 900.0, 2.0
#: A network during which the device is lost so often is at fault.
_MOST_LOSSES = 3

_Answer = TypeVar("_Answer")


@contextlib.contextmanager
def in_use(backend: Backend, say: Callable[[str], None]) -> Iterator[None]:
    """Say what an attached device says of itself, and leave it as it was at the end.

    Raises:
        DeviceLostError: it does not answer.
        MeasurementError: it cannot be measured now.
    """
    attached = as_attached(backend)
    if attached is None:
        yield
        return
    try:
        for line in attached.look():
            say(line)
        yield
    finally:
        attached.close()


def say_what_moved(backend: Backend, say: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Say what has changed on an attached device.

    Raises:
        DeviceLostError: it does not come back.
    """
    attached = as_attached(backend)
    if attached is not None:
        for line in patiently(attached.look, backend, tell):
            say(line)


def patiently(
    ask: Callable[[], _Answer],
    backend: Backend,
    tell: Callable[[str], None],
    patience_s: float = _PATIENCE_S,
) -> _Answer:
    """Return what ``ask`` returns. If the device is lost, wait until it is back and ask again.

    It waits for ``patience_s`` seconds at most.

    Raises:
        DeviceLostError: it does not come back.
        MeasurementError: it is lost each time it is asked.
    """
    for _ in range(_MOST_LOSSES):
        try:
            return ask()
        except DeviceLostError as error:
            lost = error
            _wait_until_back(backend, tell, error, patience_s)
    raise MeasurementError(f"the device was lost {_MOST_LOSSES} times while it ran: {lost}")


def _wait_until_back(
    backend: Backend, tell: Callable[[str], None], lost: DeviceLostError, patience_s: float
) -> None:
    attached = as_attached(backend)
    end = time.monotonic() + patience_s
    while attached is not None and time.monotonic() < end:
        if attached.is_there():
            return
        tell(f"waiting: {lost}")
        time.sleep(_PAUSE_S)
    raise lost
