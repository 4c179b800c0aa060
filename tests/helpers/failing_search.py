"""Trial functions for tests of searches: quick ones, slow ones, and ones that fail in different ways.

Trials find this module through ``PYTHONPATH``. They run in the folder where the search started, and write
``trained.log`` there, with a line for each network trained to the end.
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
    """Report a number that depends only on the network."""
    size = _size(model)
    with LOG.open("a") as log:
        log.write(f"{size}\n")
    nni.report_final_result(size / 1e6)


def slow(model: Any) -> None:
    """Like ``quick``, but take some seconds."""
    time.sleep(4)
    quick(model)


def failing(model: Any) -> None:
    """Fail: the first trial with an exception, the second with NaN, the third as if killed. Then work."""
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
    """Number of trials that called this before."""
    turn = 0
    while True:
        try:
            Path(f"turn-{turn}").touch(exist_ok=False)
            return turn
        except FileExistsError:
            turn += 1


def _size(model: Any) -> int:
    """Number of parameters of a network, or of the network that a factory builds."""
    network = model if hasattr(model, "parameters") and not isinstance(model, type) else model()
    return sum(p.numel() for p in network.parameters())
