"""What trials of real experiments run in tests: the network's size for an accuracy, or trouble on purpose.

Works under both lines of NNI; trials import this module from this folder.
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
    """Report the number of parameters, after leaving a file named after it in ``folder``.

    Args:
        model: a network, or what makes one.
        folder: where trials leave their files.
        trouble: what befalls the first trials, one each: "crash" or "nan".
        free: how many trials may end before there is a file ``go`` beside ``folder``; None for all.
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
    """Whether no trial has made ``file`` before."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
