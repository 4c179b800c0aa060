"""What the command says: tables on standard output, remarks and errors on standard error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Columns of a table where no terminal sets them.
_WIDTH = 160


def console() -> Console:
    """For tables on standard output; names and paths may hold brackets, which are no markup."""
    from rich.console import Console  # late: most commands print no table

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(markup=False, width=None if known else _WIDTH)


def note(message: str) -> None:
    """Say something that is good to know."""
    print(f"nnmeter-nas: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """Say that a result is not the whole truth."""
    note(f"warning: {message}")


def in_flags(message: str, arguments: Iterable[str]) -> str:
    """``message`` with flags in place of the arguments of a function that it names.

    Args:
        message: of an error of the library.
        arguments: names that have a flag. One with an underscore is a flag wherever it stands, any other
            one only before an equals sign.

    >>> in_flags("jobs=0 must be at least 1; lower learning_rate", ["jobs", "learning_rate"])
    '--jobs 0 must be at least 1; lower --learning-rate'
    >>> in_flags("pass input_shape=(1, 3, 224, 224), or overwrite=True", ["input_shape", "overwrite"])
    'pass --input-shape 1 3 224 224, or --overwrite'
    """
    for name in arguments:
        flag = f"--{name.replace('_', '-')}"
        # Not inside a path or a longer name.
        start = rf"(?<![\w/.-]){re.escape(name)}"
        message = re.sub(rf"{start}=True\b", flag, message)
        for shape in re.finditer(rf"{start}=(?:\{{[^({{}}]*)?[(\[]([\d, ]+)[)\]]\}}?", message):
            sizes = " ".join(re.findall(r"\d+", shape[1]))
            message = message.replace(shape[0], f"{flag} {sizes}")
        message = re.sub(rf"{start}=", f"{flag} ", message)
        if "_" in name:
            message = re.sub(rf"{start}(?![\w/.-])", flag, message)
    return message


def fail(message: str) -> int:
    """Say what failed, and return the exit code for it."""
    note(f"error: {message}")
    return 1
