"""Messages of the command: tables on standard output, remarks and errors on standard error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: A shape, a list of shapes, or a dict of shapes, as Python writes them.
_SHAPES = r"\{[^{}]*\}|[(\[](?:[\d, ]|[(\[][\d, ]*[)\]])+[)\]]"
#: Width of a table in columns if there is no terminal.
_WIDTH = 160


def console() -> Console:
    """Make a console for tables on standard output; brackets in names and paths are not markup."""
    from rich.console import Console  # late: most commands print no table

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(markup=False, width=None if known else _WIDTH)


@contextmanager
def pricing(space: str) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of architectures of ``space`` priced; a terminal shows it."""
    from rich.console import Console

    text = f"Pricing {space}"
    with Console(stderr=True, markup=False).status(text) as status:
        yield lambda count: status.update(f"{text}: {count} architectures")


def note(message: str) -> None:
    """Print a remark."""
    print(f"nnmeter-nas: {message}", file=sys.stderr)


def say_as_nn_meter(message: str) -> None:
    """Print a result in the form in which nn-Meter's command does."""
    print(f"(nn-Meter) {message}", flush=True)


def warn(message: str) -> None:
    """Warn that a result is incomplete or inexact."""
    note(f"warning: {message}")


def in_flags(message: str, arguments: Iterable[str]) -> str:
    """Replace the function arguments that ``message`` names with flags.

    Args:
        message: the message of a library error.
        arguments: names that have a flag. A name with an underscore is replaced everywhere, any other name
            only before an equals sign.

    >>> in_flags("jobs=0 must be at least 1; lower learning_rate", ["jobs", "learning_rate"])
    '--jobs 0 must be at least 1; lower --learning-rate'
    >>> in_flags("pass input_shape=(1, 3, 224, 224), or overwrite=True", ["input_shape", "overwrite"])
    'pass --input-shape 1 3 224 224, or --overwrite'
    >>> in_flags("pass input_shape={'x': (1, 4), 'y': (8,)}", ["input_shape"])
    'pass --input-shape 1 4 --input-shape 8'
    """
    for name in arguments:
        flag = f"--{name.replace('_', '-')}"
        # Do not match inside a path or a longer name.
        start = rf"(?<![\w/.-]){re.escape(name)}"
        message = re.sub(rf"{start}=True\b", flag, message)
        for given in re.finditer(rf"{start}=({_SHAPES})", message):
            shapes = re.findall(r"[(\[]([\d, ]+)[)\]]", re.sub(r"'[^']*'", "", given[1]))
            flags = [" ".join([flag, *re.findall(r"\d+", shape)]) for shape in shapes]
            message = message.replace(given[0], " ".join(flags))
        message = re.sub(rf"{start}=", f"{flag} ", message)
        if "_" in name:
            message = re.sub(rf"{start}(?![\w/.-])", flag, message)
    return message


def grouped(said: Iterable[tuple[str, str]]) -> list[str]:
    """Join messages that differ only in the device, or in the share in brackets behind its name.

    Args:
        said: device and message, in order.

    >>> grouped([("one", "new on one (5%)."), ("one", "quantised"), ("two", "new on two (7%)."),
    ...          ("two", "quantised")])
    ['new on one (5%) and two (7%).', 'quantised']
    """
    places: dict[tuple[str, ...], list[list[str]]] = {}
    for device, message in said:
        named = re.compile(rf"{re.escape(device)}(?: \([^()]*\))?")
        places.setdefault(tuple(named.split(message)), []).append(named.findall(message))
    lines = []
    for texts, devices in places.items():
        together = [_listed(list(dict.fromkeys(names))) for names in zip(*devices, strict=True)]
        lines.append("".join(a + b for a, b in zip(texts, [*together, ""], strict=True)))
    return lines


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def reader_has_ended() -> int:
    """Say nothing more, as nobody reads it; return the exit code of a command whose output was cut off."""
    # Python would complain again when it closes the stream.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def fail(message: str) -> int:
    """Print what failed, and return the exit code for a failure."""
    note(f"error: {message}")
    return 1
