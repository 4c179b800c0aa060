"""Show on a terminal how far long work has come, how fast it goes, and when it will end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Least number of pieces for which a terminal shows progress, unless each of them is long.
_MANY = 10


@contextmanager
def progress(
    total: int, text: str = "models", done: int = 0, least: int = _MANY
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with how many pieces of work have just ended.

    A terminal on standard error shows a bar, the pieces a second and the time left.

    Args:
        total: number of pieces.
        text: what the pieces are, or what is done with them.
        done: how many of them had ended before; they do not count for the speed.
        least: smallest ``total`` that shows a bar.
    """
    if total < least or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=Console(stderr=True, soft_wrap=True), transient=True, redirect_stdout=sys.stdout.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task(text, total=total, completed=done, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            bar.update(task, rate=_rate(bar.tasks[task].speed))

        yield advance


def _rate(speed: float | None) -> str:
    """Write pieces a second.

    >>> [_rate(speed) for speed in (None, 0.0123, 4.56, 123.4)]
    ['', '0.012/s', '4.6/s', '123/s']
    """
    if not speed:
        return ""
    return f"{speed:.0f}/s" if speed >= 10 else f"{speed:.2g}/s"
