"""The page of all commands, from what their parsers print for ``--help``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from repository import REPOSITORY

from nnmeter_nas.benchmarks.__main__ import argument_parser as benchmarks_parser
from nnmeter_nas.cli import argument_parser
from nnmeter_nas.cli.commands import COMMANDS

_START = """\
# Commands

What each command prints for `--help`. `nnmeter-nas` exits with 0 if all went well, with 1 if something
failed, with 2 if it was used wrongly, and with 130 if it was interrupted.
"""


def commands_page() -> str:
    """Return the page: a heading and the help of each command, and of its actions below it."""
    os.environ["COLUMNS"] = "100"  # the width that help is wrapped to
    os.environ["NO_COLOR"] = "1"
    sections = [*_sections(argument_parser(list(COMMANDS))), *_sections(benchmarks_parser())]
    text = _START + "".join(sections)
    # Defaults that are paths of this machine.
    return text.replace(f"{REPOSITORY}/", "").replace(str(Path.home()), "~")


def _sections(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[str]:
    yield f"\n{'#' * level} `{parser.prog}`\n\n```text\n{parser.format_help().rstrip()}\n```\n"
    for action in parser._actions:  # argparse tells of its subcommands nowhere else
        if isinstance(action, argparse._SubParsersAction):
            known = dict.fromkeys(action.choices.values())  # a command may have an alias
            for command in known:
                yield from _sections(command, level + 1)
