"""Trial function for real experiments in tests: report the network's size as accuracy, or fail on purpose.

Works under NNI 2.10.1 and 3.0. Trials import this module from this folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nni
import torch


def evaluate(model: Any, folder: str, trouble: Sequence[str] = (), free: int | None = None) -> None:
    """Write a file named after the number of parameters into ``folder``, then report that number.

    Args:
        model: a network, or a factory of one.
        folder: where trials write their files.
        trouble: failures of the first trials, one each: "crash" or "nan".
        free: number of trials that may end before the file ``go`` exists next to ``folder``; None for all.
    """
    network = model if isinstance(model, torch.nn.Module) else model()
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    size = sum(p.numel() for p in network.parameters())
    Path(folder).mkdir(exist_ok=True)
    Path(folder, f"{size}-{os.getpid()}").touch()
    held = free is not None and not any(_first(Path(f"{folder}-free-{n}")) for n in range(free))
    while held and not Path(folder, "../go").exists():
        time.sleep(0.1)
    for number, kind in enumerate(trouble):
        if _first(Path(folder, f"trouble-{number}")):
            if kind == "crash":
                raise RuntimeError("out of luck")
            size = float("nan")
            break
    nni.report_final_result(float(size))


def _first(file: Path) -> bool:
    """Whether this is the first trial to make ``file``."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def evaluate_with_nn_meter(model: Any, folder: str) -> None:
    """Evaluate in a trial whose code needs nn-Meter."""
    import nn_meter

    assert nn_meter.list_latency_predictors()
    evaluate(model, folder)
