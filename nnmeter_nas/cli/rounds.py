"""The rounds of a build as they end: a table that lives on a terminal, or else a line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..builder.workspace import Round

#: Columns of the lines: heading and width.
_COLUMNS = (("networks", 8), ("left out", 8), ("minutes", 7), ("±5 %", 6), ("±10 %", 6), ("repeats ±5 %", 12),
            ("±10 %", 6))  # fmt: skip
_TITLE = "networks not trained on that are predicted so well, and those that the device repeats so well, in %"


@contextmanager
def shown_rounds() -> Iterator[tuple[Callable[[Round], None], Callable[[str], None]]]:
    """Yield a function to call after each round, and one to call with what goes on meanwhile.

    A terminal on standard error shows both. Lines go to standard output unless it is that terminal too.
    """
    display = _Display()
    errors = Console(stderr=True, markup=False)
    lines = not (errors.is_terminal and sys.stdout.isatty())
    heading = [_line([name for name, _ in _COLUMNS])]

    def show(found: Round) -> None:
        display.rounds.append(_figures(found))
        if lines:
            print("\n".join([*heading, _line(display.rounds[-1])]), flush=True)
            heading.clear()

    def tell(text: str) -> None:
        display.spinner.update(text=Text(text))

    if not errors.is_terminal:
        yield show, tell
        return
    # What is printed meanwhile goes above the table, and lines for another program stay out of it.
    with Live(console=errors, get_renderable=display.drawn, redirect_stdout=not lines):
        try:
            yield show, tell
        finally:
            display.ended = True


class _Display:
    """What the terminal shows.

    Attributes:
        rounds: figures of the rounds so far.
        spinner: turns beside what goes on now.
        ended: whether nothing goes on any more.
    """

    def __init__(self) -> None:
        self.rounds: list[list[str]] = []
        self.spinner = Spinner("dots", Text("starting"))
        self.ended = False

    def drawn(self) -> RenderableType:
        """The table, and what goes on below it."""
        table = Table(title=_TITLE, title_justify="left", title_style="")
        for name, _ in _COLUMNS:
            table.add_column(name, justify="right")
        for figures in self.rounds:
            table.add_row(*figures)
        parts: list[RenderableType] = [table] if self.rounds else []
        return Group(*parts, *([] if self.ended else [self.spinner]))


def _figures(found: Round) -> list[str]:
    """One round, in the order of :data:`_COLUMNS`."""
    shares = (found.within_5, found.within_10, found.repeats_5, found.repeats_10)
    return [
        str(found.networks), str(found.left_out), f"{found.minutes:.2f}", *(f"{one:.1f}" for one in shares),
    ]  # fmt: skip


def _line(texts: list[str]) -> str:
    return "  ".join(text.rjust(width) for text, (_, width) in zip(texts, _COLUMNS, strict=True))
