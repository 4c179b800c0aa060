"""A module of the user's whose training waits for the test, for searches on several machines."""

from __future__ import annotations

from pathlib import Path

#: Works with both lines of NNI: the function gets the network, or on NNI 2.10.1 what makes it.
_MODULE = """
import time
from pathlib import Path

from torch import nn

def train(model):
    network = model if isinstance(model, nn.Module) else model()
    size = sum(p.numel() for p in network.parameters())
    folder = Path({folder!r})
    (folder / f"began-{{size}}-{{time.time_ns()}}").touch()
    while not (folder / "go").exists():
        time.sleep(0.2)
    with (folder / "trained.log").open("a") as log:
        log.write(f"{{size}}\\n")
    return size / 1e6
"""
#: The function, as ``--evaluator`` takes it.
EVALUATOR = "my_training:train"


def write_training(code: Path, folder: Path) -> None:
    """Write the module into the folder ``code``; its trials leave their marks in ``folder``."""
    code.mkdir(exist_ok=True)
    (code / "my_training.py").write_text(_MODULE.format(folder=str(folder)))


def began(folder: Path) -> list[Path]:
    """A file for each time that a trial began to train."""
    return list(folder.glob("began-*"))


def let_go(folder: Path) -> None:
    """Let all trials end, those too that begin later."""
    (folder / "go").touch()


def trained(folder: Path) -> list[int]:
    """The parameters of the networks whose training ended, which are their metrics in millions."""
    return sorted(map(int, (folder / "trained.log").read_text().split()))
