"""What the command says: tables on standard output, remarks and errors on standard error."""

from __future__ import annotations

import os
import sys
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


def fail(message: str) -> int:
    """Say what failed, and return the exit code for it."""
    note(f"error: {message}")
    return 1
