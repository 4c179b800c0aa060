"""The commands: their names, a one-line summary of each, and functions that build their parsers.

This module imports nothing heavier than argparse, so that ``nnmeter-nas --help`` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

#: Name of each command -> its line in the help. The command's module in this folder has the same name.
COMMANDS = {
    "predict": "latency of models in ms",
    "explain": "latency of each kernel of a model",
    "get_ir": "write models as nn-Meter IR",
    "lut": "lookup tables of search spaces: build, show, rank architectures",
    "predictors": "predictor packs: list, import, inspect",
    "build": "make a predictor of this machine, by measuring it",
    "tune": "make a model run faster on this machine, with TVM",
    "calibrate": "make a predictor of your own device from a few timed models",
    "search": "search architectures within latency limits with NNI, and train them",
    "export": "write a network that a search found as an ONNX file",
    "proxylessnas": "search a network that learns best within a latency, by ProxylessNAS",
    "retrain": "train an architecture that a search has exported, from scratch",
    "demo": "search SPOS networks that meet a latency limit, and train them with NNI",
}
#: nn-Meter's name of a command.
_ALIASES = {"predict": ["lat_pred"]}


def add_commands(commands: Any, words: Sequence[str]) -> None:
    """Add all commands, and the arguments of the commands named in ``words``, the words of a command line.

    A command's module is imported only if the command is named. It has ``add_arguments(parser)``.
    """
    for name, summary in COMMANDS.items():
        aliases = _ALIASES.get(name, [])
        parser = add_command(commands, name, summary, aliases=aliases)
        if {name, *aliases} & set(words):
            import_module(f".{name}", __package__).add_arguments(parser)


def add_command(commands: Any, name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
    """Add a command, or an action of one, that has no arguments yet."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    # nnmeter-nas itself has this flag too, so it works before and after the command's name.
    parser.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS,
                        help="say more about each model, on stderr")
    return parser


def set_command(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], epilog: str
) -> None:
    """Make a command call ``run``, which takes its options and returns the exit code.

    ``epilog`` ends the command's help.
    """
    parser.epilog = epilog
    parser.set_defaults(run=run, parser=parser)
