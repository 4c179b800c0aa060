"""What trials of the tests' searches run: quick, slow, and failing in every way that trials fail.

Trials find this module by ``PYTHONPATH``. They run in the folder where the search began, and leave
``trained.log`` there: a line for each network that was trained to its end.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import nni

LOG = Path("trained.log")


def quick(model: Any) -> None:
    """Report a number that follows from the network alone."""
    size = _size(model)
    with LOG.open("a") as log:
        log.write(f"{size}\n")
    nni.report_final_result(size / 1e6)


def slow(model: Any) -> None:
    """The same after some seconds."""
    time.sleep(4)
    quick(model)


def failing(model: Any) -> None:
    """Fail: the first trial by an exception, the second by NaN, the third as if it was killed; then work."""
    turn = _turn()
    if turn == 0:
        raise MemoryError("this network is too large to train")
    if turn == 1:
        nni.report_final_result(float("nan"))
    elif turn == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        quick(model)


def silent(model: Any) -> None:
    """Report nothing."""
    _size(model)


def _turn() -> int:
    """How many trials asked this before."""
    turn = 0
    while True:
        try:
            Path(f"turn-{turn}").touch(exist_ok=False)
            return turn
        except FileExistsError:
            turn += 1


def _size(model: Any) -> int:
    """Parameters of a network, or of what makes one."""
    network = model if hasattr(model, "parameters") and not isinstance(model, type) else model()
    return sum(p.numel() for p in network.parameters())
